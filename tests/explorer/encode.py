"""What a host is, as one canonical value: equal values behave equally for ever.

The names of members are replaced by numbers, so that a state and the same
state with other names can be recognised (see `Namer`). Points in time become
ages, cut off where the core no longer tells them apart.

Left out, because nothing in the core reads it: `dropped`, `stood_for`, the votes
of an election that is over, the elapsed time of a leader's own election timer,
the handlers. Left out, because only leases read it: when rounds were sent
(kept in worlds with leases); because only crash proof reads it: whom a promise was
made to. `test_memo.py` compares states that are encoded equally, but were reached
on different paths, by what they do next.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.ids import MemberId
from mesh.raft import Entry, EntryKind, Membership, Role, Snapshot
from mesh.raft.core import Core
from mesh.raft.leadership import Leadership
from mesh.raft.model import Ready, SoftState
from mesh.raft.tracker import Progress
from tests.explorer.host import Disk, Host
from tests.explorer.worlds import World

Encoded = Any
DIGEST_BYTES: Final = 14
_ROLES: Final = {role: number for number, role in enumerate(Role)}


def digest(value: Encoded) -> int:
    """112 bits of BLAKE2b over the text of *value*, which consists of numbers, bytes and tuples."""
    text = repr(value).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest(), "little")


class Namer:
    """The encoding under one renaming of the members.

    Ids are only compared for equality in the core, with two exceptions: memberships are
    sorted (here: sorted anew under the new names), and a leader that leaves the
    membership hands over to the first of those that are furthest. Worlds in
    which a leader may have to leave therefore have no interchangeable members.
    """

    def __init__(self, numbers: Mapping[MemberId, int]) -> None:
        self._numbers = numbers
        self._memberships: dict[Membership, Encoded] = {}
        self._entries: dict[Entry, Encoded] = {}

    def member(self, member: MemberId | None) -> int:
        return -1 if member is None else self._numbers[member]

    def members(self, members: Iterable[MemberId]) -> Encoded:
        return tuple(sorted(self._numbers[each] for each in members))

    def membership(self, membership: Membership) -> Encoded:
        known = self._memberships.get(membership)
        if known is None:
            lists = (
                membership.voters, membership.outgoing, membership.learners,
                membership.witnesses, membership.demoting,
            )  # fmt: skip
            known = self._memberships[membership] = tuple(map(self.members, lists))
        return known

    def entry(self, entry: Entry) -> Encoded:
        known = self._entries.get(entry)
        if known is None:
            said: Encoded = entry.data
            if entry.kind is EntryKind.MEMBERSHIP:
                said = self.membership(Membership.decode(entry.data))
            known = self._entries[entry] = (entry.index, entry.term, int(entry.kind), said)
        return known

    def entries(self, entries: Iterable[Entry]) -> Encoded:
        return tuple(map(self.entry, entries))

    def snapshot(self, snapshot: Snapshot | None) -> Encoded:
        if snapshot is None:
            return None
        last = snapshot.meta.last
        return last.term, last.index, self.membership(snapshot.meta.membership), snapshot.data

    def message(self, message: Any) -> Encoded:
        """Any message, field by field."""
        kind = type(message)
        names = kind.__dataclass_fields__
        return (kind.__name__, *(self._field(name, getattr(message, name)) for name in names))

    def messages(self, messages: Iterable[Any]) -> Encoded:
        """Some that wait together; the network forgets their order, and equal ones are one."""
        return tuple(sorted(set(map(self.message, messages)), key=repr))

    def _field(self, name: str, value: Any) -> Encoded:
        match name:
            case "sender" | "to":
                return self._numbers[value]
            case "entries":
                return self.entries(value)
            case "meta":
                return (
                    value.last.term, value.last.index, self.membership(value.membership),
                    value.size_bytes, value.sha256,
                )  # fmt: skip
            case "previous" | "last" | "hint":
                return value.term, value.index
            case _:
                return value if isinstance(value, bytes) else int(value)


def encode_host(host: Host, namer: Namer, world: World) -> Encoded:
    """Everything about *host* that its future depends on, and what the checks remember of its past."""
    node, core = host.node, host.node._core
    told_term, told = host.told_vote
    return (
        _core(core, namer, world),
        _log(core, namer),
        _leadership(core.leadership, namer, has_leases=world.has_leases) if core.leadership else None,
        (node._hard_state.term, namer.member(node._hard_state.vote), node._hard_state.commit),
        _soft(node._soft_state, namer),
        _ready(host.flight, namer) if host.flight else None,
        _disk(host.disk, namer),
        (host.told_term, told_term, namer.member(told), host.reads, host.state.index, host.state.digest),
    )


def _core(core: Core, namer: Namer, world: World) -> Encoded:
    promise, assembly = core._promise, core._assembly
    is_standing = core.role in (Role.CANDIDATE, Role.PRE_CANDIDATE)
    votes = core._ballot._votes.items() if is_standing else ()
    is_timed = core.leadership is None
    return (
        namer.member(core.id),
        _ROLES[core.role],
        core.term,
        namer.member(core.vote),
        namer.member(core.leader),
        tuple((read.request, read.index) for read in core.reads_confirmed),
        tuple(core.reads_lost),
        tuple(sorted((namer.member(voter), int(granted)) for voter, granted in votes)),
        _assembly_key(assembly._key, namer),
        bytes(assembly._data),
        int(core._is_hurried),
        min(core._now, core._settings.heartbeat_ticks),
        promise._ticks_left,
        namer.member(promise._holder) if world.has_crash_proof else -1,
        namer.message(promise._refused) if promise._refused is not None else None,
        min(core._election_elapsed, core._election_timeout) if is_timed else 0,
        core._election_timeout if is_timed else 0,
        core.outbox.durable_term,
        namer.messages(core.outbox._at_once),
        namer.messages(core.outbox._after_durable),
    )


def _assembly_key(key: tuple[object, ...] | None, namer: Namer) -> Encoded:
    if key is None:
        return None
    sender, term, meta = key
    return namer._field("sender", sender), term, namer._field("meta", meta)


def _log(core: Core, namer: Namer) -> Encoded:
    log = core.log
    return (
        namer.snapshot(log.snapshot),
        (log.origin.term, log.origin.index),
        tuple((index, namer.membership(each)) for index, each in log.history._stack),
        namer.entries(log._entries),
        (log.stable, log.commit, log.applied, int(log.installing is not None)),
    )


def _leadership(leading: Leadership, namer: Namer, *, has_leases: bool) -> Encoded:
    now, settings = leading._now, leading.settings
    rounds, reads, transfer = leading._rounds, leading._reads, leading.transfer
    bound = settings.election_ticks_min
    times: Encoded = None
    if has_leases:
        sent = tuple((first, min(now - tick, bound)) for first, tick in rounds._sent)
        confirmed = rounds.confirmed_tick
        times = sent, -1 if confirmed is None else min(now - confirmed, bound)
    return (
        (namer.member(transfer.to), min(now - transfer.started_tick, bound)) if transfer else None,
        tuple(sorted(_peer(peer, now, settings, namer) for peer in leading.peers.values())),
        (rounds.newest, rounds.confirmed, times),
        (
            tuple(reads._early),
            tuple((read.request, read.index) for read in reads._fresh),
            tuple((number, read.request, read.index) for number, read in reads._waiting),
            tuple((read.request, read.index) for read in leading._released),
        ),
        (
            int(leading._was_asked_to_stand), leading._heartbeat_elapsed, leading._uncommitted_bytes,
            int(leading._is_dirty), leading.term_start,
        ),
    )  # fmt: skip


def _peer(peer: Progress, now: int, settings: Any, namer: Namer) -> Encoded:
    sending = peer.transmission
    sent: Encoded = ()
    if sending is not None:
        patience = settings.election_ticks_min // 2
        age = -1 if sending.sent_tick is None else min(now - sending.sent_tick, patience)
        sent = (namer.snapshot(sending.snapshot), sending.offset, age)
    return (
        namer.member(peer.id),
        peer.next,
        peer.mode.value,
        peer.matched,
        tuple(peer.inflights._lasts),
        min(now - peer.heard_tick, settings.election_ticks_min),
        min(now - peer.poked_tick, settings.heartbeat_ticks),
        (int(peer.is_witness), int(peer.paused), int(peer.poke)),
        peer.sent_commit,
        peer.round,
        sent,
    )


def _soft(soft: SoftState, namer: Namer) -> Encoded:
    return _ROLES[soft.role], namer.member(soft.leader), soft.term


def _ready(ready: Ready, namer: Namer) -> Encoded:
    hard = ready.hard_state
    return (
        namer.messages(ready.messages_after_durable),
        (hard.term, namer.member(hard.vote), hard.commit) if hard else None,
        namer.entries(ready.entries),
        namer.snapshot(ready.snapshot),
        namer.entries(ready.committed),
        tuple((read.request, read.index) for read in ready.reads),
        tuple(ready.reads_lost),
        int(ready.must_sync),
    )


def _disk(disk: Disk, namer: Namer) -> Encoded:
    hard = disk.hard_state
    return (
        (hard.term, namer.member(hard.vote), hard.commit, disk.synced_commit),
        namer.snapshot(disk.snapshot),
        namer.entries(disk.entries),
    )
