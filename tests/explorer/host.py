"""One host as the explorer plays it: the real node, its disk, and what it has told others.

`act` is the loop of the package's docstring: it hands one input to the node and
does the duties of every Ready that follows. With *stalled* it stops before the
first one that must be synced; the host goes on hearing messages meanwhile.

The properties that one host can break by itself are checked here, and are
therefore checked once per different situation of a host, not once per state.
"""

from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from mesh.errors import InvariantBroken, TrellisError
from mesh.ids import Index, MemberId
from mesh.raft import (
    AppendReply,
    Entry,
    HardState,
    Message,
    RawNode,
    Ready,
    RequestVote,
    RequestVoteReply,
    Restored,
    Snapshot,
)
from tests.explorer.clone import clone, retire, revive
from tests.explorer.violation import Disabled, Violation
from tests.raft.machines import StateMachine


@dataclass(frozen=True)
class CrashSeen:
    """Not a message: the kernel of *sender* refused a connection, so its process of then is dead."""

    sender: MemberId
    to: MemberId
    term: int = 0


Delivery: TypeAlias = Message | CrashSeen


@dataclass(frozen=True)
class Move:
    """Something that happens at one host."""

    #: deliver, time, tick, finish, propose, read, transfer, change, compact, crash, crash-stored.
    kind: str
    argument: object = None


TIME: Final = Move("time")
TICK: Final = Move("tick")
FINISH: Final = Move("finish")
COMPACT: Final = Move("compact")
#: Nothing that was not synced survives; a Ready under way was not stored.
CRASH: Final = Move("crash")
#: The Ready under way was stored, but nothing was said about it.
CRASH_STORED: Final = Move("crash-stored")


@dataclass(frozen=True, slots=True)
class Disk:
    """What is written; of it, a commit index above `synced_commit` is lost in a crash."""

    hard_state: HardState
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    synced_commit: Index

    @property
    def base(self) -> int:
        return self.snapshot.meta.last.index if self.snapshot else 0

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def store(self, ready: Ready) -> "Disk":
        """The disk after one transaction; the rules of `HardState` and of Ready's order are checked."""
        snapshot, entries, hard_state = self.snapshot, self.entries, self.hard_state
        if ready.snapshot is not None:
            _require(
                "durable", ready.snapshot.meta.last.index > hard_state.commit, "an old snapshot is installed"
            )
            snapshot, entries = ready.snapshot, ()
        if ready.entries:
            keep = ready.entries[0].index - (snapshot.meta.last.index if snapshot else 0) - 1
            _require("durable", 0 <= keep <= len(entries), "a gap in the stored log")
            _require("durable", ready.entries[0].index > hard_state.commit, "a committed entry is replaced")
            entries = entries[:keep] + tuple(ready.entries)
        if ready.hard_state is not None:
            _check_hard_state(hard_state, ready.hard_state)
            hard_state = ready.hard_state
        synced = hard_state.commit if ready.must_sync else self.synced_commit
        stored = Disk(hard_state, snapshot, entries, synced)
        _require("durable", hard_state.commit <= stored.last, "a commit index beyond the stored log")
        return stored

    def after_crash(self) -> "Disk":
        hard_state = replace(self.hard_state, commit=self.synced_commit)
        return replace(self, hard_state=hard_state)


def _require(check: str, condition: bool, text: str) -> None:
    if not condition:
        raise Violation(check, text)


def _check_hard_state(old: HardState, new: HardState) -> None:
    _require("terms and votes", new.term >= old.term, f"the term fell from {old.term} to {new.term}")
    _require("commit", new.commit >= old.commit, f"the commit index fell from {old.commit} to {new.commit}")
    if new.term == old.term and old.vote is not None:
        _require("terms and votes", new.vote == old.vote, f"two votes in term {new.term}")


@dataclass(slots=True)
class Host:
    """Invariant: `flight` is the Ready that the node waits for, and then its disk is slow."""

    node: RawNode
    disk: Disk
    flight: Ready | None = None
    #: The highest term in anything it has said, questions apart.
    told_term: int = 0
    #: The newest vote it has told anybody about: (term, candidate).
    told_vote: tuple[int, MemberId | None] = (0, None)
    #: (request, index that the answer must reach).
    reads: tuple[tuple[int, int], ...] = ()
    state: StateMachine = field(default_factory=StateMachine)

    def copy(self) -> "Host":
        node, state = clone(self.node), StateMachine(self.state.index, self.state.digest)
        return Host(node, self.disk, self.flight, self.told_term, self.told_vote, self.reads, state)


@dataclass(slots=True)
class Outcome:
    """What a move led to."""

    host: Host
    sent: list[Delivery]
    #: A Ready had to be synced, so the disk might have stalled.
    has_synced: bool = False


def act(old: Host, move: Move, *, stalled: bool = False) -> Outcome:
    """*move* at a copy of *old*.

    Fails: `Violation`; `Disabled` when the node refuses.
    """
    host = old.copy()
    revive(host.node)
    outcome = Outcome(host, [])
    try:
        _input(host, move, outcome)
        if host.flight is None:
            _drain(outcome, stalled=stalled)
    except InvariantBroken as error:
        raise Violation("the core's own", str(error)) from error
    except TrellisError as error:
        raise Disabled(str(error)) from error
    finally:
        retire(host.node)
    if not move.kind.startswith("crash"):
        _check_course(old.node, host.node)
    return outcome


def _check_course(old: RawNode, new: RawNode) -> None:
    _require("terms and votes", new.term >= old.term, f"the term fell from {old.term} to {new.term}")
    _require("commit", new.commit >= old.commit, f"the commit index fell from {old.commit} to {new.commit}")
    _require("applied", old.applied <= new.applied <= new.commit, f"{new.applied} is applied")


