"""Votes: counting one's own, and deciding about another's.

Order: a vote is promised in the outbox before the candidate can learn of it,
and an own vote is counted only once it is durable (core.py).
"""

from dataclasses import dataclass

from mesh.ids import MemberId, Term
from mesh.raft.model import EntryId, Membership, RequestVote, RequestVoteReply
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


class Promise:
    """A voter's word to a leader: nobody else gets its vote for some ticks (thesis §4.2.3).

    Order: made anew by every message from the leader, over by time, or void when
    its holder is certainly dead.
    """

    def __init__(self, ticks_left: int) -> None:
        self._ticks_left = ticks_left
        #: None after a restart: it may have been made, and to whom is forgotten.
        self._holder: MemberId | None = None
        #: The last pre-vote that only this promise refused.
        self._refused: RequestVote | None = None

    @property
    def is_binding(self) -> bool:
        return self._ticks_left > 0

    def make(self, holder: MemberId, ticks: int) -> None:
        self._holder, self._ticks_left = holder, ticks
        self._refused = None

    def tick(self) -> RequestVote | None:
        """One tick; when the promise runs out with it, the pre-vote that it refused, if any."""
        if self._ticks_left != 1:
            self._ticks_left = max(0, self._ticks_left - 1)
            return None
        return self._release()

    def refuse(self, request: RequestVote) -> None:
        self._refused = request

    def void(self) -> None:
        self._ticks_left = 0

    def void_for(self, member: MemberId) -> RequestVote | None:
        """*member* is certainly dead; the pre-vote that was refused for its sake, if any."""
        return self._release() if self._holder == member else None

    def _release(self) -> RequestVote | None:
        self._ticks_left = 0
        refused, self._refused = self._refused, None
        return refused


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


def vote_requests(
    candidate: MemberId, membership: Membership, term: Term, last: EntryId, *, pre_vote: bool, transfer: bool
) -> list[RequestVote]:
    """What *candidate* asks every other voter."""
    return [
        RequestVote(sender=candidate, to=voter, term=term, last=last, pre_vote=pre_vote, transfer=transfer)
        for voter in membership.all_voters
        if voter != candidate
    ]


def vote_reply(request: RequestVote, term: Term, *, granted: bool) -> RequestVoteReply:
    """The answer to *request*; a grant carries the term that was asked for, a refusal the voter's own."""
    return RequestVoteReply(
        sender=request.to,
        to=request.sender,
        term=request.term if granted else term,
        granted=granted,
        pre_vote=request.pre_vote,
    )
