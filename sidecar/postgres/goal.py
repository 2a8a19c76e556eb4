"""What the replicated state and the lease ask of this host's database.

Pure. The state says who is primary, under which number; the lease says whether this host may act at
all; its own promise says from whom it may receive no more. What follows from that is the goal, and how
to get there from what is found on the host is the table of `decide`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import DatabaseRecord, DatabaseStatus
from mesh.state.model import Ownership
from sidecar.postgres.model import NO_TERM, Goal, GoalKind, TimelineHistory


@dataclass(frozen=True, slots=True)
class HostStanding:
    """What this host knows of itself, beside the applied state."""

    host: HostId
    #: It is declared to hold data, and its settings say where.
    holds_data: bool
    #: The lease has more than its margin left.
    lease_live: bool
    #: Numbers of primaryships that it has told the leader to have given up.
    released: Iterable[FencingTerm] = ()
    #: Its durable promise: nothing is received from a primaryship of this number or a lower one.
    sealed_under: FencingTerm = NO_TERM
    #: The sidecar is about to end.
    leaving: bool = False


def goal_of(
    record: DatabaseRecord | None,
    owner: Ownership | None,
    standing: HostStanding,
    statuses: Mapping[HostId, DatabaseStatus],
    histories: Mapping[HostId, TimelineHistory],
) -> Goal:
    """What this host is to bring about now.

    `statuses` are what hosts reported last; `histories` what is known of the timelines that primaries
    write. A primary that has not reported where it is reached cannot be followed yet.
    """
    if record is None or not standing.holds_data:
        return Goal(GoalKind.NOTHING)
    identifier = record.system_identifier
    if owner is None or owner.holder is None:
        return Goal(GoalKind.HOLD, system_identifier=identifier)
    term = owner.fencing_term
    if owner.holder == standing.host:
        return _own_goal(owner, standing, identifier)
    if standing.sealed_under >= term:
        return Goal(GoalKind.SEALED, term, identifier)
    status = statuses.get(owner.holder)
    if not identifier or status is None or not status.address or status.fencing_term != term:
        return Goal(GoalKind.HOLD, term, identifier)
    return Goal(
        GoalKind.FOLLOW,
        term,
        identifier,
        primary=owner.holder,
        address=status.address,
        primary_history=histories.get(owner.holder),
    )


def _own_goal(owner: Ownership, standing: HostStanding, identifier: str) -> Goal:
    """Of the host that the state names: it acts, or nothing of it may be left."""
    term = owner.fencing_term
    is_handed_over = owner.successor not in (None, standing.host)
    may_act = standing.lease_live and not is_handed_over and not standing.leaving
    if not may_act or term in tuple(standing.released):
        return Goal(GoalKind.FENCED, term, identifier)
    if not identifier:
        return Goal(GoalKind.BOOTSTRAP, term)
    return Goal(GoalKind.PRIMARY, term, identifier)
