"""Stories: scripts of commands with their full expected output.

A block is comment lines, command lines, `----`, output lines, and an empty line.
`TRELLIS_REWRITE=1` or `--rewrite` writes what happened into the file; the
difference is then reviewed like code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RULER = "----"


@dataclass
class Block:
    """Some commands and what they should print."""

    comments: list[str]
    commands: list[str]
    expected: list[str]

    def text(self) -> str:
        return "\n".join([*self.comments, *self.commands, RULER, *self.expected]) + "\n"


def read_story(text: str) -> list[Block]:
    """The blocks of a story."""
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.splitlines()
        ruler = lines.index(RULER)
        comments = [line for line in lines[:ruler] if line.startswith("#")]
        commands = [line for line in lines[:ruler] if not line.startswith("#")]
        blocks.append(Block(comments, commands, lines[ruler + 1 :]))
    return blocks


def play(path: Path, run_command: Callable[[str], list[str]], *, rewrite: bool) -> None:
    """Run a story and compare, or write, what it prints."""
    blocks = read_story(path.read_text())
    for block in blocks:
        printed = [line for command in block.commands for line in run_command(command)] or ["ok"]
        if rewrite:
            block.expected = printed
        assert printed == block.expected, f"{path.name}: {' ; '.join(block.commands)}"
    if rewrite:
        path.write_text("\n".join(block.text() for block in blocks))
