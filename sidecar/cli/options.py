"""The options that many commands have in common."""

from pathlib import Path
from typing import Annotated, Final

import typer

SETTINGS_DEFAULT: Final = Path("/etc/trellis/settings.toml")
SETTINGS_VARIABLE: Final = "TRELLIS_SETTINGS"
#: Covers a failover that is found by silence, which takes about three seconds.
TIMEOUT_S: Final = 5.0

Settings = Annotated[
    Path,
    typer.Option(
        "--settings",
        envvar=SETTINGS_VARIABLE,
        help="Settings file of the host whose sidecar is asked.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, max=3600, help="Seconds until giving up, repeats included."),
]
Stale = Annotated[
    bool,
    typer.Option("--stale", help="Answer from this host's own state, without asking the leader."),
]
ExpectVersion = Annotated[
    int | None,
    typer.Option("--expect-version", min=0, help="Only if this is the present version (0: only if new)."),
]
