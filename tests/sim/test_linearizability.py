"""The judge of histories: hand-written ones, all permutations as a twin, and its speed."""

import time
from collections.abc import Iterator, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.history import ABSENT, NEVER, History, Kind, Operation, Outcome, Seen
from tests.sim.linearizability import judge

OK, CONFLICT, REFUSED, UNKNOWN = Outcome


def put(start: int, end: int, version: int, value: str = "", *, expected: int | None = None) -> Operation:
    """A put that was told its version."""
    written = (value or f"v{version}").encode()
    return Operation("c", Kind.PUT, "d", start, end, OK, written, expected, version)


def delete(start: int, end: int, version: int) -> Operation:
    """A delete that was told its version."""
    return Operation("c", Kind.DELETE, "d", start, end, OK, version=version)


def lost(start: int, value: str, *, kind: Kind = Kind.PUT, expected: int | None = None) -> Operation:
    """A write of unknown outcome."""
    return Operation("c", kind, "d", start, value=value.encode(), expected=expected)


def get(start: int, end: int, version: int, value: str = "") -> Operation:
    """A read; version 0: absent."""
    seen = (value or f"v{version}").encode() if version else b""
    return Operation("r", Kind.GET, "d", start, end, OK, seen, version=version)


def refused(start: int, end: int, seen: int, expected: int) -> Operation:
    """A compare-and-set that saw another version."""
    return Operation("c", Kind.PUT, "d", start, end, CONFLICT, b"x", expected, seen)


def listed(start: int, end: int, **rows: int) -> Operation:
    """A list of everything."""
    seen = tuple(Seen(name, version) for name, version in sorted(rows.items()))
    return Operation("l", Kind.LIST, "", start, end, OK, rows=seen)


GOOD: dict[str, list[Operation]] = {
    "nothing": [],
    "one after another": [put(0, 1, 1), get(2, 3, 1), put(4, 5, 2), get(6, 7, 2)],
    "reads beside a write see before or after": [
        put(0, 1, 1), put(2, 9, 2), get(3, 4, 1), get(5, 6, 2), get(7, 8, 2),
    ],
    "writes beside each other in any order": [put(0, 9, 2), put(1, 8, 1), get(10, 11, 2)],
    "an unknown write took effect late": [put(0, 1, 1), lost(2, "x"), get(3, 4, 1), get(90, 91, 2, "x")],
    "an unknown write never took effect": [put(0, 1, 1), lost(2, "x"), get(90, 91, 1)],
    "an unknown write made the version between": [put(0, 1, 1), lost(2, "x"), put(5, 6, 3)],
    "absent, written, deleted, absent, written": [
        get(0, 1, ABSENT), put(2, 3, 1), delete(4, 5, 2), get(6, 7, ABSENT), put(8, 9, 3, expected=0),
    ],
    "a refusal saw the other version": [put(0, 1, 1), put(2, 5, 2), refused(3, 6, 2, 1)],
    "absence explained by an unknown delete": [
        put(0, 1, 1), lost(2, "", kind=Kind.DELETE), get(5, 6, ABSENT), put(7, 8, 3),
    ],
    "end and beginning at one moment are beside each other": [put(0, 5, 1), get(5, 6, ABSENT)],
    "only a conditional write fits": [
        put(0, 1, 1), lost(2, "x"), lost(2, "y", expected=2), get(5, 6, 3, "y"),
    ],
    "a list beside two writes": [listed(0, 9, d=1), put(1, 2, 1), put(3, 4, 2)],
}  # fmt: skip

