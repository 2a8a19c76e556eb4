"""Each checker is told stories in which its promise is kept, and others in which it is broken."""

import sys

import pytest

from tests.sim import client_stories, database_stories, host_stories, log_stories
from tests.sim.checkers import ALL_CHECKERS, Checking
from tests.sim.checkers.election_safety import ElectionSafety
from tests.sim.told import facts, leads, tell
from tests.sim.trace import Checker, Event, Violation

STORIES = {
    **log_stories.STORIES,
    **host_stories.STORIES,
    **client_stories.STORIES,
    **database_stories.STORIES,
}


def cases(*, broken: bool) -> list[object]:
    return [
        pytest.param(kind, name, id=f"{kind.name}: {name}")
        for kind, stories in STORIES.items()
        for name in (stories.broken if broken else stories.kept)
    ]


@pytest.mark.parametrize(("kind", "name"), cases(broken=True))
def test_a_checker_raises_when_its_promise_is_broken(kind: type[Checker], name: str) -> None:
    """Goal: no checker that cannot fail. Method: events that break the promise, for each way to break it."""
    stories = STORIES[kind]
    with pytest.raises(Violation) as raised_violation:
        tell(kind(facts(stories.now_ns)), stories.broken[name])
    assert raised_violation.value.checker == kind.name
    print(raised_violation.value)


@pytest.mark.parametrize(("kind", "name"), cases(broken=False))
def test_a_checker_is_silent_when_its_promise_is_kept(kind: type[Checker], name: str) -> None:
    """Goal: no false alarm. Method: events that come close to breaking the promise."""
    stories = STORIES[kind]
    tell(kind(facts(stories.now_ns)), stories.kept[name])


def test_every_checker_has_stories_and_a_name_of_its_own() -> None:
    """Goal: none is forgotten here. Method: compare with the list that simulations use."""
    assert set(STORIES) == set(ALL_CHECKERS)
    assert all(stories.kept and stories.broken for stories in STORIES.values())
    assert len({each.name for each in ALL_CHECKERS}) == len(ALL_CHECKERS)
    assert all("Would not notice" in (sys.modules[each.__module__].__doc__ or "") for each in ALL_CHECKERS)


def test_events_reach_the_checkers_that_want_them_unless_suspended() -> None:
    """Goal: the way to the checkers. Method: a broken promise, with its checker suspended and not."""
    events: list[Event] = [leads("a", 2), leads("b", 2)]
    both = Checking(facts())
    both.seen(events[0])
    with pytest.raises(Violation):
        both.seen(events[1])
    without = Checking(facts(suspended=[ElectionSafety.name]))
    for event in events:
        without.seen(event)
    without.finished(0)
