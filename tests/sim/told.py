"""Short ways to write down events, for tests of the checkers: five hosts a to e, times in order."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh.ids import VIP, DocumentName, FencingTerm, HostId, Index, MemberId, SessionId, Term
from mesh.lease.timers import LeaseTimers
from mesh.raft.model import Entry, EntryId, EntryKind, HardState, Membership, Role, SnapshotMeta
from mesh.state.commands import PutDocument, Request
from mesh.wire.command import encode_request
from tests.sim.trace import (
    Acked,
    Acted,
    Applied,
    Checker,
    Committed,
    Compacted,
    End,
    Event,
    Facts,
    Granted,
    Invoke,
    LeaseExtended,
    Owned,
    Queues,
    Released,
    Removed,
    Return,
    RoleChanged,
    Start,
    Stopped,
    Stored,
    TermRaised,
    Voted,
)

HOSTS = tuple(HostId(each) for each in "abc")
FOUNDERS = tuple(MemberId(f"{each}.1") for each in HOSTS)


def facts(now_ns: int = 0, suspended: Iterable[str] = ()) -> Facts:
    """Three founders; every host's clock stands at *now_ns*."""
    return Facts(
        seed=1,
        hosts=HOSTS,
        founders=FOUNDERS,
        timers=LeaseTimers(),
        tick_ns=50_000_000,
        election_ns=(1_500_000_000, 2_500_000_000),
        margin_ns=50_000_000,
        suspended=dict.fromkeys(suspended, "for a test"),
        boottime_ns=lambda _host: now_ns,
    )


def tell(checker: Checker, events: Iterable[Event]) -> None:
    """Everything the checker wants of *events*, then the end."""
    for event in events:
        if isinstance(event, checker.wants):
            checker.seen(event)
    checker.finished(0)


def member(host: str) -> MemberId:
    """The member of a host; a name with its incarnation stays as it is."""
    return MemberId(host if "." in host else f"{host}.1")


def at(index: int, term: int) -> EntryId:
    return EntryId(Term(term), Index(index))


def start(
    host: str, *, new: bool = False, term: int = 1, vote: str = "", commit: int = 1, last: int = 1
) -> Start:
    """A life begins; a founder's disk holds entry 1."""
    state = HardState(Term(term), member(vote) if vote else None, Index(commit))
    return Start(0, HostId(host), member(host), 1, new, state, Index(1), at(last, term))


def founded() -> list[Event]:
    return [start(host, new=True) for host in HOSTS]


def entry(index: int, term: int, data: bytes = b"x", kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return Entry(Index(index), Term(term), kind, data)


def put(
    index: int, term: int, value: bytes, *, session: str = "", sequence: int = 0, name: str = "d"
) -> Entry:
    """An entry that writes a document."""
    command = PutDocument(DocumentName(name), value)
    return entry(index, term, encode_request(Request(command, SessionId(session), sequence)))


def joint(index: int, term: int, voters: str, outgoing: str) -> Entry:
    """An entry that changes the membership."""
    membership = Membership(tuple(map(member, voters)), tuple(map(member, outgoing)))
    return entry(index, term, membership.encode(), EntryKind.MEMBERSHIP)


def stored(host: str, *entries: Entry, term: int = 1, vote: str = "", commit: int = 1) -> Stored:
    state = HardState(Term(term), member(vote) if vote else None, Index(commit))
    return Stored(0, HostId(host), member(host), state, entries, None)


def snapshot(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(at(index, term), Membership.of(FOUNDERS), 1, b"")


def installed(host: str, index: int, term: int) -> Stored:
    """A snapshot from the leader is durable."""
    return Stored(0, HostId(host), member(host), HardState(Term(term)), (), snapshot(index, term))


def compacted(host: str, index: int, term: int) -> Compacted:
    return Compacted(0, HostId(host), member(host), snapshot(index, term))


def committed(host: str, *entries: Entry, term: int = 1) -> Committed:
    return Committed(0, HostId(host), member(host), Term(term), entries)


def applied(host: str, index: int, state_hash: bytes) -> Applied:
    return Applied(0, HostId(host), member(host), Index(index), state_hash)


def leads(host: str, term: int, last: int = 1) -> RoleChanged:
    return RoleChanged(
        0, HostId(host), member(host), Role.LEADER, Term(term), member(host), at(last, term), Index(1)
    )


def granted(host: str, term: int, to: str, decided_ns: int = 0) -> Granted:
    return Granted(0, HostId(host), member(host), Term(term), member(to), decided_ns)


def voted(host: str, term: int, candidate: str) -> Voted:
    return Voted(0, HostId(host), member(host), Term(term), member(candidate))


def acked(host: str, index: int, term: int = 1, leader: str = "a") -> Acked:
    return Acked(0, HostId(host), member(host), Term(term), member(leader), Index(index))


def raised(host: str, term: int, by: str, *, was_asked: bool = False) -> TermRaised:
    return TermRaised(0, HostId(host), member(host), Term(term), member(by), was_asked)


def removed(host: str, gone: str) -> Removed:
    return Removed(0, HostId(host), member(host), Index(9), member(gone))


def owned(host: str, index: int, holder: str, term: int) -> Owned:
    return Owned(0, HostId(host), member(host), Index(index), VIP, HostId(holder), FencingTerm(term))


def acted(host: str, term: int) -> Acted:
    return Acted(0, HostId(host), member(host), VIP, FencingTerm(term))


def stopped(host: str, term: int) -> Stopped:
    return Stopped(0, HostId(host), member(host), VIP, FencingTerm(term), "sidecar")


def released(host: str, term: int) -> Released:
    return Released(0, HostId(host), member(host), VIP, FencingTerm(term))


def ended(host: str, error: str) -> End:
    return End(0, HostId(host), member(host), error)


def leased(host: str, until_ns: int) -> LeaseExtended:
    return LeaseExtended(0, HostId(host), member(host), until_ns, 0)


def queues(name: str, items: int, bound: int) -> Queues:
    return Queues(0, HostId("a"), member("a"), ((name, items, bound),))


def asks(
    operation: int, kind: str, value: bytes = b"", *, name: str = "d", expected: int | None = None
) -> Invoke:
    return Invoke(0, HostId("a"), "client", operation, kind, name, value, expected)


def told(
    operation: int,
    version: int = 0,
    value: bytes = b"",
    *,
    index: int = 0,
    result: str = "ok",
    reason: str = "",
    names: tuple[tuple[str, int], ...] = (),
) -> Return:
    return Return(0, HostId("a"), "client", operation, result, reason, version, value, index, names)


@dataclass(frozen=True)
class Stories:
    """What happened, by name: in some a checker's promise is kept, in others it is broken."""

    kept: dict[str, list[Event]]
    broken: dict[str, list[Event]]
    #: Where the hosts' clocks stand.
    now_ns: int = 0


TWO, THREE = entry(2, 1), entry(3, 1, b"y")
ON_TWO_DISKS: Final = [*founded(), stored("a", TWO), stored("b", TWO)]
