"""Which memberships follow each other on the way from one to another.

A change of the voter set goes through the joint state (paper §6, thesis §4.3):
current → joint → target. A change of learners only leaves the majorities as
they are and takes one step. In both cases any quorum of a membership meets any
quorum of the one before it.

A voter that holds data never becomes a witness, nor a witness anything else:
the log of one does not fit the other. It leaves and joins again as a new member.
"""

from mesh.errors import Conflict, InvalidRequest, Problem
from mesh.ids import MemberId
from mesh.raft.model import Membership


def plan_change(current: Membership, target: Membership) -> Membership:
    """The first membership to append on the way to *target*.

    Fails: `InvalidRequest` with every problem of *target*; `Conflict` when a
    change is under way or nothing would change.
    """
    if current.is_joint:
        raise Conflict("a membership change is under way; wait until the joint state is left and ask again")
    if problems := find_problems(current, target):
        raise InvalidRequest("this membership can not follow the present one", problems)
    if target == current:
        raise Conflict("the membership is already as asked for")
    if target.voters == current.voters:
        return target
    demoting = tuple(each for each in target.learners if each in current.voters)
    return Membership(
        voters=target.voters,
        outgoing=current.voters,
        learners=tuple(each for each in target.learners if each not in current.voters),
        witnesses=_sorted({*current.witnesses, *target.witnesses}),
        demoting=demoting,
    )


def leave_joint(joint: Membership) -> Membership:
    """The membership that ends the joint state."""
    return Membership(
        voters=joint.voters,
        learners=_sorted({*joint.learners, *joint.demoting}),
        witnesses=tuple(each for each in joint.witnesses if each in joint.voters),
    )


def find_problems(current: Membership, target: Membership) -> list[Problem]:
    """Everything that is wrong with *target* as a successor of *current*."""
    problems = []
    if target.outgoing or target.demoting:
        problems.append(Problem("outgoing", "a target is not a joint state; leave it empty"))
    for name in ("voters", "learners", "witnesses"):
        ids = getattr(target, name)
        if ids != _sorted(set(ids)):
            problems.append(Problem(name, "ids must be sorted and without duplicates"))
    if not set(target.voters) - set(target.witnesses):
        problems.append(Problem("voters", "at least one voter must hold data"))
    problems += [
        Problem("learners", f"{each} is also a voter") for each in target.learners if each in target.voters
    ]
    problems += [
        Problem("witnesses", f"{each} is not a voter")
        for each in target.witnesses
        if each not in target.voters
    ]
    problems += [
        Problem("witnesses", f"{each} holds no data; remove it and join it again as a new member")
        for each in current.witnesses
        if target.is_member(each) and each not in target.witnesses
    ]
    problems += [
        Problem("witnesses", f"{each} holds data; remove it and join it again as a new member")
        for each in target.witnesses
        if current.is_voter(each) and each not in current.witnesses
    ]
    return problems


def _sorted(ids: set[MemberId]) -> tuple[MemberId, ...]:
    return tuple(sorted(ids))
