"""Prints results: JSON for programs, tables for people, raw bytes for pipes."""

import json
import sys

from rich.console import Console, RenderableType


def print_json(shape: object, *, line: bool = False) -> None:
    """One JSON value; *line*: on one line of its own, at once, for streams."""
    print(json.dumps(shape, indent=None if line else 2, ensure_ascii=False), flush=line)


def show(view: RenderableType) -> None:
    """A table or a line for people; cut to the terminal, never to a pipe."""
    # Without a terminal rich assumes 80 columns and would cut names that a script looks for.
    width = None if sys.stdout.isatty() else 400
    Console(width=width, highlight=False, soft_wrap=False).print(view)


def say(text: str) -> None:
    """One sentence for people."""
    print(text, flush=True)


def write_raw(value: bytes) -> None:
    """The bytes as they are; a terminal gets a line end behind them."""
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty() and not value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()
