"""What operators of directed worlds do beside `operations.KINDS`: ask Raft itself for another membership."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.raft.model import Membership, Role

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.operations import Operations

RESHAPE_S = 4.0


def _reshape(operations: "Operations") -> None:
    """Any odd number of members vote from now on, the leader among them; soon the others are let in again.

    Majorities before and after may have nobody in common, which is what the joint membership is for. Not
    for worlds in which disks are replaced: a voter without its disk may then be one too many.
    """
    leader, chance = operations.world.leader(), operations.chance
    if leader is None:
        return
    present = leader.driver.status().membership
    if present.is_joint or present.witnesses or not present.is_voter(leader.member):
        return
    others = [each for each in present.members if each != leader.member]
    chance.shuffle(others)
    count = 2 * int(chance.random() * (len(others) // 2 + 1))
    target = Membership.of([leader.member, *others[:count]], others[count:])
    operations.told(leader.host, "op-reshape", " ".join(target.voters))

    async def change(life: "Life") -> None:
        if life.driver.role is Role.LEADER:
            await life.driver.change_membership(target, timeout_s=RESHAPE_S)

    operations.ask(leader, change, "reshape")


DIRECTED: dict[str, Callable[["Operations"], None]] = {"reshape": _reshape}
