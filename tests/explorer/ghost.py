"""What an observer outside remembers, and what must hold between hosts.

The properties are those of the paper's figure 3, checked after every move:
election safety, log matching, leader completeness, state machine safety; and
that what is committed is on the disks of a quorum, and never leaves a disk again.
What one host can break alone is checked in `host.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from mesh.ids import MemberId
from mesh.raft import Entry, Membership, RawNode, Role
from tests.explorer.encode import Encoded, Namer
from tests.explorer.host import Host
from tests.explorer.violation import Violation
from tests.raft.machines import StateMachine


@dataclass(frozen=True, slots=True)
class Committed:
    """An entry that some member knew to be committed, first in `term`."""

    entry: Entry
    term: int


@dataclass(frozen=True, slots=True)
class Ghost:
    """Who ever led, and what was ever committed, from index 1 on."""

    leaders: tuple[tuple[int, MemberId], ...] = ()
    committed: tuple[Committed, ...] = ()

    def encode(self, namer: Namer) -> Encoded:
        leaders = tuple((term, namer.member(member)) for term, member in self.leaders)
        return leaders, tuple((namer.entry(each.entry), each.term) for each in self.committed)


@dataclass(frozen=True, slots=True)
class View:
    """What the checks need of a host."""

    id: MemberId
    term: int
    is_leader: bool
    #: Index and term of the entry before `entries`.
    origin: tuple[int, int]
    entries: tuple[Entry, ...]
    commit: int
    applied: int
    state: str
    disk_base: int
    disk: tuple[Entry, ...]
    #: (index, membership) as in the log, oldest first.
    history: tuple[tuple[int, Membership], ...]
    lease_read: int | None

    @classmethod
    def of(cls, host: Host) -> "View":
        node: RawNode = host.node
        log = node._core.log
        return cls(
            id=node.id,
            term=node.term,
            is_leader=node.role is Role.LEADER,
            origin=(log.origin.index, log.origin.term),
            entries=tuple(log._entries),
            commit=log.commit,
            applied=log.applied,
            state=host.state.digest,
            disk_base=host.disk.base,
            disk=host.disk.entries,
            history=tuple(log.history._stack),
            lease_read=node.lease_read_index(),
        )

    def holds(self, entry: Entry) -> bool:
        """Whether the log has *entry*, or has it behind it in a snapshot."""
        position = entry.index - self.origin[0] - 1
        if position < 0:
            return True
        return position < len(self.entries) and self.entries[position] == entry

    def stores(self, entry: Entry) -> bool:
        """The same of the disk."""
        position = entry.index - self.disk_base - 1
        if position < 0:
            return True
        return position < len(self.disk) and self.disk[position] == entry


Views: TypeAlias = Sequence[View]
NOTHING: Final = Ghost()


def check_logs_match(one: View, other: View) -> None:
    """If two logs hold an entry of equal index and term, they are equal up to there (log matching)."""
    start = max(one.origin[0], other.origin[0])
    end = min(one.origin[0] + len(one.entries), other.origin[0] + len(other.entries))
    is_equal_above = False
    for index in range(end, start, -1):
        mine, theirs = one.entries[index - one.origin[0] - 1], other.entries[index - other.origin[0] - 1]
        is_equal_above = is_equal_above or mine.term == theirs.term
        if is_equal_above and mine != theirs:
            text = f"{one.id} and {other.id} agree above, but differ at {index}: {mine} and {theirs}"
            raise Violation("log matching", text)


def observe(ghost: Ghost, view: View) -> Ghost:
    """What is remembered after a look at one host, which is checked against it."""
    leaders = ghost.leaders
    if view.is_leader:
        known = dict(leaders).get(view.term)
        if known is None:
            leaders = tuple(sorted((*leaders, (view.term, view.id))))
        elif known != view.id:
            raise Violation("election safety", f"{known} and {view.id} lead in term {view.term}")
    committed = _observe_commit(ghost.committed, view)
    _check_state(committed, view)
    if leaders is ghost.leaders and committed is ghost.committed:
        return ghost
    return Ghost(leaders, committed)


def _observe_commit(committed: tuple[Committed, ...], view: View) -> tuple[Committed, ...]:
    for index in range(view.origin[0] + 1, view.commit + 1):
        entry = view.entries[index - view.origin[0] - 1]
        if index <= len(committed):
            known = committed[index - 1].entry
            if known != entry:
                text = f"{view.id} has {entry} as committed, but {known} was committed"
                raise Violation("state machine safety", text)
        else:
            committed = (*committed, Committed(entry, view.term))
    if view.commit > len(committed):
        raise Violation("state machine safety", f"{view.id} has a snapshot of what nobody committed")
    return committed


def _check_state(committed: tuple[Committed, ...], view: View) -> None:
    expected = StateMachine()
    for each in committed[: view.applied]:
        expected.apply(each.entry)
    if expected.digest != view.state:
        text = f"{view.id} has applied something else up to {view.applied} than was committed"
        raise Violation("state machine safety", text)


def check_complete(ghost: Ghost, view: View) -> None:
    """A leader holds what was committed in earlier terms (leader completeness)."""
    if view.is_leader:
        for each in ghost.committed:
            if each.term < view.term and not view.holds(each.entry):
                text = f"{view.id} leads in term {view.term} without {each.entry} of term {each.term}"
                raise Violation("leader completeness", text)


def check_durable(old: Ghost, new: Ghost, by: View, views: Views) -> None:
    """What *by* has just committed is on the disks of a quorum of a membership it may count by."""
    for each in new.committed[len(old.committed) :]:
        holders = {view.id: view.stores(each.entry) for view in views}
        if not any(_has_quorum(membership, holders) for membership in _counted_by(by, each.entry.index)):
            on = sorted(member for member, is_there in holders.items() if is_there)
            raise Violation("durable", f"{by.id} commits {each.entry}, which is on the disks of {on} only")


def _counted_by(by: View, index: int) -> list[Membership]:
    """The membership that held at *index*, or a later one; a joint one itself counts by itself.

    A later membership is appended only after a joint one is committed, and is checked then.
    """
    start = max(at for at, _ in by.history if at <= index)
    later = [membership for at, membership in by.history if at >= start]
    return later[:1] if start == index and later[0].is_joint else later


def _has_quorum(membership: Membership, holders: dict[MemberId, bool]) -> bool:
    """Counted here anew: the core's own count may be what is wrong."""
    groups = [membership.voters, *([membership.outgoing] if membership.outgoing else [])]
    return all(2 * sum(holders.get(each, False) for each in group) > len(group) for group in groups)


def stored(ghost: Ghost, view: View) -> int:
    """How many committed entries are on the disk."""
    return sum(view.stores(each.entry) for each in ghost.committed)


def check_kept(ghost: Ghost, old: View, new: View) -> None:
    """No disk loses a committed entry."""
    if stored(ghost, new) < stored(ghost, old):
        raise Violation("durable", f"the disk of {new.id} no longer holds what is committed")


def check_lease(ghost: Ghost, view: View) -> None:
    """A lease read sees everything that was committed, whoever committed it."""
    if view.lease_read is not None and view.lease_read < len(ghost.committed):
        text = f"{view.id} answers by its lease at {view.lease_read}, {len(ghost.committed)} is committed"
        raise Violation("reads", text)
