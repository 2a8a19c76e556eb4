"""Bugs put into the core on purpose: what the explorer must be able to find.

Each removes or alters one guard, and is in force only inside `planted`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from mesh.ids import Index, MemberId
from mesh.raft import EntryId, Membership, Ready, RequestVote, quorum
from mesh.raft import core as core_module
from mesh.raft.election import Promise, VoterView
from mesh.raft.leadership import Leadership
from mesh.raft.log import RaftLog
from mesh.raft.outbox import Outbox
from mesh.raft.rawnode import RawNode
from mesh.raft.readonly import Reads

_ready, _read_index = RawNode.ready, Leadership.read_index


def _forget_vote(self: RawNode) -> Ready:
    """What is stored has no vote in it."""
    ready = _ready(self)
    if ready.hard_state is not None:
        ready = replace(ready, hard_state=replace(ready.hard_state, vote=None))
        self._outstanding = ready
    return ready


def _commit_by_counting(self: Leadership) -> bool:
    log = self._log
    index = Index(quorum.agreed(log.membership, self._durable_at))
    self._is_dirty = True
    return log.commit_to(index)


def _durable_or_not(self: Leadership, member: MemberId) -> int:
    return self._log.last_index if member == self.settings.id else self.peers[member].matched


def _promise_at_once(self: Outbox, message: Any) -> None:
    self._at_once.append(message)


def _grant_twice(view: VoterView, request: RequestVote) -> bool:
    return view.is_up_to_date


def _grant_any_log(self: RaftLog, other: EntryId) -> bool:
    return True


def _one_majority(membership: Membership, value_of: Callable[[MemberId], int]) -> int:
    return quorum._majority_agreed(membership.voters, value_of)


def _without_round(self: Leadership, request: int) -> None:
    _read_index(self, request)
    self._released += self._reads._fresh
    self._reads._fresh.clear()


def _earlier_round(self: Reads, round_number: int) -> None:
    self._waiting.extend((round_number - 1, read) for read in self._fresh)
    self._fresh.clear()


def _always_early(self: Leadership) -> bool:
    return True


def _durable_by_index(self: RaftLog, last: EntryId) -> None:
    if self.installing is None and last.index > self.stable:
        self.stable = min(last.index, self.last_index)


def _promise_nothing(self: Promise) -> bool:
    return False


def _truncate_always(self: RaftLog, entries: Any) -> int:
    return 0 if entries and entries[0].index > self.commit else len(entries)


def _ignore_transfer(self: Leadership) -> Index | None:
    age = self.quorum_confirmed_ticks_ago()
    is_fresh = age is not None and age < self.settings.election_ticks_min - 1
    return self._log.commit if is_fresh and self.has_committed else None


#: name → (owner, attribute, what stands there instead).
PLANTED: Final[dict[str, tuple[Any, str, Any]]] = {
    "vote-not-persisted": (RawNode, "ready", _forget_vote),
    "older-term-committed-by-counting": (Leadership, "advance_commit", _commit_by_counting),
    "leader-counts-what-is-not-durable": (Leadership, "_durable_at", _durable_or_not),
    "promise-before-durable": (Outbox, "promise", _promise_at_once),
    "two-votes-in-a-term": (core_module, "grants", _grant_twice),
    "vote-for-a-shorter-log": (RaftLog, "is_up_to_date", _grant_any_log),
    "joint-state-with-one-majority": (quorum, "agreed", _one_majority),
    "read-without-a-round": (Leadership, "read_index", _without_round),
    "read-in-an-earlier-round": (Reads, "assign", _earlier_round),
    "read-before-first-commit": (Leadership, "has_committed", property(_always_early)),
    "durable-by-index-alone": (RaftLog, "mark_durable", _durable_by_index),
    "a-late-append-truncates": (RaftLog, "_count_known", _truncate_always),
    "promises-not-kept": (Promise, "is_binding", property(_promise_nothing)),
    "lease-in-spite-of-a-transfer": (Leadership, "lease_read_index", _ignore_transfer),
}


@contextmanager
def planted(bug: str) -> Iterator[None]:
    """The core with *bug* in it."""
    owner, name, altered = PLANTED[bug]
    sound = owner.__dict__[name]
    setattr(owner, name, altered)
    try:
        yield
    finally:
        setattr(owner, name, sound)
