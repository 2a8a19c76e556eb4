"""Stories for the checkers of what hosts do: act, lead, remove each other, fill their queues."""

from typing import Final

from mesh.raft.model import Standing
from tests.sim.checkers.acting_under_lease import ActingUnderLease
from tests.sim.checkers.fencing_terms import FencingTerms
from tests.sim.checkers.leases_of_one_term import LeasesOfOneTerm
from tests.sim.checkers.one_owner import OneOwner
from tests.sim.checkers.questions import Questions
from tests.sim.checkers.queues import QueueBounds
from tests.sim.checkers.removed_members import RemovedMembers
from tests.sim.told import (
    Stories,
    acted,
    granted,
    leads,
    leased,
    owned,
    queues,
    raised,
    removed,
    start,
    stopped,
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
            "nobody had waited": [
                leads("a", 2), leased("a", 11 * SECOND), leads("b", 3)._replace(stood_for=Standing.TRANSFER),
            ],
        },
        broken={
            "it runs": [leads("a", 2), leased("a", 11 * SECOND), leads("b", 3)],
            "the former one grants": [leads("a", 2), leads("b", 3), granted("a", 2, "c")],
        },
    ),
    RemovedMembers: Stories(
        kept={
            "a member": [removed("a", "c"), raised("a", 2, "b")],
            "one that had not heard": [removed("a", "c"), raised("b", 2, "c")],
            "its next incarnation": [removed("a", "c"), raised("a", 2, "c.2")],
        },
        broken={"removed": [removed("a", "c"), raised("a", 2, "c")]},
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
