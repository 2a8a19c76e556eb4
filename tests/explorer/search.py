"""Breadth-first search through everything that may happen in a small world.

The real `mesh.raft.RawNode` runs, unmodified; the explorer plays disk, network and
time. A state is: every host (volatile and durable), the messages on their way, the
budgets that are used up, and what an observer remembers (`ghost.py`).

What may happen, at any moment and in any order, within the world's bounds:

* any message on its way arrives, in any order, or never (so loss needs no move of its own);
  it may arrive once more later (`duplicates`). Equal messages on their way are one.
* time passes at one host until something happens there: a promise runs out, it stands
  for election, a leader starts a round or steps down for want of a quorum. Hosts'
  clocks have nothing to do with each other. In worlds with leases they tick one
  by one instead, at most one tick apart.
* a disk stalls (`stalls`): messages, time and a crash come between what leaves at once and
  what waits for the disk. Otherwise the duties of a Ready are done at once.
* a host loses what was not synced and starts again (`crashes`), with the Ready under way stored or
  not, and a commit index that was not synced lost.
* commands, reads, transfers, membership changes and compactions, at whoever leads.

Check-quorum, pre-vote and promises run as they are, on the real tick counters.
Freedoms left out: a crash that keeps a commit index that was not synced; Readys that
collect several inputs while the disk is idle; election timeouts shorter than the longest
(a promise always runs out before its maker stands); more than `rounds` rounds in one leadership,
at which bound time stands still for that leader; a host that stays away (its
messages are simply never delivered); damaged messages.

Two reductions leave states out that differ in nothing: members may change names
(`Namer`), and answers that the hearer will ignore for ever are forgotten
(`Table.is_dead`). A message whose arrival would change nothing now stays on its way.

Distinct states are told apart by 112 bits: the chance that any two of n collide,
so that one is wrongly left out, is about n²/2¹¹³ (5 million: 2·10⁻²¹).
"""

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.explorer import ghost as watching
from tests.explorer.host import COMPACT, CRASH, CRASH_STORED, FINISH, TICK, TIME, Move
from tests.explorer.start import Start
from tests.explorer.table import Known, Step, Table, canonical
from tests.explorer.violation import Violation
from tests.explorer.worlds import World

#: Where each budget stands in the number that holds all of them; four bits each.
PROPOSED, CRASHED, DOUBLED, STALLED, READ, TRANSFERRED, CHANGED, COMPACTED, AHEAD = range(0, 36, 4)
_HALF: Final = (1 << 32) - 1
_COMMANDS: Final = (b"p", b"q", b"r", b"s")

#: (hosts, messages on their way, ghost, budgets, sum of digests); numbers of `Table`.
State: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int, int, int]
#: (position of the host, move, whether its disk stalls, whether the message stays on its way).
Event: TypeAlias = tuple[int, int, bool, bool]
Successor: TypeAlias = tuple[State, Event]


@dataclass(frozen=True)
class Limits:
    """Where to stop; the world's own bounds are in `World`."""

    states: int = 1_000_000
    minutes: float = 10.0
    depth: int = 1_000


@dataclass(frozen=True)
class Found:
    """A violation and the shortest way there."""

    violation: Violation
    path: tuple[Event, ...]
    states: int


@dataclass
class Report:
    """How far a search is, and what came out."""

    world: str
    states: int = 1
    transitions: int = 0
    depth: int = 0
    waiting: int = 1
    hosts: int = 0
    runs: int = 0
    wall_seconds: float = 0.0
    is_complete: bool = False
    found: Found | None = None
    #: The violation as a story.
    story: str = ""


