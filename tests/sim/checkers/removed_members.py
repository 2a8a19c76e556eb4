"""A member that is removed, or revoked with its host, has no say any more: not in terms, not in the log.

Proves: once a host has applied that a member is gone, no message of that member raises the host's term; and
a leader that has applied it takes no write which a client asks that member for afterwards.
Would not notice: a term raised on a host that has not heard of the removal yet, which is no fault; reads of
a removed member; what it costs others without a new term.
"""

from typing import ClassVar

from mesh.ids import HostId, MemberId, Term
from mesh.raft.model import Role
from tests.sim.checkers.durable_log import followed
from tests.sim.checkers.seen_by_clients import WRITES
from tests.sim.trace import (
    Committed,
    Event,
    Facts,
    Invoke,
    Removed,
    Return,
    RoleChanged,
    Start,
    TermRaised,
    Violation,
)


class RemovedMembers:
    name: ClassVar[str] = "removed-members"
    wants: ClassVar[tuple[type[Event], ...]] = (
        Start,
        Removed,
        TermRaised,
        RoleChanged,
        Committed,
        Invoke,
        Return,
    )

    def __init__(self, facts: Facts) -> None:
        #: Whom a host knows to be gone, and since when.
        self._gone: dict[HostId, dict[MemberId, int]] = {}
        self._runs: dict[HostId, MemberId] = {}
        self._leaders: dict[Term, HostId] = {}
        self._committed = followed(facts).committed
        #: Writes under way, of whom they were asked, and when.
        self._asked: dict[int, tuple[MemberId, int]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            self._committed.extend(event)
        elif type(event) is Invoke:
            member = self._runs.get(event.host)
            if event.kind in WRITES and member is not None:
                self._asked[event.operation] = member, event.at_ns
        elif type(event) is Return:
            asked = self._asked.pop(event.operation, None)
            if asked is not None and event.result == "ok" and 0 < event.at_index <= len(self._committed):
                self._check_write(event.at_index, *asked)
        elif type(event) is RoleChanged:
            if event.role is Role.LEADER:
                self._leaders[event.term] = event.host
        elif type(event) is Removed:
            self._gone.setdefault(event.host, {})[event.gone] = event.at_ns
        elif type(event) is Start:
            self._committed.started(event)
            self._runs[event.host] = event.member
            self._gone.pop(event.host, None)  # it knows only what it will apply again
        elif type(event) is TermRaised and event.by in self._gone.get(event.host, {}):
            raise Violation(
                self.name,
                f"{event.by} raised the term of {event.member} to {event.term},"
                f" which has applied its removal",
            )

    def _check_write(self, index: int, member: MemberId, asked_at: int) -> None:
        leader = self._leaders.get(Term(self._committed.term_at(index) or 0), HostId(""))
        gone_at = self._gone.get(leader, {}).get(member)
        if gone_at is not None and gone_at < asked_at:
            raise Violation(
                self.name,
                f"entry {index} was asked of {member}, {(asked_at - gone_at) / 1e9:.3f} s after {leader},"
                f" which took it, had applied its removal",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
