"""The `trellis` command: what it is made of, and how it ends.

Modules that take long to import (gRPC, contracts, tables) are imported inside
the commands, so that `--help` and mistakes are answered at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from mesh.errors import InvalidRequest, Problem, Refused, TrellisError
from sidecar.cli import (
    backup_commands,
    cluster_commands,
    database_commands,
    document_commands,
    exits,
    failpoint_commands,
    service_commands,
    setup_commands,
    sim_commands,
)
from sidecar.cli.options import SETTINGS_VARIABLE

EPILOG = (
    "Exit codes: 0 done, 1 refused, 64 usage, 69 unavailable, 75 outcome unknown (try again), 77 denied. "
    "Every command has --help with examples."
)
#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130

app = typer.Typer(
    name="trellis",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """The version of Trellis, which all hosts of a cluster have in common."""
    if wanted:
        from sidecar.membership.version import own_version

        print(f"trellis {own_version()}")
        raise typer.Exit


#: Programs of their own, whose log may hold what gRPC's core says.
LOGGING = ("run", "demo")


@app.callback()
def root(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="Same as --settings of every command.", show_default=False),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Keeps a small cluster of hosts serving when one of them dies."""
    if settings is not None:
        os.environ[SETTINGS_VARIABLE] = str(settings)
    if context.invoked_subcommand not in LOGGING:
        # Or lines of gRPC's core stand before our own error. Read when gRPC is imported, which comes later.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


MAKE = "Make a cluster"
LOOK = "Look"
OPERATE = "Operate"
TRY = "Try it"

app.command(rich_help_panel=MAKE)(setup_commands.init)
app.command(rich_help_panel=MAKE)(setup_commands.token)
app.command(rich_help_panel=MAKE)(setup_commands.join)
app.command(rich_help_panel=MAKE)(setup_commands.run)
app.command(rich_help_panel=LOOK)(cluster_commands.status)
app.command(rich_help_panel=LOOK)(cluster_commands.hosts)
app.command(rich_help_panel=LOOK)(cluster_commands.events)
app.add_typer(service_commands.services_app, name="services", rich_help_panel=OPERATE)
app.add_typer(document_commands.documents_app, name="documents", rich_help_panel=OPERATE)
database_commands.database_app.command("backup")(backup_commands.backup)
database_commands.database_app.command("restore")(backup_commands.restore)
app.add_typer(database_commands.database_app, name="db", rich_help_panel=OPERATE)
app.add_typer(cluster_commands.leader_app, name="leader", rich_help_panel=OPERATE)
app.add_typer(cluster_commands.host_app, name="host", rich_help_panel=OPERATE)
app.command("xds-bootstrap", rich_help_panel=OPERATE)(setup_commands.xds_bootstrap)
app.command(rich_help_panel=TRY)(setup_commands.demo)
app.command(rich_help_panel=TRY)(failpoint_commands.failpoints)
app.command(rich_help_panel=TRY)(sim_commands.sim)


def _run_for_program() -> int:
    """Run one command whose reader wants JSON; returns its exit code.

    Fails: `InvalidRequest` where the parser would have drawn its own message.
    """
    try:
        return app(standalone_mode=False) or exits.DONE
    except typer.Abort:
        raise Refused("Not confirmed; nothing was done. Programs confirm with --yes.") from None
    except TyperException as error:
        described = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        command = getattr(getattr(error, "ctx", None), "command_path", "trellis")
        problem = Problem("arguments", described, f"{command} --help")
        raise InvalidRequest("The command cannot be understood.", [problem]) from None


def main() -> NoReturn:
    """Run one command and end with its exit code."""
    try:
        if "--json" in sys.argv[1:]:
            sys.exit(_run_for_program())
        app()
    except SystemExit as end:
        sys.exit(exits.USAGE if end.code == exits.PARSER_USAGE else end.code)
    except exits.Verdict as verdict:
        sys.exit(verdict.code)
    except TrellisError as error:
        sys.exit(exits.report(error, as_object="--json" in sys.argv))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(exits.DONE)


if __name__ == "__main__":
    main()
