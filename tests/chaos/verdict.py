"""What must be true of what clients saw and of who acted, whatever was done to the cluster."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.clients import SLOT_NS, slot_prefix
from tests.chaos.record import Records
from tests.harness.resource import FencedResource
from tests.sim.history import ABSENT, Kind, Operation, Outcome
from tests.sim.linearizability import judge
from tests.sim.one_document import UndecidedError

#: A slot is judged so long after its end: all that was begun in it is on record then.
GRACE_NS = 14_000_000_000


@dataclass(slots=True)
class Judge:
    """Judges histories slot by slot, and remembers what was in them."""

    records: Records
    prefix: str
    judged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    #: When writes were answered by the cluster, in the order of slots.
    answered: list[int] = field(default_factory=list)
    _next_slot: int | None = None

    def judge_until(self, now_ns: int, *, at_end: bool = False) -> list[str]:
        """All slots that are over; violations. *at_end*: nobody asks any more, so all."""
        self.records.follow()
        if self._next_slot is None:
            begun = [each.invoked for each in self.records.operations.values()]
            if not begun:
                return []
            self._next_slot = min(begun) // SLOT_NS
        found: list[str] = []
        while (at_end and self.records.operations) or (self._next_slot + 1) * SLOT_NS + GRACE_NS < now_ns:
            found += self._judge_slot(self.records.take_away(slot_prefix(self.prefix, self._next_slot)))
            self._next_slot += 1
        return found

    def has_written_since(self, at_ns: int) -> bool:
        """A write that was begun later has been acknowledged."""
        self.records.follow()
        every = self.records.operations.values()
        return any(each.is_write and each.invoked > at_ns and each.outcome is Outcome.OK for each in every)

    def _judge_slot(self, operations: Sequence[Operation]) -> list[str]:
        if not operations:
            return []
        self.judged += 1
        for each in operations:
            name = "stale read" if each.stale else "read" if not each.is_write else "write"
            self.outcomes[f"{name} {each.outcome.value}"] += 1
        self.answered += [
            each.returned
            for each in operations
            if each.is_write and each.outcome in (Outcome.OK, Outcome.CONFLICT)
        ]
        return violations_of(operations)


def violations_of(operations: Sequence[Operation]) -> list[str]:
    """Of one history: empty when it is linearizable and its stale reads saw what was written."""
    found = [f"stale read from nowhere: {each}" for each in reads_from_nowhere(operations)]
    try:
        counterexample = judge(operations)
    except UndecidedError as error:
        return [*found, f"undecided: {error}"]
    return [*found, *([f"not linearizable: {counterexample}"] if counterexample else [])]


def reads_from_nowhere(operations: Iterable[Operation]) -> list[Operation]:
    """Stale reads of what nobody had asked to be written by then.

    Stale reads may be old, but not wrong: a version has the value of the write that made it.
    """
    every = list(operations)
    puts = [each for each in every if each.kind is Kind.PUT and each.outcome is not Outcome.REFUSED]
    made = {(each.name, each.version): each for each in puts if each.outcome is Outcome.OK}
    unknown: dict[tuple[str, bytes], int] = {}
    for each in puts:
        if each.outcome is Outcome.UNKNOWN:
            unknown[each.name, each.value] = each.invoked
    found = []
    for read in every:
        if not read.stale or read.kind is not Kind.GET or read.outcome is not Outcome.OK:
            continue
        if read.version == ABSENT:
            continue
        write = made.get((read.name, read.version))
        if write is not None:
            is_right = write.value == read.value and write.invoked <= read.returned
        else:
            is_right = unknown.get((read.name, read.value), read.returned + 1) <= read.returned
        if not is_right:
            found.append(read)
    return found


def longest_gap_s(moments: Iterable[int], begin_ns: int, end_ns: int) -> float:
    """The longest time between two of these moments, or a moment and an end, that lies in a span."""
    inside = sorted(each for each in moments if begin_ns <= each <= end_ns)
    edges = [begin_ns, *inside, end_ns]
    return max(later - earlier for earlier, later in itertools.pairwise(edges)) / 1e9


def owners_of(resource: FencedResource) -> list[str]:
    """Violations of *one owner at a time*, as the resource saw them; empty for none."""
    try:
        resource.check_one_owner()
    except AssertionError as error:
        return [f"two owners: {error}"]
    return []
