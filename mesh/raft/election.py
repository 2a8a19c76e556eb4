"""Votes: counting one's own, and deciding about another's.

Order: a vote is promised in the outbox before the candidate can learn of it,
and an own vote is counted only once it is durable (core.py).
"""

from dataclasses import dataclass

from mesh.ids import MemberId, Term
from mesh.raft.model import Membership, RequestVote
from mesh.raft.quorum import VoteResult, vote_result


class Ballot:
    """The answers to one campaign, one per voter.

    A grant is a fact and stays; a refusal may still turn into a grant. A new
    campaign takes a new ballot, so an answer is counted per voter and term.
    """

    def __init__(self) -> None:
        self._votes: dict[MemberId, bool] = {}

    def record(self, voter: MemberId, *, granted: bool) -> None:
        self._votes[voter] = granted or self._votes.get(voter, False)

    def result(self, membership: Membership) -> VoteResult:
        return vote_result(membership, self._votes)


@dataclass(frozen=True, slots=True)
class VoterView:
    """What a voter knows when it is asked; the term of the request is not below `term`."""

    term: Term
    vote: MemberId | None
    leader: MemberId | None
    is_up_to_date: bool


def grants(view: VoterView, request: RequestVote) -> bool:
    """Whether to say yes (paper §5.2, §5.4.1; thesis §9.6 for pre-votes).

    The same candidate gets the same answer again; nobody else gets one in this
    term. A pre-vote for a later term costs nothing, so only the log is compared.
    """
    if not view.is_up_to_date:
        return False
    if request.pre_vote and request.term > view.term:
        return True
    return view.vote == request.sender or (view.vote is None and view.leader is None)
