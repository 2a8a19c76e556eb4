"""A path of the explorer as a story: commands for a stage, with everything that they print.

The story is acted out while it is written, by the machines of `tests/raft`
and without any table of steps, so it is also a second opinion on the path.
"""

from collections.abc import Sequence

from tests.explorer.host import CrashSeen, Move
from tests.explorer.search import Event, Search
from tests.explorer.stage import FineStage
from tests.explorer.violation import Violation
from tests.raft.story import Block


def tell(search: Search, path: Sequence[Event], violation: Violation) -> str:
    """The story of *path*, to be kept under `stories/` as a regression test."""
    stage = FineStage()
    what = [
        f"# The explorer's shortest path in the world {search.world.name!r} to a violation of",
        f"# {violation}",
    ]
    blocks = [_act(stage, what, search.world.prologue)]
    for event in path:
        at, move, stalled, kept = event
        name = search.table.members[at]
        block = _act(stage, [], _commands(stage, name, search.table.moves[move], kept=kept, stalled=stalled))
        blocks.append(block)
        if any(line.startswith(("INVARIANT BROKEN", "REFUSED BY THE DISK")) for line in block.expected):
            break
    names = " ".join(search.table.members)
    blocks.append(_act(stage, ["# Where that leads."], ("leading", f"status {names}", f"log {names}")))
    return "\n".join(block.text() for block in blocks)


def _act(stage: FineStage, comments: list[str], commands: Sequence[str]) -> Block:
    printed = [line for command in commands for line in stage.run(command)]
    return Block(comments, list(commands), printed or ["ok"])


def _commands(stage: FineStage, name: str, move: Move, *, kept: bool, stalled: bool) -> list[str]:
    machine = stage.machines[name]
    was_slow = machine.in_flight is not None
    command = _command(stage, name, move, kept=kept)
    if was_slow and move.kind not in {"finish", "crash", "crash-stored"}:
        return [command]
    return [command, f"drain {name} stall" if stalled else f"drain {name}"]


def _command(stage: FineStage, name: str, move: Move, *, kept: bool) -> str:
    argument = move.argument
    match move.kind:
        case "deliver" if isinstance(argument, CrashSeen):
            return f"crash-seen {name} of={argument.sender}"
        case "deliver":
            return _delivery(stage, argument, kept=kept)
        case "propose":
            return f"propose {name} {argument.decode()}"  # type: ignore[attr-defined] # bytes, by kind
        case "read":
            return f"read {name} {argument[0]}"  # type: ignore[index] # a pair, by kind
        case "transfer":
            return f"transfer {name} to={argument}"
        case "change":
            return f"membership {name} voters={','.join(argument.voters)}"  # type: ignore[attr-defined] # by kind
        case kind:
            words = {"finish": "done {}", "crash": "power {}", "crash-stored": "power {} stored"}
            return words.get(kind, kind + " {}").format(name)


def _delivery(stage: FineStage, message: object, *, kept: bool) -> str:
    sender, to = message.sender, message.to  # type: ignore[attr-defined] # an envelope
    waiting = [each for each in stage.network if (each.sender, each.to) == (sender, to)]
    words = [f"pass {sender}>{to}", *([f"nth={waiting.index(message) + 1}"] if waiting[0] != message else [])]  # type: ignore[arg-type]
    return " ".join([*words, *["copy"] * kept])
