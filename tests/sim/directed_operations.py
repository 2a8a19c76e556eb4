"""What operators of directed worlds do beside `operations.KINDS`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.ids import FencingTerm, ServiceName, owned_service
from mesh.raft.model import Membership, Role
from mesh.state.commands import ApplyService, AssignOwner, StopService
from mesh.state.service import ServiceMode
from tests.sim.clock import MS
from tests.sim.cluster import service
from tests.sim.postgres.strikes import OPERATIONS

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.operations import Operations

RESHAPE_S = 4.0
SECOND = service("second", ServiceMode.ACTIVE_STANDBY)
REPORTER = owned_service(ServiceName("reporter"))


def _reshape(operations: "Operations") -> None:
    """Any odd number of members vote from now on, the leader among them; soon the others are let in again.

    Majorities before and after may have nobody in common, which is what the joint membership is for. Now and
    then another change is asked for before the first is done. Not for worlds in which disks are replaced: a
    voter without its disk may then be one too many.
    """
    leader, chance = operations.world.leader(), operations.chance
    if leader is None:
        return
    present = leader.driver.status().membership
    if present.is_joint or present.witnesses or not present.is_voter(leader.member):
        return
    for after in (0, int(chance.random() * 3 * MS))[: 1 + (chance.random() < 0.6)]:
        others = [each for each in present.members if each != leader.member]
        chance.shuffle(others)
        count = 2 * int(chance.random() * (len(others) // 2 + 1))
        target = Membership.of([leader.member, *others[:count]], others[count:])
        operations.world.scheduler.at(operations.world.now + after, _ask_for, operations, leader, target)


def _ask_for(operations: "Operations", leader: "Life", target: Membership) -> None:
    if not operations.is_on or operations.world.life_of(leader.member) is not leader:
        return
    operations.told(leader.host, "op-reshape", " ".join(target.voters))

    async def change(life: "Life") -> None:
        if life.driver.role is Role.LEADER:
            await life.driver.change_membership(target, timeout_s=RESHAPE_S)

    operations.ask(leader, change, "reshape")


def _toggle(operations: "Operations") -> None:
    """A service is stopped, and wanted again about when its owner has told that it has stopped."""
    operations.told("", "op-toggle")
    operations.propose(StopService(SECOND.name, keep=True), "stop")
    world = operations.world
    after = int(operations.chance.uniform(0.002, 0.4) * 1000 * MS)
    world.scheduler.at(world.now + after, _want_again, operations)


def _want_again(operations: "Operations") -> None:
    operations.propose(ApplyService(SECOND), "apply")


def _late(operations: "Operations") -> None:
    """A change of owner that was decided before the last one comes now. It must be refused."""
    life = operations.life()
    if life is None:
        return
    term = life.replica.state.fencing_term(REPORTER)
    if term > 1:
        to = operations.machine().name
        operations.told(to, "op-late")
        operations.propose(AssignOwner(REPORTER, to, FencingTerm(term - 1)), "late")


DIRECTED: dict[str, Callable[["Operations"], None]] = {
    "reshape": _reshape,
    "toggle": _toggle,
    "late": _late,
    **OPERATIONS,
}
