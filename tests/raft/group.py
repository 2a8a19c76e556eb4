"""Short ways to build a member with a given log, and to bring it into a role."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mesh.ids import Index, MemberId, Term
from mesh.raft import (
    Append,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftSettings,
    RawNode,
    Ready,
    RequestVote,
    RequestVoteReply,
    Restored,
    Role,
)

A, B, C, D, E = (MemberId(each) for each in "abcde")
THREE = (A, B, C)
FIVE = (A, B, C, D, E)
TICKS_MIN, TICKS_MAX = 10, 19


def at(term: int, index: int) -> EntryId:
    return EntryId(Term(term), Index(index))


def command(term: int, index: int, data: bytes = b"x") -> Entry:
    return Entry(Index(index), Term(term), EntryKind.COMMAND, data)


def log_of(terms: Sequence[int], voters: Iterable[MemberId] = THREE) -> tuple[Entry, ...]:
    """A bootstrapped log whose entries after the first have *terms*."""
    founded = RawNode.bootstrap(voters).entries
    return founded + tuple(command(term, index) for index, term in enumerate(terms, start=2))


def member(
    terms: Sequence[int] = (),
    *,
    term: int | None = None,
    commit: int = 1,
    voters: Iterable[MemberId] = THREE,
    vote: MemberId | None = None,
    id: MemberId = A,  # noqa: A002 # the settings call it so
    **settings: int,
) -> RawNode:
    """A member with a durable log; its promises of before the restart have run out."""
    known = max([1, *terms]) if term is None else term
    hard_state = HardState(Term(known), vote, Index(commit))
    bounds = {"heartbeat_ticks": 1, "election_ticks_min": TICKS_MIN, "election_ticks_max": TICKS_MAX}
    options = replace(RaftSettings(id=id), **{**bounds, **settings})  # type: ignore[arg-type] # by name
    node = RawNode(options, Restored(hard_state, None, log_of(terms, voters)), lambda low, high: high)
    tick(node, TICKS_MIN)
    drain(node)
    return node


def tick(node: RawNode, count: int) -> None:
    for _ in range(count):
        node.tick()


def turn(node: RawNode) -> Ready:
    """One Ready, done."""
    ready = node.ready()
    node.advance(ready)
    return ready


def drain(node: RawNode) -> list[Message]:
    """Every Ready there is; the messages in the order they leave."""
    messages: list[Message] = []
    while node.has_ready():
        ready = turn(node)
        messages += [*ready.messages, *ready.messages_after_durable]
    return messages


def candidate(node: RawNode) -> list[Message]:
    """Bring *node* past its pre-vote; the vote requests it sends."""
    node.campaign()
    for voter in node.membership.all_voters:
        if voter != node.id and node.role is Role.PRE_CANDIDATE:
            answer(node, voter, pre_vote=True)
    return drain(node)


def leader(node: RawNode) -> RawNode:
    """Bring *node* to lead; its first messages are thrown away."""
    candidate(node)
    for voter in node.membership.all_voters:
        if voter != node.id and node.role is Role.CANDIDATE:
            answer(node, voter, pre_vote=False)
    drain(node)
    assert node.role is Role.LEADER
    return node


def answer(node: RawNode, voter: MemberId, *, pre_vote: bool, granted: bool = True) -> None:
    """*voter* answers what *node* asks now."""
    term = Term(node.term + 1) if pre_vote else node.term
    reply = RequestVoteReply(sender=voter, to=node.id, term=term, granted=granted, pre_vote=pre_vote)
    node.step(reply)


def simple(voters: Iterable[MemberId], learners: Iterable[MemberId] = ()) -> Membership:
    return Membership.of(voters, learners)


def append(term: int, previous: EntryId, *terms: int, commit: int = 0, sender: MemberId = B) -> Append:
    """Entries of these terms for A."""
    entries = tuple(command(each, previous.index + 1 + n) for n, each in enumerate(terms))
    return Append(
        sender=sender, to=A, term=Term(term), previous=previous, entries=entries, commit=Index(commit)
    )


def reply(term: int, matched: int, sender: MemberId = B) -> AppendReply:
    """To A: the sender's log agrees up to *matched*."""
    return AppendReply(sender=sender, to=A, term=Term(term), matched=Index(matched))


def ask(term: int, last: EntryId, sender: MemberId = B) -> RequestVote:
    """Of A: its vote."""
    return RequestVote(sender=sender, to=A, term=Term(term), last=last)


def only(kind: type[Message], messages: list[Message]) -> list[Message]:
    """The messages of one kind."""
    return [each for each in messages if isinstance(each, kind)]
