"""The next change of Raft's membership, so that it follows the members of the replicated state.

Decided anew each time from what is there; one change at a time. In this order:

1. A member that is new in the state becomes a learner at once (a witness waits
   for rule 3: it holds no data and has nothing to catch up with).
2. A member that is gone from the state goes. Did its host come back as a new
   incarnation, the old voter stays in the count until the new one has caught
   up, and then both change places in one joint change: no quorum is ever
   counted over fewer members than before. Without a successor it goes at once;
   four of five, or two of three, tolerate no less without a dead member than with it.
3. Learners that have caught up become voters, as many together as make the
   number of voters odd: 1 → 3 → 5 → 7. Two voters need both to be alive and
   three need two, so a second voter alone would only make things worse.

Invariant: the leader itself is never taken out; it has to hand over first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh import limits
from mesh.ids import HostId, Index, MemberId, host_of
from mesh.raft.model import Membership, Status
from mesh.state import ClusterState
from mesh.state.commands import SetMemberRole
from mesh.state.model import MemberRole

#: A learner this close behind the commit index has caught up.
LAG_ENTRIES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class MembershipView:
    """What the leader knows when it decides."""

    leader: MemberId
    membership: Membership
    #: Members of the replicated state, and whether each is to be a witness.
    wanted: Mapping[MemberId, bool]
    commit: Index
    #: How far each other member holds the log, of those heard from lately.
    matched: Mapping[MemberId, Index]
    #: Hosts that beat now: a witness is taken in only when it is there.
    beating: tuple[HostId, ...] = ()


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A membership to propose, and why, for the journal."""

    target: Membership
    reason: str


def view_of(status: Status, state: ClusterState, beating: tuple[HostId, ...]) -> MembershipView:
    """The view of a leader. *beating*: hosts whose beats it hears."""
    return MembershipView(
        leader=status.id,
        membership=status.membership,
        wanted={row.member: row.role is MemberRole.WITNESS for row in state.members.values()},
        commit=status.commit,
        matched={peer.id: peer.matched for peer in status.peers if peer.recently_active},
        beating=beating,
    )


def next_membership_change(view: MembershipView) -> MembershipChange | None:
    """The one change to propose now; None while one is under way or nothing is to be done."""
    if view.membership.is_joint:
        return None
    return _add_learners(view) or _remove(view) or _promote(view)


def role_commands(state: ClusterState, membership: Membership) -> tuple[SetMemberRole, ...]:
    """What the state should record of each member's role, where it records something else."""
    if membership.is_joint:
        return ()
    roles = dict.fromkeys(membership.learners, MemberRole.LEARNER)
    roles |= dict.fromkeys(membership.voters, MemberRole.VOTER)
    roles |= dict.fromkeys(membership.witnesses, MemberRole.WITNESS)
    return tuple(
        SetMemberRole(row.member, roles[row.member])
        for row in state.members.values()
        if row.member in roles and row.role is not roles[row.member]
    )


def _add_learners(view: MembershipView) -> MembershipChange | None:
    present = view.membership
    new = [
        member
        for member, is_witness in sorted(view.wanted.items())
        if not is_witness and not present.is_member(member)
    ]
    if not new:
        return None
    target = Membership.of(present.voters, [*present.learners, *new], present.witnesses)
    return MembershipChange(target, f"{_and(new)} joined and learns the log")


def _remove(view: MembershipView) -> MembershipChange | None:
    present = view.membership
    gone = [member for member in present.members if member not in view.wanted and member != view.leader]
    # The log of a witness holds no data, so only a new witness takes over from one, by rule 3.
    successors = {
        member: _successor(view, member)
        for member in gone
        if member in present.voters and member not in present.witnesses
    }
    leaving = [member for member in gone if not _must_wait(view, successors.get(member))]
    if not leaving:
        return None
    taking_over = [each for each in (successors.get(member) for member in leaving) if each is not None]
    target = Membership.of(
        [each for each in (*present.voters, *taking_over) if each not in leaving],
        [each for each in present.learners if each not in leaving and each not in taking_over],
        [each for each in present.witnesses if each not in leaving],
    )
    instead = f"; {_and(taking_over)} votes instead" if taking_over else ""
    return MembershipChange(target, f"{_and(leaving)} is no longer of the cluster{instead}")


def _successor(view: MembershipView, gone: MemberId) -> MemberId | None:
    for learner in view.membership.learners:
        if host_of(learner) == host_of(gone) and learner in view.wanted:
            return learner
    return None


def _must_wait(view: MembershipView, successor: MemberId | None) -> bool:
    return successor is not None and not _has_caught_up(view, successor)


def _promote(view: MembershipView) -> MembershipChange | None:
    present = view.membership
    ready = [each for each in present.learners if each in view.wanted and _has_caught_up(view, each)]
    witnesses = [
        member
        for member, is_witness in sorted(view.wanted.items())
        if is_witness and not present.is_member(member) and host_of(member) in view.beating
    ]
    candidates = [*ready, *witnesses]
    count = _promotions(len(present.voters), len(candidates))
    if count == 0:
        return None
    promoted = candidates[:count]
    target = Membership.of(
        [*present.voters, *promoted],
        [each for each in present.learners if each not in promoted],
        [*present.witnesses, *(each for each in promoted if each in witnesses)],
    )
    return MembershipChange(target, f"{_and(promoted)} caught up and votes from now on")


def _promotions(voters: int, candidates: int) -> int:
    """How many candidates to promote so that the number of voters is a good one; 0: wait."""
    reachable = [size for size in limits.VOTERS if voters < size <= voters + candidates]
    return reachable[-1] - voters if reachable else 0


def _has_caught_up(view: MembershipView, member: MemberId) -> bool:
    # Nothing matched: it has never answered, and with a short log 0 would count as close behind.
    matched = view.matched.get(member, Index(0))
    return matched > 0 and matched + LAG_ENTRIES_MAX >= view.commit


def _and(members: list[MemberId]) -> str:
    return " and ".join(sorted(members))