def _input(host: Host, move: Move, outcome: Outcome) -> None:
    node, argument = host.node, move.argument
    match move.kind:
        case "deliver":
            if isinstance(argument, CrashSeen):
                node.report_crash(argument.sender)
                node.campaign(after_crash=True)
            else:
                node.step(argument)  # type: ignore[arg-type] # a message, by kind
        case "time":
            pass_time(node)
        case "tick":
            node.tick()
        case "finish":
            _finish(outcome)
        case "propose":
            node.propose(argument)  # type: ignore[arg-type] # bytes, by kind
        case "read":
            host.reads += (argument,)  # type: ignore[operator] # (request, needed)
            node.read_index(host.reads[-1][0])
        case "transfer":
            node.transfer_leadership(argument)  # type: ignore[arg-type] # a member, by kind
        case "change":
            node.propose_membership(argument)  # type: ignore[arg-type] # a membership, by kind
        case "compact":
            _compact(host)
        case _:
            _crash(host, stored=move is CRASH_STORED or move.kind == "crash-stored")


def pass_time(node: RawNode) -> int:
    """Tick until something can be noticed; how often that was.

    What can be noticed: a role, a message, a round, a promise that ran out, a transfer given up.
    """
    before = _noticeable(node)
    ticks_max = 2 * node._settings.election_ticks_max
    for ticks in range(1, ticks_max + 1):
        node.tick()
        if _noticeable(node) != before:
            return ticks
    return ticks_max


def _noticeable(node: RawNode) -> tuple[object, ...]:
    core = node._core
    leadership = core.leadership
    waiting = len(core.outbox._at_once) + len(core.outbox._after_durable)
    round_number = leadership._rounds.newest if leadership is not None else 0
    is_transferring = leadership is not None and leadership.transfer is not None
    return core.role, core.term, core._promise.is_binding, waiting, round_number, is_transferring


def _drain(outcome: Outcome, *, stalled: bool) -> None:
    host = outcome.host
    while host.node.has_ready():
        ready = host.node.ready()
        _send(outcome, ready.messages)
        host.flight = ready
        if ready.must_sync:
            outcome.has_synced = True
            if stalled:
                return
        _finish(outcome)


def _finish(outcome: Outcome) -> None:
    """The duties of the Ready under way, from the disk on."""
    host = outcome.host
    ready, host.flight = host.flight, None
    assert ready is not None, "finish is only offered to a host with a Ready under way"
    host.disk = host.disk.store(ready)
    _send(outcome, ready.messages_after_durable)
    if ready.snapshot is not None:
        host.state.load(ready.snapshot)
    for entry in ready.committed:
        applied = host.state.index
        _require("applied", entry.index == applied + 1, f"{entry.index} is applied after {applied}")
        _require("durable", entry.index <= host.disk.last, f"{entry.index} is applied before it is durable")
        host.state.apply(entry)
    for read in ready.reads:
        _answer(host, read.request, read.index)
    lost = {*ready.reads_lost}
    host.reads = tuple(each for each in host.reads if each[0] not in lost)
    host.node.advance(ready)


def _answer(host: Host, request: int, index: Index) -> None:
    needed = dict(host.reads)[request]
    _require(
        "reads", index >= needed, f"read {request} is answered at {index}, but {needed} was committed before"
    )
    host.reads = tuple(each for each in host.reads if each[0] != request)


def _send(outcome: Outcome, messages: object) -> None:
    host = outcome.host
    for message in messages:  # type: ignore[attr-defined] # a sequence of messages
        outcome.sent.append(message)
        if not (isinstance(message, RequestVote | RequestVoteReply) and message.pre_vote):
            host.told_term = max(host.told_term, message.term)
        if isinstance(message, RequestVoteReply) and message.granted and not message.pre_vote:
            _tell_vote(host, message.term, message.to)
        elif isinstance(message, RequestVote) and not message.pre_vote:
            _tell_vote(host, message.term, message.sender)
        elif isinstance(message, AppendReply) and not message.rejected:
            text = f"{message.matched} is acknowledged, the disk ends at {host.disk.last}"
            _require("durable", message.matched <= host.disk.last, text)


def _tell_vote(host: Host, term: int, candidate: MemberId) -> None:
    told_term, told = host.told_vote
    if term == told_term:
        _require("terms and votes", told == candidate, f"votes for {told} and {candidate} in term {term}")
    elif term > told_term:
        host.told_vote = (term, candidate)


def _crash(host: Host, *, stored: bool) -> None:
    """Lose what was not synced, and start again."""
    disk = host.disk
    if stored:
        assert host.flight is not None
        disk = disk.store(host.flight)
        disk = replace(disk, synced_commit=disk.hard_state.commit)
    disk = disk.after_crash()
    host.disk, host.flight, host.reads = disk, None, ()
    old = host.node
    restored = Restored(disk.hard_state, disk.snapshot, disk.entries)
    host.node = type(old)(old._settings, restored, longest)
    host.state = StateMachine()
    if disk.snapshot is not None:
        host.state.load(disk.snapshot)
    text = f"restarts in term {host.node.term}, but has spoken in {host.told_term}"
    _require("terms and votes", host.node.term >= host.told_term, text)


def longest(low: int, high: int) -> int:
    """The explorer's jitter."""
    return high


def _compact(host: Host) -> None:
    snapshot = host.node.compact(Index(host.state.index), host.state.dump())
    kept = host.disk.entries[snapshot.meta.last.index - host.disk.base :]
    host.disk = replace(host.disk, snapshot=snapshot, entries=kept)