BAD: dict[str, tuple[list[Operation], int]] = {
    "a stale read": ([put(0, 1, 1), put(2, 3, 2), get(4, 5, 1)], 2),
    "an acknowledged write is lost": ([put(0, 1, 1), get(2, 3, ABSENT)], 2),
    "reads go back": ([put(0, 1, 1), put(2, 20, 2), get(3, 4, 2), get(5, 6, 1)], 2),
    "a write was acknowledged twice as one version": ([put(0, 1, 1), put(2, 3, 1, "x")], 2),
    "a read of what nobody wrote": ([put(0, 1, 1), get(2, 3, 1, "x")], 2),
    "a version from nowhere": ([put(0, 1, 1), put(2, 3, 3)], 1),
    "an unknown write took effect before it began": ([put(0, 1, 1), get(2, 3, 2, "x"), lost(4, "x")], 1),
    "an unknown write took effect twice": (
        [put(0, 1, 1), lost(2, "x"), get(3, 4, 2, "x"), put(5, 6, 3), get(7, 8, 4, "x")], 2,
    ),
    "the future was seen": ([get(0, 1, 1), put(2, 3, 1)], 2),
    "a compare-and-set was done on another version": ([put(0, 1, 1), put(2, 3, 2, expected=0)], 1),
    "two clients won one version": ([put(0, 1, 1), put(2, 5, 2, expected=1), put(2, 5, 3, expected=1)], 1),
    "refused although it fitted": ([put(0, 1, 1), refused(2, 3, 1, 1)], 1),
    "a refusal saw an old version": ([put(0, 1, 1), put(2, 3, 2), refused(4, 5, 1, 7)], 2),
    "deleted, then seen again": ([put(0, 1, 1), delete(2, 3, 2), get(4, 5, 1)], 2),
    "a stale list": ([put(0, 1, 1), put(2, 3, 2), listed(4, 5, d=1)], 2),
    "a value that changes within its version": (
        [lost(0, "x"), lost(0, "y"), get(1, 2, 1, "x"), get(3, 4, 1, "y")], 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_happened_is_accepted(name: str) -> None:
    """Goal: no false alarm. Method: histories written by hand."""
    assert judge(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_happened_is_found_and_explained_with_few_operations(name: str) -> None:
    """Goal: each kind of broken promise is found, and its core shown. Method: histories written by hand."""
    history, core = BAD[name]
    # Something unrelated beside it must not be in the explanation.
    other = [Operation("o", Kind.PUT, "other", 0, 9, OK, b"", None, 1)]
    found = judge([*history, *other])
    assert found is not None
    assert found.name == "d"
    assert 0 < len(found.operations) <= core, str(found)
    assert "no order explains" in str(found)


def named(operation: Operation, name: str) -> Operation:
    return Operation(
        operation.client, operation.kind, name, operation.invoked, operation.returned,
        operation.outcome, operation.value, operation.expected, operation.version,
    )  # fmt: skip


def test_lists_must_agree_on_one_moment() -> None:
    """Goal: crossed lists are found though each document alone has an order. Method: by hand."""
    writes = [named(put(0, 9, 1), "a"), named(put(0, 9, 1), "b")]
    crossed = judge([*writes, listed(1, 2, a=1), listed(1, 2, b=1)])
    assert crossed is not None
    assert [each.kind for each in crossed.operations].count(Kind.LIST) == 2
    assert judge([*writes, listed(1, 2, a=1), listed(3, 4, a=1, b=1)]) is None


def test_a_list_that_saw_a_write_saw_those_before_it() -> None:
    """Goal: real time across documents counts for lists. Method: a list beside two writes in order."""
    writes = [named(put(1, 2, 1), "a"), named(put(3, 4, 1), "b")]
    assert judge([*writes, listed(0, 9, a=1)]) is None
    assert judge([*writes, listed(0, 9, b=1)]) is not None


def test_a_list_beside_unknown_writes_and_deletes_raises_no_false_alarm() -> None:
    """Goal: what could mean two things is passed over. Method: an absence that a deletion explains."""
    writes = [named(put(1, 2, 1), "a"), named(delete(3, 4, 2), "a"), named(put(5, 6, 1), "b")]
    assert judge([*writes, listed(0, 9, b=1)]) is None


def test_versions_from_before_the_history_are_its_beginning() -> None:
    """Goal: histories of clusters that hold documents already. Method: `first`."""
    assert judge([put(0, 1, 8), get(2, 3, 8)], {"d": 7}) is None
    assert judge([get(0, 1, ABSENT)], {"d": 7}) is not None
    assert judge([put(0, 1, 7)], {"d": 7}) is not None


def test_a_history_recorded_call_by_call_is_judged() -> None:
    """Goal: the recorder says what happened. Method: one of each outcome, then the judge."""
    history = History()

    def begin(kind: Kind, at: int, value: bytes = b"", expected: int | None = None) -> int:
        return history.begin(Operation("c", kind, "d", at, value=value, expected=expected))

    first, second = begin(Kind.PUT, 0, b"x"), begin(Kind.PUT, 1, b"y", 5)
    history.ok(first, 3, 1)
    history.conflict(second, 4, 1)
    history.refused(begin(Kind.PUT, 5, b"z"), 6)
    history.unknown(begin(Kind.PUT, 7, b"u"))
    history.listed(begin(Kind.LIST, 8), 9, (Seen("d", 1),))
    history.ok(begin(Kind.GET, 10), 11, 2, b"u")
    begin(Kind.PUT, 12, b"never returns")
    operations = list(history.operations())
    assert [each.outcome for each in operations] == [OK, CONFLICT, REFUSED, UNKNOWN, OK, OK, UNKNOWN]
    assert judge([each for each in operations if each.kind is not Kind.LIST]) is None
    assert operations[-1].returned == NEVER


# ---- the twin -----------------------------------------------------------------------


def explained(answer: Operation, version: int, value: bytes | None) -> tuple[int, bytes | None] | None:
    """The document after one operation alone, or None when its answer would have been another.

    `value` is None while the document does not exist.
    """
    present = ABSENT if value is None else version
    if answer.kind is Kind.GET:
        is_right = answer.version == present and (not present or answer.value == value)
        return (version, value) if is_right else None
    fits = answer.expected in (None, present) and not (answer.kind is Kind.DELETE and value is None)
    if answer.outcome is CONFLICT:
        return None if fits or answer.version != present else (version, value)
    if not fits or (answer.outcome is OK and answer.version != version + 1):
        return None
    return version + 1, answer.value if answer.kind is Kind.PUT else None


def has_order(left: Sequence[Operation], version: int = 0, value: bytes | None = None) -> bool:
    """Tries every permutation; the naive twin of the judge."""
    if all(each.outcome is UNKNOWN for each in left):
        return True
    first_return = min(each.returned for each in left)
    for number, each in enumerate(left):
        if each.invoked <= first_return:
            after = explained(each, version, value)
            if after is not None and has_order([*left[:number], *left[number + 1 :]], *after):
                return True
    return False


def times(draw: st.DrawFn) -> tuple[int, int]:
    start = draw(st.integers(0, 8))
    return start, start + draw(st.integers(0, 5))


@st.composite
def arbitrary(draw: st.DrawFn) -> Operation:
    """Any answer at all, most of them wrong."""
    start, end = times(draw)
    kind = draw(st.sampled_from([Kind.PUT, Kind.PUT, Kind.GET, Kind.GET, Kind.DELETE]))
    value = draw(st.sampled_from([b"a", b"b"]))
    version = draw(st.integers(0, 3))
    if kind is Kind.GET:
        return Operation("c", kind, "d", start, end, OK, value if version else b"", None, version)
    outcome = draw(st.sampled_from([OK, OK, CONFLICT, UNKNOWN]))
    expected = draw(st.sampled_from([None, None, 0, 1, 2]))
    if outcome is UNKNOWN:
        return Operation("c", kind, "d", start, value=value, expected=expected)
    version = max(1, version) if outcome is OK else version
    return Operation("c", kind, "d", start, end, outcome, value, expected, version)


@st.composite
def nearly_right(draw: st.DrawFn) -> list[Operation]:
    """A true history of a document, with at most one answer or time changed."""
    version, value = 0, None
    history: list[Operation] = []
    for moment in range(draw(st.integers(1, 7))):
        asked = draw(arbitrary())
        start, end = moment * 2 - draw(st.integers(0, 4)), moment * 2 + draw(st.integers(0, 4))
        present = ABSENT if value is None else version
        fits = asked.expected in (None, present) and not (asked.kind is Kind.DELETE and value is None)
        if asked.kind is Kind.GET:
            history.append(Operation("c", Kind.GET, "d", start, end, OK, value or b"", None, present))
            continue
        outcome, told = (OK, version + 1) if fits else (CONFLICT, present)
        if fits:
            version, value = version + 1, asked.value if asked.kind is Kind.PUT else None
        if draw(st.integers(0, 3)) == 0:
            outcome, told, end = UNKNOWN, ABSENT, NEVER
        written = asked.value if asked.kind is Kind.PUT else b""
        history.append(Operation("c", asked.kind, "d", start, end, outcome, written, asked.expected, told))
    if draw(st.booleans()):
        history[draw(st.integers(0, len(history) - 1))] = draw(arbitrary())
    return history


@settings(max_examples=400, deadline=None)
@given(st.one_of(nearly_right(), st.lists(arbitrary(), max_size=5)))
def test_the_judge_agrees_with_all_permutations(history: list[Operation]) -> None:
    """Goal: exact, both ways. Method: compare with every order of small histories."""
    found = judge(history)
    assert (found is None) == has_order(history)
    if found is not None:
        unknown = [each for each in history if each.is_write]
        assert len(found.operations) <= len(history)
        assert not has_order([*found.operations, *_weakened(unknown, found.operations)])


def _weakened(writes: Sequence[Operation], but: Sequence[Operation]) -> Iterator[Operation]:
    """The writes with their answers taken away; those of the explanation are in it already."""
    left = list(but)
    for each in writes:
        if each in left:
            left.remove(each)
        elif each.outcome is not CONFLICT:
            yield Operation("c", each.kind, "d", each.invoked, value=each.value, expected=each.expected)


# ---- speed --------------------------------------------------------------------------


def busy(seed: int, count: int, clients: int, names: int) -> list[Operation]:
    """A true history: each operation takes effect at some moment between its invocation and its return."""
    dice = Random(seed)
    free = [0] * clients
    planned = []
    for number in range(count):
        client = number % clients
        start = free[client] + dice.randint(1, 20)
        moment = start + dice.randint(0, 50)
        free[client] = end = moment + dice.randint(0, 50)
        planned.append((moment, start, end, client))
    documents: dict[str, tuple[int, bytes | None]] = {}
    history = []
    for moment, start, end, client in sorted(planned):
        name = f"d{dice.randrange(names)}"
        version, value = documents.get(name, (0, None))
        present = ABSENT if value is None else version
        draw = dice.random()
        if draw < 0.4:
            history.append(
                Operation(f"{client}", Kind.GET, name, start, end, OK, value or b"", None, present)
            )
            continue
        kind = Kind.DELETE if draw > 0.95 and value is not None else Kind.PUT
        written = b"" if kind is Kind.DELETE else b"%d" % moment
        expected = present if draw < 0.6 else None
        if dice.random() < 0.1:
            if dice.random() < 0.5:
                documents[name] = (version + 1, None if kind is Kind.DELETE else written)
            history.append(Operation(f"{client}", kind, name, start, NEVER, UNKNOWN, written, expected))
            continue
        documents[name] = (version + 1, None if kind is Kind.DELETE else written)
        history.append(Operation(f"{client}", kind, name, start, end, OK, written, expected, version + 1))
    return history


@pytest.mark.parametrize("names", [1, 5])
def test_a_thousand_operations_of_ten_clients_are_judged_at_once(names: int) -> None:
    """Goal: cheap enough for every run. Method: 1,000 operations, a tenth of unknown outcome; CPU time."""
    history = busy(1, 1_000, 10, names)
    began = time.process_time()
    assert judge(history) is None
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_one_old_read_among_a_thousand_operations_is_found_and_explained(seed: int) -> None:
    """Goal: one wrong answer is found wherever it is. Method: the last read is told what a former one was."""
    history = busy(seed, 1_000, 10, 1)
    reads = [each for each in history if each.kind is Kind.GET and each.version]
    old, last = reads[len(reads) // 2], reads[-1]
    place = history.index(last)
    history[place] = Operation(
        "r", Kind.GET, "d0", last.invoked, last.returned, OK, old.value, None, old.version
    )
    began = time.process_time()
    found = judge(history)
    assert time.process_time() - began < 2
    assert found is not None
    assert len(found.operations) <= 3
