"""The promises of a cluster, one small checker each, and the way events come to them.

A checker sees the events it wants, does a little work for each, and raises `Violation`. Each says in its
docstring what it proves and what it would not notice, and has a test in which it raises.
"""

from collections.abc import Callable, Iterable
from typing import Final

from tests.sim.checkers.acknowledged_commits import AcknowledgedCommits
from tests.sim.checkers.acknowledged_writes import AcknowledgedWrites
from tests.sim.checkers.acting_under_lease import ActingUnderLease
from tests.sim.checkers.committed_is_durable import CommittedIsDurable
from tests.sim.checkers.elected_by_quorum import ElectedByQuorum
from tests.sim.checkers.election_safety import ElectionSafety
from tests.sim.checkers.exactly_once import ExactlyOnce
from tests.sim.checkers.fencing_terms import FencingTerms
from tests.sim.checkers.gives_up_in_time import GivesUpInTime
from tests.sim.checkers.grants_by_the_rules import GrantsByTheRules
from tests.sim.checkers.leader_completeness import LeaderCompleteness
from tests.sim.checkers.leases_of_one_term import LeasesOfOneTerm
from tests.sim.checkers.linearizable import Linearizable
from tests.sim.checkers.log_matching import LogMatching
from tests.sim.checkers.minority import Minority
from tests.sim.checkers.no_stale_read import NoStaleRead
from tests.sim.checkers.one_owner import OneOwner
from tests.sim.checkers.one_primary_acknowledges import OnePrimaryAcknowledges
from tests.sim.checkers.published_quorums import PublishedQuorums
from tests.sim.checkers.questions import Questions
from tests.sim.checkers.queues import QueueBounds
from tests.sim.checkers.released_is_gone import ReleasedIsGone
from tests.sim.checkers.removed_members import RemovedMembers
from tests.sim.checkers.safe_from_elections import SafeFromElections
from tests.sim.checkers.snapshots_of_members import SnapshotsOfMembers
from tests.sim.checkers.state_machine_safety import StateMachineSafety
from tests.sim.checkers.timelines_once import TimelinesOnce
from tests.sim.checkers.votes_and_terms import VotesAndTerms
from tests.sim.trace import Checker, Event, Facts

ALL_CHECKERS: Final[tuple[type[Checker], ...]] = (
    VotesAndTerms,
    ElectionSafety,
    ElectedByQuorum,
    LogMatching,
    LeaderCompleteness,
    CommittedIsDurable,
    SafeFromElections,
    SnapshotsOfMembers,
    StateMachineSafety,
    Minority,
    OneOwner,
    FencingTerms,
    ActingUnderLease,
    ReleasedIsGone,
    GivesUpInTime,
    LeasesOfOneTerm,
    GrantsByTheRules,
    RemovedMembers,
    Questions,
    AcknowledgedWrites,
    NoStaleRead,
    ExactlyOnce,
    QueueBounds,
    Linearizable,
    AcknowledgedCommits,
    OnePrimaryAcknowledges,
    PublishedQuorums,
    TimelinesOnce,
)


class Checking:
    """All checkers of one run. Fails: `Violation`, of the first that finds one."""

    def __init__(self, facts: Facts, checkers: Iterable[type[Checker]] = ALL_CHECKERS) -> None:
        self.checkers = [each(facts) for each in checkers if each.name not in facts.suspended]
        self._by_kind: dict[type[Event], tuple[Callable[[Event], None], ...]] = {}
        for checker in self.checkers:
            for kind in checker.wants:
                self._by_kind[kind] = (*self._by_kind.get(kind, ()), checker.seen)

    def seen(self, event: Event) -> None:
        """Tell an event to all who want its kind."""
        for tell in self._by_kind.get(type(event), ()):
            tell(event)

    def finished(self, at_ns: int) -> None:
        """The run is over."""
        for checker in self.checkers:
            checker.finished(at_ns)
