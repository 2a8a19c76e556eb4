"""Stories for the checkers of what hosts do: act, lead, remove each other, fill their queues."""

from typing import Final

from mesh.raft.model import Standing
from tests.sim.checkers.acting_under_lease import ActingUnderLease
from tests.sim.checkers.fencing_terms import FencingTerms
from tests.sim.checkers.gives_up_in_time import GivesUpInTime
from tests.sim.checkers.grants_by_the_rules import GrantsByTheRules
from tests.sim.checkers.leases_of_one_term import LeasesOfOneTerm
from tests.sim.checkers.one_owner import OneOwner
from tests.sim.checkers.questions import Questions
from tests.sim.checkers.queues import QueueBounds
from tests.sim.checkers.released_is_gone import ReleasedIsGone
from tests.sim.checkers.removed_members import RemovedMembers
from tests.sim.told import (
    TWO,
    Stories,
    acted,
    asks,
    committed,
    ended,
    granted,
    leads,
    leased,
    owned,
    queues,
    raised,
    released,
    removed,
    start,
    stopped,
    told,
)  # fmt: skip
from tests.sim.trace import Checker

SECOND: Final = 1_000_000_000

STORIES: dict[type[Checker], Stories] = {
    OneOwner: Stories(
        kept={"one after another": [acted("a", 1), acted("a", 2), stopped("a", 2), acted("b", 3)]},
        broken={"both": [acted("a", 1), stopped("b", 2), acted("b", 2)]},
    ),
    FencingTerms: Stories(
        kept={
            "rising": [
                owned("a", 2, "a", 1), acted("a", 1), owned("a", 5, "b", 2), owned("b", 2, "a", 1),
                owned("b", 5, "b", 2), acted("b", 2),
            ],
        },
        broken={
            "acts under a former term": [
                owned("a", 2, "a", 1), owned("b", 5, "b", 2), acted("b", 2), stopped("b", 2),
                acted("a", 1),
            ],
            "acts under another's term": [owned("a", 2, "a", 1), acted("b", 1)],
            "acts under no term": [acted("a", 1)],
            "a term names two": [owned("a", 2, "a", 1), owned("a", 3, "b", 1)],
            "terms fall along the log": [owned("a", 2, "a", 4), owned("a", 3, "b", 3)],
        },
    ),
    ActingUnderLease: Stories(
        now_ns=10 * SECOND,
        kept={
            "while it runs": [start("a"), leased("a", 11 * SECOND), acted("a", 1)],
            "decided just before its end": [leased("a", 10 * SECOND - 1), acted("a", 1)],
        },
        broken={
            "never had one": [start("a"), acted("a", 1)],
            "ran out": [leased("a", 9 * SECOND), acted("a", 1)],
            "of a former life": [leased("a", 11 * SECOND), start("a"), acted("a", 1)],
            "another's": [leased("b", 11 * SECOND), acted("a", 1)],
        },
    ),
    LeasesOfOneTerm: Stories(
        now_ns=10 * SECOND,
        kept={
            "it had run out": [leads("a", 2), leased("a", 10 * SECOND), leads("b", 3), granted("b", 3, "c")],
            "it died": [leads("a", 2), leased("a", 11 * SECOND), start("a"), leads("b", 3)],
            "it had decided before, and stood still": [
                leads("a", 2), leads("b", 3)._replace(at_ns=5), granted("a", 2, "c", 4)._replace(at_ns=6),
            ],
            "nobody had waited": [
                leads("a", 2), leased("a", 11 * SECOND), leads("b", 3)._replace(stood_for=Standing.TRANSFER),
            ],
        },
        broken={
            "it runs": [leads("a", 2), leased("a", 11 * SECOND), leads("b", 3)],
            "the former one grants": [leads("a", 2), leads("b", 3), granted("a", 2, "c")],
        },
    ),
    GrantsByTheRules: Stories(
        kept={
            "knows, and grants": [
                committed("a", TWO), leads("a", 2), leased("a", SECOND), granted("a", 2, "b"),
                leased("b", SECOND),
            ],
            "learnt it before it granted": [
                committed("b", TWO), leads("a", 2), committed("a", TWO), granted("a", 2, "b"),
            ],
            "a grant of a later term than the host knows": [granted("a", 3, "b"), leased("b", SECOND)],
            "its first grant in its new term": [
                granted("a", 2, "b"), raised("b", 3, "c"), granted("c", 3, "b"), leased("b", SECOND),
            ],
        },
        broken={
            "grants and does not know": [committed("b", TWO), leads("a", 2), granted("a", 2, "b")],
            "acts itself and does not know": [committed("b", TWO), leads("a", 2), leased("a", SECOND)],
            "nobody granted": [leased("b", SECOND)],
            "granted to its former life": [granted("a", 2, "b"), start("b"), leased("b", SECOND)],
            "granted in a term that it has left": [
                granted("a", 2, "b"), raised("b", 3, "c"), leased("b", SECOND),
            ],
            "longer than granted": [
                granted("a", 2, "b"), leased("b", SECOND)._replace(at_ns=SECOND // 2, left_ns=SECOND),
            ],
        },
    ),
    ReleasedIsGone: Stories(
        kept={
            "stopped before": [acted("a", 1), stopped("a", 1), released("a", 1), acted("a", 2)],
            "an older number than it acts under": [acted("a", 2), released("a", 1)],
            "its next life knows nothing of it": [released("a", 1), start("a"), acted("a", 1)],
            "another host's": [acted("a", 2), released("b", 1)],
        },
        broken={
            "it acts": [acted("a", 1), released("a", 1)],
            "it begins again": [acted("a", 1), stopped("a", 1), released("a", 1), acted("a", 1)],
        },
    ),
    GivesUpInTime: Stories(
        kept={"told to end": [ended("a", "")], "its disk": [ended("a", "StorageFailed")]},
        broken={"out of patience": [ended("a", "Unavailable")]},
    ),
    RemovedMembers: Stories(
        kept={
            "a member": [removed("a", "c"), raised("a", 2, "b")],
            "one that had not heard": [removed("a", "c"), raised("b", 2, "c")],
            "its next incarnation": [removed("a", "c"), raised("a", 2, "c.2")],
            "a write asked before": [
                start("a"), leads("b", 1), asks(1, "put"), removed("b", "a")._replace(at_ns=2),
                committed("b", TWO), told(1, 1, index=2),
            ],
            "a write to a leader that had not heard": [
                start("a"), leads("b", 1), removed("c", "a")._replace(at_ns=-2), asks(1, "put"),
                committed("b", TWO), told(1, 1, index=2),
            ],
        },
        broken={
            "removed": [removed("a", "c"), raised("a", 2, "c")],
            "a write asked afterwards": [
                *(start(each, new=True) for each in "ab"), leads("b", 1),
                removed("b", "a")._replace(at_ns=-2), asks(1, "put"), committed("b", TWO),
                told(1, 1, index=2),
            ],
        },
    ),
    Questions: Stories(
        kept={"told of a term": [raised("a", 2, "b")]},
        broken={"asked about a term": [raised("a", 2, "b", was_asked=True)]},
    ),
    QueueBounds: Stories(
        kept={"full": [queues("outbox", 512, 512), queues("of a test", 3, 3)]},
        broken={
            "too full": [queues("of a test", 4, 3)],
            "a bound above the one that is written down": [queues("outbox", 600, 1_000)],
        },
    ),
}  # fmt: skip
