"""Which line a server is on, and what it must do to get back on the primary's."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import FencingTerm
from mesh.limits import TIMELINES_MAX
from sidecar.postgres.history import (
    Position,
    Return,
    can_follow,
    common_end,
    descends_from,
    end_on,
    further,
    has,
    parse_history,
    way_back,
)
from sidecar.postgres.model import (
    Ancestor,
    DataKind,
    LocalData,
    Lsn,
    Timeline,
    TimelineHistory,
    format_lsn,
    parse_lsn,
)


def line(timeline: int, *ancestors: tuple[int, int]) -> TimelineHistory:
    return TimelineHistory(
        Timeline(timeline), tuple(Ancestor(Timeline(number), Lsn(end)) for number, end in ancestors)
    )


def at(history: TimelineHistory, flushed: int) -> Position:
    return Position(history, Lsn(flushed))


FIRST = line(1)
SECOND = line(2, (1, 100))
THIRD = line(3, (1, 100), (2, 200))


@given(st.integers(0, 2**64 - 1))
def test_a_position_reads_as_it_is_written(number: int) -> None:
    """Goal: no position is misread. Method: any 64-bit number there and back."""
    assert parse_lsn(format_lsn(Lsn(number))) == number


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "G/0", "0/123456789", "1/2/3", " 0/1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    """Goal: garbage is never a low position. Method: near misses."""
    with pytest.raises(ValueError, match="no WAL position"):
        parse_lsn(text)


def test_a_history_file_is_read_as_postgresql_writes_it() -> None:
    """Goal: the format. Method: a file of two promotions with its comments."""
    text = "1\t0/64\tno recovery target specified\n\n# by hand\n2\t0/C8\tno recovery target specified\n"
    assert parse_history(Timeline(3), text) == THIRD
    assert parse_history(Timeline(1), "") == FIRST


@pytest.mark.parametrize("text", ["1 nowhere", "x 0/64", "2 0/64\n1 0/C8", "1 0/C8\n2 0/64", "3 0/64"])
def test_a_damaged_history_is_refused(text: str) -> None:
    """Goal: no conclusion from a broken file. Method: bad words, wrong order, its own number."""
    with pytest.raises(ValueError, match="history"):
        parse_history(Timeline(3), text)


def test_descent_needs_the_same_ancestors() -> None:
    """Goal: a number alone is no descent. Method: lines with and without a common past."""
    assert descends_from(THIRD, FIRST)
    assert descends_from(THIRD, SECOND)
    assert descends_from(THIRD, THIRD)
    assert not descends_from(SECOND, THIRD)
    assert not descends_from(THIRD, line(2, (1, 90)))
    assert not descends_from(line(3, (1, 100)), SECOND)
    assert end_on(THIRD, Timeline(2)) == 200
    assert end_on(THIRD, Timeline(3)) is None


def grown(count: int, last_end: int | None = None) -> TimelineHistory:
    """Of so many promotions, each 100 bytes after the one before; the last at *last_end*."""
    ends = [100 * number for number in range(1, count)] + [last_end or 100 * count]
    return line(count + 1, *enumerate(ends, start=1))


def cut(history: TimelineHistory) -> TimelineHistory:
    """As it is recorded."""
    return replace(history, ancestors=history.ancestors[-TIMELINES_MAX:])


def test_a_cut_history_is_compared_from_where_it_begins() -> None:
    """Goal: after a thousand promotions a standby still follows as it is. Method: whole, cut, forks."""
    count = TIMELINES_MAX + 100
    now, before = grown(count), grown(count - 1)
    for mine, theirs in ((cut(now), before), (cut(now), cut(before)), (now, cut(before)), (now, before)):
        assert descends_from(mine, theirs)
        assert not descends_from(theirs, mine)
        assert common_end(mine, theirs) == 100 * count
        assert can_follow(at(theirs, 100 * count), mine)
        assert not can_follow(at(theirs, 100 * count + 1), mine)
    assert descends_from(cut(now), now)
    assert common_end(cut(now), now) is None
    fork = grown(count - 1, last_end=100 * (count - 1) + 7)
    for mine in (now, cut(now)):
        assert not descends_from(mine, fork)
        assert common_end(mine, fork) == 100 * (count - 1)


def test_what_a_cut_history_does_not_remember_is_not_guessed() -> None:
    """Goal: no WAL is taken for shared that may not be. Method: a host from before the first that is told."""
    now = cut(grown(TIMELINES_MAX + 100))
    old = grown(50)
    assert not descends_from(now, old)
    assert common_end(now, old) == 0
    data = LocalData(DataKind.PRESENT, "7", old, end=Lsn(10))
    assert way_back(data, now) is Return.REWIND


def test_lines_are_the_same_up_to_where_one_left() -> None:
    """Goal: the point of divergence. Method: pairs of lines with the answer by hand."""
    assert common_end(FIRST, FIRST) is None
    assert common_end(FIRST, SECOND) == 100
    assert common_end(SECOND, line(2, (1, 120))) == 100
    assert common_end(SECOND, line(3, (1, 100))) == 100
    assert common_end(THIRD, line(4, (1, 100), (2, 150))) == 150
    assert common_end(line(2), FIRST) == 0


def test_further_is_timeline_first_then_position() -> None:
    """Goal: the order of a failover. Method: pairs, asked both ways."""
    pairs = [
        (at(FIRST, 90), at(FIRST, 80)),
        # an unacknowledged tail on the old timeline never wins over the one that was promoted
        (at(SECOND, 110), at(FIRST, 150)),
        (at(SECOND, 100), at(FIRST, 150)),
        (at(THIRD, 210), at(SECOND, 400)),
        # only told of timeline 2, still reading what both share
        (at(FIRST, 95), at(SECOND, 90)),
        (at(FIRST, 150), at(SECOND, 90)),
        (at(SECOND, 150), at(line(3, (1, 100)), 100)),
    ]
    for better, worse in pairs:
        assert further(better, worse) == better
        assert further(worse, better) == better


def test_two_that_took_the_same_number_are_told_apart_by_their_ancestors() -> None:
    """Goal: neither is taken for the other. Method: promoted at 100 and at 120 in a partition."""
    assert further(at(SECOND, 130), at(line(2, (1, 120)), 140)) is None
    assert not has(at(line(2, (1, 120)), 140), at(SECOND, 130))


lines = st.sampled_from(
    [FIRST, SECOND, THIRD, line(2, (1, 120)), line(3, (1, 100)), line(4, (1, 100), (2, 150))]
)
positions = st.builds(Position, lines, st.integers(0, 300).map(Lsn))


@settings(max_examples=300, deadline=None)
@given(positions, positions)
def test_the_further_one_is_the_same_from_both_sides_and_lacks_nothing_shared(
    one: Position, other: Position
) -> None:
    """Goal: no dependence on order, no loss of common WAL. Method: all pairs of a small family of lines."""
    best = further(one, other)
    back = further(other, one)
    assert (best is None) == (back is None)
    if best is not None and back is not None:
        assert best == back or (has(one, other) and has(other, one))
        loser = other if best == one else one
        shared = common_end(best.history, loser.history)
        assert best.flushed >= (loser.flushed if shared is None else min(loser.flushed, shared))


@settings(max_examples=300, deadline=None)
@given(positions, lines)
def test_who_can_follow_has_no_wal_off_the_line(one: Position, primary: TimelineHistory) -> None:
    """Goal: a standby never mixes two histories. Method: all its WAL lies before the divergence."""
    if can_follow(one, primary):
        shared = common_end(one.history, primary)
        assert shared is None or one.flushed <= shared


# ---- the way back ---------------------------------------------------------------


def data(history: TimelineHistory, end: int = 0, **more: object) -> LocalData:
    found = LocalData(DataKind.PRESENT, "7", history, end=Lsn(end))
    return replace(found, **more)  # type: ignore[arg-type]  # its own fields


def former(history: TimelineHistory, end: int, *, clean: bool) -> LocalData:
    return data(history, end, was_primary=True, primary_term=FencingTerm(3), is_clean=clean)


def test_after_a_switchover_the_former_primary_follows_as_it_is() -> None:
    """Goal: no rewind where nothing diverged. Method: ended before the new one begins."""
    assert way_back(former(FIRST, 100, clean=True), SECOND) is Return.AS_IT_IS
    assert way_back(former(FIRST, 101, clean=True), SECOND) is Return.REWIND


def test_a_former_primary_that_crashed_is_rewound_whatever_its_end() -> None:
    """Goal: WAL that nobody saw is never taken for shared. Method: an unclean end that looks early."""
    assert way_back(former(FIRST, 50, clean=False), SECOND) is Return.REWIND
    assert way_back(former(FIRST, 50, clean=False), replace(SECOND, timeline=Timeline(9))) is Return.REWIND


def test_where_a_rewind_cannot_be_done_it_is_cloned() -> None:
    """Goal: always a way back. Method: rewind refused, damaged, no history."""
    lost = former(FIRST, 150, clean=True)
    assert way_back(replace(lost, rewind_refused="WAL is gone"), SECOND) is Return.CLONE
    assert way_back(replace(lost, damaged="a page"), SECOND) is Return.CLONE
    assert way_back(replace(lost, history=None), SECOND) is Return.CLONE


def test_the_loser_of_two_with_the_same_number_is_never_taken_as_it_is() -> None:
    """Goal: twins of one number. Method: by ancestors; where these agree, by having been primary."""
    assert way_back(former(line(2, (1, 90)), 120, clean=True), SECOND) is Return.CLONE
    assert way_back(former(SECOND, 100, clean=True), SECOND) is Return.CLONE
    assert way_back(former(THIRD, 250, clean=True), SECOND) is Return.REWIND
    assert way_back(data(line(2, (1, 90)), 95), THIRD) is Return.REWIND


def test_a_standby_follows_on_unless_it_went_too_far() -> None:
    """Goal: re-pointing needs nothing in the usual case. Method: before and behind the new beginning."""
    assert way_back(data(FIRST, 100), SECOND) is Return.AS_IT_IS
    assert way_back(data(FIRST), SECOND, Lsn(100)) is Return.AS_IT_IS
    assert way_back(data(FIRST), SECOND, Lsn(101)) is Return.REWIND
    assert way_back(data(SECOND, 130), THIRD) is Return.AS_IT_IS
