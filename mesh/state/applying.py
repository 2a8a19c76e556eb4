"""One command on its way into the state, and the checks that all commands share."""

import re
from dataclasses import dataclass, field

from mesh.errors import Conflict, InvalidRequest, NotFound, Problem, QueueFull, StaleTerm, VersionConflict
from mesh.ids import NAME_PATTERN, HostId, Index, MemberId
from mesh.limits import COUNTERS_MAX, EVENT_CHARS_MAX, NAME_CHARS_MAX, TEXT_CHARS_MAX
from mesh.state.commands import EventDraft
from mesh.state.model import Change, ChangeKind, Document, HostRecord, Member
from mesh.state.tables import ClusterState

HEX_PATTERN = re.compile(r"[0-9a-f]{1,128}")


@dataclass(slots=True)
class Applying:
    """What the functions of one command work on and leave behind.

    Order: a function checks everything it can before it changes a table; when
    it raises all the same, `apply` rolls the tables back.
    """

    state: ClusterState
    index: Index
    at_ns: int
    changes: dict[Change, None] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    events: list[EventDraft] = field(default_factory=list)

    def changed(self, kind: ChangeKind, key: str) -> None:
        """Tells watchers that a row is no longer what it was."""
        self.changes[Change(kind, key)] = None

    def record(self, kind: str, subject: str, message: str, **attributes: object) -> None:
        """Adds an event to the journal, if the command takes effect."""
        facts = tuple(sorted((name, str(value)) for name, value in attributes.items()))
        self.events.append(EventDraft(kind, subject, message, facts))

    # ---- counters ---------------------------------------------------------------

    def raise_counter(self, name: str) -> int:
        """The next number of a counter that outlives what it counts.

        Fails: `QueueFull` for a new name when `limits.COUNTERS_MAX` are in use.
        """
        value = self.state.counters.get(name, 0) + 1
        self.set_counter(name, value)
        return value

    def set_counter(self, name: str, value: int) -> None:
        counters = self.state.counters
        if name not in counters and len(counters) >= COUNTERS_MAX:
            raise QueueFull(
                f"{name}: {COUNTERS_MAX} names have been used in this cluster; use an earlier one"
            )
        counters.put(name, value)

    # ---- look-ups that refuse -----------------------------------------------------

    def host(self, host: HostId) -> HostRecord:
        record = self.state.hosts.get(host)
        if record is None:
            raise NotFound(f"no host {host} in this cluster; see `trellis hosts`", host=host)
        return record

    def host_with_member(self, host: HostId, member: MemberId) -> HostRecord:
        """The record of a host, for what was observed of one of its members."""
        record = self.host(host)
        if record.member != member:
            raise StaleTerm(
                f"{member} is no longer the member of {host}: that is {record.member}",
                host=host,
                member=record.member,
            )
        return record

    def member(self, member: MemberId) -> Member:
        found = self.state.members.get(member)
        if found is None:
            raise NotFound(f"no member {member} in this cluster; see `trellis hosts`", member=member)
        return found

    def check_owns_nothing(self, host: HostId) -> None:
        owned = sorted(name for name, each in self.state.owners.rows.items() if each.holder == host)
        if owned:
            raise Conflict(
                f"{host} still owns {', '.join(owned)}; drain it or wait until they have moved",
                host=host,
                owned=",".join(owned),
            )


def check_version(what: str, present: int, expected: int | None) -> None:
    """Refuses with the present version (0: it does not exist) unless it is the expected one."""
    if expected is not None and expected != present:
        raise VersionConflict(
            f"{what} is at version {present}, not {expected}; read it again and repeat the change",
            version=present,
            expected=expected,
        )


def check_name(path: str, name: str, example: str) -> None:
    """Refuses what is no name of a host, service or secret."""
    if len(name) > NAME_CHARS_MAX or not NAME_PATTERN.fullmatch(name):
        raise invalid(
            path, f'"{name[:80]}" is not lower-case words joined by "-", up to 63 characters', example
        )


def check_hex(path: str, value: str) -> None:
    if not HEX_PATTERN.fullmatch(value):
        raise invalid(path, "is not lower-case hexadecimal", "5f3a")


def check_text(path: str, *values: str) -> None:
    """Refuses text that is longer than anything it could be."""
    for value in values:
        if len(value) > TEXT_CHARS_MAX:
            raise invalid(path, f"has a text of {len(value)} characters; at most {TEXT_CHARS_MAX}")


def invalid(path: str, problem: str, example: str = "") -> InvalidRequest:
    return InvalidRequest(f"{path}: {problem}", [Problem(path, problem, example)])


def shortened(text: str) -> str:
    """Text for the journal, within `limits.EVENT_CHARS_MAX`."""
    return text if len(text) <= EVENT_CHARS_MAX else text[: EVENT_CHARS_MAX - 1] + "…"
