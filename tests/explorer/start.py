"""The first state of a world: where a story's lines lead."""

from dataclasses import dataclass

from mesh.ids import MemberId
from mesh.raft import Message
from tests.explorer.clone import clone
from tests.explorer.host import Disk, Host
from tests.explorer.stage import FineStage
from tests.raft.machines import Machine, StateMachine


@dataclass(frozen=True)
class Start:
    """Hosts at rest, and what is on its way."""

    members: tuple[MemberId, ...]
    hosts: tuple[Host, ...]
    network: tuple[Message, ...]


def start_of(prologue: tuple[str, ...]) -> Start:
    """Act the *prologue* out, and take over what it leads to."""
    stage = FineStage()
    for line in prologue:
        printed = stage.run(line)
        assert not any(each.split(":")[0].isupper() for each in printed), (line, printed)
    machines = [stage.machines[name] for name in sorted(stage.machines)]
    return Start(tuple(each.id for each in machines), tuple(map(_host, machines)), tuple(stage.network))


def _host(machine: Machine) -> Host:
    node, disk = machine.node, machine.disk
    assert not node.has_ready(), f"{node.id} is not at rest"
    hard = disk.hard_state
    return Host(
        node=clone(node),
        disk=Disk(hard, disk.snapshot, tuple(disk.entries), hard.commit),
        told_term=hard.term,
        told_vote=(hard.term, hard.vote) if hard.vote is not None else (0, None),
        state=StateMachine(machine.state.index, machine.state.digest),
    )
