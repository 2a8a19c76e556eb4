"""What a majority, or two majorities at once, have agreed on.

Both functions treat the joint state (paper §6) as two independent majorities:
an index is agreed when both agree, a vote is won when both are won and lost
as soon as one is lost.
"""

from collections.abc import Callable, Mapping
from enum import Enum

from mesh.ids import MemberId
from mesh.raft.model import Membership


class VoteResult(Enum):
    """How an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def agreed(membership: Membership, value_of: Callable[[MemberId], int]) -> int:
    """The highest number that a quorum has reached; *value_of* says how far each voter is.

    Invariant: never falls while the membership stays and no voter's value falls.
    """
    result = _majority_agreed(membership.voters, value_of)
    if membership.outgoing:
        return min(result, _majority_agreed(membership.outgoing, value_of))
    return result


def _majority_agreed(voters: tuple[MemberId, ...], value_of: Callable[[MemberId], int]) -> int:
    values = sorted(map(value_of, voters))
    return values[(len(values) - 1) // 2]


def vote_result(membership: Membership, votes: Mapping[MemberId, bool]) -> VoteResult:
    """Whether *votes* (voter → granted) decide an election; others' votes do not count."""
    results = [_majority_result(membership.voters, votes)]
    if membership.outgoing:
        results.append(_majority_result(membership.outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def _majority_result(voters: tuple[MemberId, ...], votes: Mapping[MemberId, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING
