"""Small worlds hold no violation, and a planted bug is one."""

from dataclasses import replace

import pytest

from tests.explorer.main import explore_one
from tests.explorer.paths import tell
from tests.explorer.planted import PLANTED, planted
from tests.explorer.search import Limits, Report, Search
from tests.explorer.stage import FineStage
from tests.explorer.walks import search_of
from tests.explorer.worlds import SMALL, WORLDS, World
from tests.raft.story import Block, read_story


def narrow(name: str, **bounds: int) -> World:
    return replace(WORLDS[name], **bounds)  # type: ignore[arg-type] # bounds are numbers


#: Where each planted bug shows, and within how many distinct states at most.
SHOWS_IN = {
    "vote-not-persisted": (WORLDS["election"], 5_000),
    "two-votes-in-a-term": (WORLDS["election"], 2_000),
    "vote-for-a-shorter-log": (narrow("rival", rounds=1, crashes=0), 20_000),
    "older-term-committed-by-counting": (narrow("figure-8", crashes=0), 120_000),
    "leader-counts-what-is-not-durable": (WORLDS["slow-disks"], 1_000),
    "promise-before-durable": (WORLDS["slow-disks"], 1_000),
    "durable-by-index-alone": (narrow("slow-disks", rounds=1), 200_000),
    "a-late-append-truncates": (WORLDS["three-led"], 80_000),
    "joint-state-with-one-majority": (WORLDS["shrink"], 1_000),
    "read-without-a-round": (narrow("reads", reads=1, proposals=0, duplicates=0), 80_000),
    "read-in-an-earlier-round": (narrow("reads", reads=1, proposals=0, duplicates=0), 80_000),
    "read-before-first-commit": (narrow("reads-uneven", crashes=0), 100_000),
    "promises-not-kept": (narrow("leases", crashes=0, proposals=0, transfers=0), 200_000),
    "lease-in-spite-of-a-transfer": (WORLDS["leases"], 20_000),
}


def ignore(report: Report) -> None:
    """No progress is shown."""


@pytest.mark.integration
def test_small_worlds_hold_no_violation() -> None:
    """Goal: no property fails in any state of these worlds. Method: visit all of them."""
    reports = [explore_one(world, Limits()) for world in SMALL.values()]
    assert [report.found for report in reports] == [None] * len(reports)
    assert all(report.is_complete for report in reports)
    assert sum(report.states for report in reports) >= 200_000


def test_every_planted_bug_has_a_world() -> None:
    """Goal: none is forgotten. Method: compare the lists."""
    assert sorted(SHOWS_IN) == sorted(PLANTED)


@pytest.mark.integration
@pytest.mark.parametrize("bug", sorted(SHOWS_IN))
def test_a_planted_bug_is_found(bug: str) -> None:
    """Goal: the explorer can fail. Method: remove one guard from the core and search until it shows."""
    world, states = SHOWS_IN[bug]
    with planted(bug):
        report = search_of(world).run(Limits(states=states), ignore)
    assert report.found is not None, f"{report.states} states, depth {report.depth}"
    print(f"{bug}: {report.found.states} states, {len(report.found.path)} moves: {report.found.violation}")


def story_of(bug: str) -> str:
    with planted(bug):
        search: Search = search_of(SHOWS_IN[bug][0])
        report = search.run(Limits(states=5_000), ignore)
        assert report.found is not None
        return tell(search, report.found.path, report.found.violation)


@pytest.mark.parametrize("bug", ["vote-not-persisted", "two-votes-in-a-term"])
def test_a_violation_becomes_a_story_that_shows_it(bug: str) -> None:
    """Goal: what is printed can be kept as a regression test.

    Method: play it, with other machines and without the table: with the bug all is as written,
    without it is not.
    """
    blocks = read_story(story_of(bug))
    written = [block.expected for block in blocks]
    with planted(bug):
        assert [play(block, stage) for stage in [FineStage()] for block in blocks] == written
    assert [play(block, stage) for stage in [FineStage()] for block in blocks] != written


def play(block: Block, stage: FineStage) -> list[str]:
    return [line for command in block.commands for line in stage.run(command)] or ["ok"]