class Search:
    """One world, searched level by level."""

    def __init__(self, world: World, start: Start) -> None:
        self.world = world
        self.table = Table(world, start.members)
        self._observed: dict[tuple[int, int], int] = {}
        self._complete: set[tuple[int, int]] = set()
        self._matching: set[tuple[int, int]] = set()
        self._stored: dict[tuple[int, int], int] = {}
        intern = self.table.intern_move
        self._time = intern(TICK if world.has_leases else TIME)
        self._finish, self._crash, self._crash_stored = intern(FINISH), intern(CRASH), intern(CRASH_STORED)
        self._compact = intern(COMPACT)
        self._proposals = [intern(Move("propose", each)) for each in _COMMANDS[: world.proposals]]
        self._changes = [intern(Move("change", each)) for each in world.changes]
        self._transfers = [intern(Move("transfer", each)) for each in start.members if world.transfers]
        self._everybody_ahead = (1 << len(start.members)) - 1
        self.failed: Event | None = None
        self.first = self._first_state(start)

    def _first_state(self, start: Start) -> State:
        table = self.table
        hosts = tuple(table.intern_host(each) for each in start.hosts)
        ghost = table.intern_ghost(watching.NOTHING)
        for host in sorted(hosts, key=lambda each: table.hosts[each].view.origin):
            ghost = table.observe(ghost, host)
        total = sum(table.hosts[each].digest for each in hosts)
        network = tuple(table.intern_move(Move("deliver", each)) for each in start.network)
        total += sum(table.digests[each] for each in network)
        return hosts, network, ghost, 0, total + table.ghost_digests[ghost] + table.budget_digest(0)

    def _pack(self, state: State) -> bytes:
        """A state that waits, in some eighty bytes."""
        hosts, network, ghost, budget, _ = state
        return array("I", (*hosts, ghost, budget & _HALF, budget >> 32, *network)).tobytes()

    def _unpack(self, packed: bytes) -> State:
        numbers = array("I")
        numbers.frombytes(packed)
        table, count = self.table, len(self.table.members)
        hosts, network = tuple(numbers[:count]), tuple(numbers[count + 3 :])
        ghost, budget = numbers[count], numbers[count + 1] | numbers[count + 2] << 32
        total = table.ghost_digests[ghost] + table.budget_digest(budget)
        total += sum(table.hosts[each].digest for each in hosts)
        return hosts, network, ghost, budget, total + sum(table.digests[each] for each in network)

    # ---- the search -------------------------------------------------------------------

    def run(self, limits: Limits, progress: Callable[[Report], None]) -> Report:
        """Search until everything is seen, a limit is reached or a property is violated."""
        began = time.monotonic()
        report = Report(self.world.name)
        key_of = canonical(len(self.table.namers))
        seen = {key_of(self.first[4])}
        parents, ordinals = array("I", [0]), array("H", [0])
        level, base = [self._pack(self.first)], 0
        while level and report.depth < limits.depth and report.found is None:
            following: list[bytes] = []
            for position, packed in enumerate(level):
                try:
                    successors = self.successors(self._unpack(packed))
                except Violation as violation:
                    last = self._failed_event()  # finding the way there tries moves again
                    path = (*self._path(parents, ordinals, base + position), last)
                    report.found = Found(violation, path, len(seen))
                    break
                report.transitions += len(successors)
                for ordinal, (new, _) in enumerate(successors):
                    key = key_of(new[4])
                    if key not in seen:
                        seen.add(key)
                        following.append(self._pack(new))
                        parents.append(base + position)
                        ordinals.append(ordinal)
                if position % 2048 == 0:
                    self._measure(report, began, len(seen), len(level) - position + len(following))
                    progress(report)
                    if len(seen) >= limits.states or report.wall_seconds > 60 * limits.minutes:
                        self._measure(report, began, len(seen), len(level) - position + len(following))
                        return report
            base += len(level)
            level = following
            report.depth += 1
        report.is_complete = not level and report.found is None
        self._measure(report, began, len(seen), len(level))
        return report

    def _measure(self, report: Report, began: float, states: int, waiting: int) -> None:
        report.states, report.waiting = states, waiting
        report.hosts, report.runs = len(self.table.hosts), self.table.runs
        report.wall_seconds = time.monotonic() - began

    def _failed_event(self) -> Event:
        assert self.failed is not None
        return self.failed

    def _path(self, parents: Sequence[int], ordinals: Sequence[int], number: int) -> Iterator[Event]:
        """The moves from the first state to state *number*."""
        taken = []
        while number:
            taken.append(ordinals[number])
            number = parents[number]
        state = self.first
        for ordinal in reversed(taken):
            state, event = self.successors(state)[ordinal]
            yield event

    # ---- one state --------------------------------------------------------------------

    def successors(self, state: State) -> list[Successor]:
        """Every state that one move leads to, always in the same order. Fails: `Violation`."""
        found: list[Successor] = []
        hosts, network, _, budget, _ = state
        hears = self.table.hears
        may_double = (budget >> DOUBLED & 15) < self.world.duplicates
        for message in network:
            at = hears[message]
            step = self._step(hosts[at], at, message, stalled=False)
            if step is not None:
                self._move(found, state, (at, message, False, False), step, budget)
                if may_double:
                    self._move(found, state, (at, message, False, True), step, budget + (1 << DOUBLED))
                self._stall(found, state, (at, message), step, budget)
        for at, number in enumerate(hosts):
            self._spontaneous(found, state, at, self.table.hosts[number])
        return found

    def _spontaneous(self, found: list[Successor], state: State, at: int, host: Known) -> None:
        world, budget = self.world, state[3]
        if not world.has_leases:
            self._try(found, state, at, self._time, budget)
        elif not budget >> AHEAD & 1 << at:
            self._try(found, state, at, self._time, self._ticked(budget, at))
        if host.is_slow:
            self._try(found, state, at, self._finish, budget)
        if host.is_leader:
            self._requests(found, state, at)
        if (budget >> CRASHED & 15) < world.crashes:
            self._try(found, state, at, self._crash, budget + (1 << CRASHED))
            if host.is_slow:
                self._try(found, state, at, self._crash_stored, budget + (1 << CRASHED))
        if (budget >> COMPACTED & 15) < world.compactions and not host.is_slow:
            self._try(found, state, at, self._compact, budget + (1 << COMPACTED))

    def _requests(self, found: list[Successor], state: State, at: int) -> None:
        world, budget = self.world, state[3]
        proposed, changed = budget >> PROPOSED & 15, budget >> CHANGED & 15
        if proposed < world.proposals:
            self._try(found, state, at, self._proposals[proposed], budget + (1 << PROPOSED))
        if changed < len(self._changes):
            self._try(found, state, at, self._changes[changed], budget + (1 << CHANGED))
        request = budget >> READ & 15
        if request < world.reads:
            needed = len(self.table.ghosts[state[2]].committed)
            move = self.table.intern_move(Move("read", (request + 1, needed)))
            self._try(found, state, at, move, budget + (1 << READ))
        if (budget >> TRANSFERRED & 15) < world.transfers:
            for move in self._transfers:
                self._try(found, state, at, move, budget + (1 << TRANSFERRED))

    def _ticked(self, budget: int, at: int) -> int:
        """Who is a tick ahead; when all are, nobody is."""
        ahead = budget >> AHEAD | 1 << at
        return (budget & (1 << AHEAD) - 1) | (0 if ahead == self._everybody_ahead else ahead << AHEAD)

    def _try(self, found: list[Successor], state: State, at: int, move: int, budget: int) -> None:
        step = self._step(state[0][at], at, move, stalled=False)
        if step is not None:
            self._move(found, state, (at, move, False, False), step, budget)
            self._stall(found, state, (at, move), step, budget)

    def _stall(
        self, found: list[Successor], state: State, event: tuple[int, int], step: Step, budget: int
    ) -> None:
        """The same, but the disk takes its time."""
        if step.has_synced and (budget >> STALLED & 15) < self.world.stalls:
            slow = self._step(state[0][event[0]], event[0], event[1], stalled=True)
            if slow is not None:
                self._move(found, state, (event[0], event[1], True, False), slow, budget + (1 << STALLED))

    def _step(self, number: int, at: int, move: int, *, stalled: bool) -> Step | None:
        steps = self.table.hosts[number].steps
        key = move << 1 | stalled
        if key in steps:
            return steps[key]
        self.failed = (at, move, stalled, False)
        return self.table.run(number, move, stalled=stalled)

    def _move(self, found: list[Successor], state: State, event: Event, step: Step, budget: int) -> None:
        hosts, network, ghost, before, total = state
        table = self.table
        at, move = event[0], event[1]
        old = hosts[at]
        hosts = (*hosts[:at], step.to, *hosts[at + 1 :])
        total += step.change
        if step.is_loud:
            self.failed = event
            after = self._check(hosts, old, step.to, ghost)
            if after != ghost:
                total += table.ghost_digests[after] - table.ghost_digests[ghost]
                ghost = after
        if self.world.has_leases:
            self.failed = event
            self._check_leases(hosts, ghost)
        if budget != before:
            total += table.budget_digest(budget) - table.budget_digest(before)
        if table.hears[move] >= 0 and not event[3]:
            position = network.index(move)
            network = network[:position] + network[position + 1 :]
            total -= table.digests[move]
        if table.hosts[step.to].disk_term > table.hosts[old].disk_term and network:
            network, total = self._bury(network, at, step.to, total)
        added = [each for each in step.sends if each not in network and not self._is_vain(hosts, each)]
        if not added:
            found.append(((hosts, network, ghost, budget, total), event))
            return
        for each in self._send(network, added):
            change = sum(map(table.digests.__getitem__, each)) - sum(map(table.digests.__getitem__, network))
            found.append(((hosts, each, ghost, budget, total + change), event))

    # ---- the network ------------------------------------------------------------------

    def _is_vain(self, hosts: tuple[int, ...], message: int) -> bool:
        return self.table.is_dead(hosts[self.table.hears[message]], message)

    def _bury(self, network: tuple[int, ...], at: int, host: int, total: int) -> tuple[tuple[int, ...], int]:
        """Forget what means nothing any more to a host whose durable term has risen."""
        table = self.table
        gone = [each for each in network if table.hears[each] == at and table.is_dead(host, each)]
        if not gone:
            return network, total
        network = tuple(each for each in network if each not in gone)
        return network, total - sum(table.digests[each] for each in gone)

    def _send(self, network: tuple[int, ...], added: list[int]) -> list[tuple[int, ...]]:
        """The network with *added*; where a link is full, once for each message that may be lost."""
        link, bound = self.table.link, self.world.link
        results = [network]
        for message in added:
            on = link[message]
            extended: list[tuple[int, ...]] = []
            for each in results:
                waiting = [other for other in each if link[other] == on]
                if len(waiting) < bound:
                    extended.append((*each, message))
                    continue
                extended.append(each)
                kept = ((*(other for other in each if other != lost), message) for lost in waiting)
                extended.extend(kept)
            results = extended
        return results

    # ---- the checks -------------------------------------------------------------------

    def _check(self, hosts: tuple[int, ...], old: int, new: int, ghost: int) -> int:
        """Everything that may have changed with one host; the ghost afterwards."""
        table = self.table
        after = self._observed.get((ghost, new))
        if after is None:
            after = self._observed[ghost, new] = table.observe(ghost, new)
        known = table.hosts
        if after != ghost:
            views = [known[each].view for each in hosts]
            watching.check_durable(table.ghosts[ghost], table.ghosts[after], known[new].view, views)
        for each in hosts:
            if known[each].is_leader and (after, each) not in self._complete:
                watching.check_complete(table.ghosts[after], known[each].view)
                self._complete.add((after, each))
        if known[old].view.disk != known[new].view.disk and self._count(after, new) < self._count(after, old):
            watching.check_kept(table.ghosts[after], known[old].view, known[new].view)
        log = known[new].log
        for each in hosts:
            other = known[each].log
            if other != log and (log, other) not in self._matching:
                watching.check_logs_match(known[new].view, known[each].view)
                self._matching.add((log, other))
        return after

    def _count(self, ghost: int, host: int) -> int:
        known = self._stored.get((ghost, host))
        if known is None:
            known = watching.stored(self.table.ghosts[ghost], self.table.hosts[host].view)
            self._stored[ghost, host] = known
        return known

    def _check_leases(self, hosts: tuple[int, ...], ghost: int) -> None:
        for each in hosts:
            view = self.table.hosts[each].view
            if view.lease_read is not None:
                watching.check_lease(self.table.ghosts[ghost], view)
