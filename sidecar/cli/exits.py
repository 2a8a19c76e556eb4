"""How an error ends a command: its exit code and what is printed about it.

The one table from errors to exit codes is `EXITS`; scripts may rely on it.
"""

import json
import sys
from typing import Final

from mesh.errors import (
    Denied,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Problem,
    QueueFull,
    SettingsError,
    TrellisError,
    Unavailable,
)

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 64
UNAVAILABLE: Final = 69
OUTCOME_UNKNOWN: Final = 75
DENIED: Final = 77
#: What the command-line parser ends with when the words make no sense.
PARSER_USAGE: Final = 2


class Verdict(Exception):
    """Ends a command whose exit code is its result, such as `trellis sim`; not an error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


#: First match wins, so a special kind stands before its parent.
EXITS: Final[tuple[tuple[type[TrellisError], int], ...]] = (
    (InvalidRequest, USAGE),
    (SettingsError, USAGE),
    (Denied, DENIED),
    (NotLeader, UNAVAILABLE),
    (QueueFull, UNAVAILABLE),
    (Unavailable, UNAVAILABLE),
    (OutcomeUnknown, OUTCOME_UNKNOWN),
    (TrellisError, REFUSED),
)


def exit_code(error: TrellisError) -> int:
    """The exit code that stands for an error."""
    return next(code for kind, code in EXITS if isinstance(error, kind))


def problems_of(error: TrellisError) -> tuple[Problem, ...]:
    """What is wrong with the input, field by field; empty for other errors."""
    return error.problems if isinstance(error, InvalidRequest | SettingsError) else ()


def as_json(error: TrellisError) -> dict[str, object]:
    """The error object that `--json` prints on standard error."""
    return {
        "error": {
            "reason": error.reason,
            "message": error.args[0] if error.args else "",
            "metadata": dict(error.metadata),
            "problems": [
                {"path": item.path, "problem": item.problem, "example": item.example}
                for item in problems_of(error)
            ],
        },
        "exit_code": exit_code(error),
    }


def report(error: TrellisError, *, as_object: bool) -> int:
    """Print the error on standard error; return the exit code to end with."""
    code = exit_code(error)
    if as_object:
        print(json.dumps(as_json(error)), file=sys.stderr)
        return code
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error ", "bold red"), (error.args[0] if error.args else error.reason, "")))
    for item in problems_of(error):
        console.print(Text.assemble("  ", (item.path, "bold"), f": {item.problem}"))
        if item.example:
            console.print(Text(f"    for example: {item.example}", style="dim"))
    if code == OUTCOME_UNKNOWN:
        console.print(Text("It may or may not have happened; the same command may be repeated.", style="dim"))
    return code
