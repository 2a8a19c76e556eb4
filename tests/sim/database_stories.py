"""Stories for the checkers of the database: acknowledge, publish, promote, open."""

from collections.abc import Iterable
from typing import Final

from mesh.ids import FencingTerm, HostId
from tests.sim.checkers.acknowledged_commits import AcknowledgedCommits
from tests.sim.checkers.one_primary_acknowledges import OnePrimaryAcknowledges
from tests.sim.checkers.published_quorums import PublishedQuorums
from tests.sim.checkers.timelines_once import TimelinesOnce
from tests.sim.postgres.events import Acknowledged, Branched, Held, Opened, Published
from tests.sim.told import Stories
from tests.sim.trace import Checker


def acknowledged(host: str, number: int, term: int = 1, lacking: str = "", quorum: int = 2) -> Acknowledged:
    lacks = tuple(map(HostId, lacking))
    return Acknowledged(0, HostId(host), term, FencingTerm(term), number, lacks, quorum)


def opened(host: str, term: int, *numbers: int) -> Opened:
    return Opened(0, HostId(host), term, FencingTerm(term), Held(set(numbers)))


def published(version: int, quorum: int, **held: Iterable[int]) -> Published:
    voters = tuple((HostId(host), Held(set(numbers))) for host, numbers in held.items())
    return Published(0, HostId("a"), version, voters, quorum)


def branched(host: str, timeline: int, identifier: str = "7") -> Branched:
    return Branched(0, HostId(host), identifier, timeline, 100)


STORIES: Final[dict[type[Checker], Stories]] = {
    AcknowledgedCommits: Stories(
        kept={"has more than that": [acknowledged("a", 1), opened("b", 2, 1, 2)]},
        broken={"one is missing": [acknowledged("a", 1), acknowledged("a", 2), opened("b", 2, 1)]},
    ),
    OnePrimaryAcknowledges: Stories(
        kept={
            "one after the other": [acknowledged("a", 1), acknowledged("b", 2, 2), acknowledged("b", 3, 3)]
        },
        broken={
            "the old one goes on": [acknowledged("a", 1), acknowledged("b", 2, 2), acknowledged("a", 3)],
            "two under one number": [acknowledged("a", 1), acknowledged("b", 2)],
        },
    ),
    PublishedQuorums: Stories(
        kept={
            "every quorum has it": [
                acknowledged("a", 1, lacking="b"),
                published(2, 2, b=[], c=[1]),
                published(3, 1, c=[1]),
            ],
            "nobody may be promoted": [acknowledged("a", 1, lacking="bc", quorum=0)],
        },
        broken={
            "acknowledged by too few": [acknowledged("a", 1, lacking="bc")],
            "published too early": [acknowledged("a", 1, lacking="b"), published(2, 1, b=[], c=[1])],
        },
    ),
    TimelinesOnce: Stories(
        kept={"rising, and of another database": [branched("a", 2), branched("b", 4), branched("b", 2, "8")]},
        broken={"twice": [branched("a", 2), branched("b", 2)], "the first": [branched("a", 1)]},
    ),
}
