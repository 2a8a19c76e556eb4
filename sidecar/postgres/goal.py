"""What the replicated state and the lease ask of this host's database.

Pure. The state says who is primary, under which number; the lease says whether this host may act at
all; its own promise says from whom it may receive no more. What follows from that is the goal, and how
to get there from what is found on the host is the table of `decide`.

Absent here: what only a primary knows of its standbys (`primaryship`), which completes its own goal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import DatabaseRecord
from mesh.state.model import Ownership
from sidecar.postgres.model import NO_TERM, Ancestor, Goal, GoalKind, Lsn, Timeline, TimelineHistory


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


def goal_of(
    record: DatabaseRecord | None,
    owner: Ownership | None,
    standing: HostStanding,
    addresses: Mapping[HostId, str],
    peers: tuple[HostId, ...] = (),
) -> Goal:
    """What this host is to bring about now.

    `addresses`: where hosts said that their server is reached. `peers`: the other data hosts. A primary
    that is not recorded yet, or has not said where it is reached, cannot be followed.
    """
    if record is None or not standing.holds_data:
        return Goal(GoalKind.NOTHING)
    identifier = record.system_identifier
    if owner is None or owner.holder is None:
        return Goal(GoalKind.HOLD, system_identifier=identifier)
    term = owner.fencing_term
    if owner.holder == standing.host:
        return _own_goal(owner, standing, identifier, peers)
    if standing.sealed_under >= term:
        return Goal(GoalKind.SEALED, term, identifier)
    address = addresses.get(owner.holder, "")
    if not identifier or not address or record.primary_term != term:
        return Goal(GoalKind.HOLD, term, identifier)
    return Goal(
        GoalKind.FOLLOW,
        term,
        identifier,
        primary=owner.holder,
        address=address,
        primary_history=recorded_history(record),
        peers=peers,
    )


def recorded_history(record: DatabaseRecord) -> TimelineHistory:
    """Where the newest recorded timeline came from."""
    ancestors = tuple(Ancestor(Timeline(number), Lsn(end)) for number, end in record.history)
    return TimelineHistory(Timeline(record.timeline), ancestors)


def _own_goal(owner: Ownership, standing: HostStanding, identifier: str, peers: tuple[HostId, ...]) -> Goal:
    """Of the host that the state names: it acts, or nothing of it may be left."""
    term = owner.fencing_term
    if not standing.lease_live or term in tuple(standing.released):
        return Goal(GoalKind.FENCED, term, identifier)
    if owner.successor not in (None, standing.host):
        # What is not made yet has nothing that a successor would need.
        return Goal(GoalKind.HAND_OVER if identifier else GoalKind.FENCED, term, identifier)
    if not identifier:
        return Goal(GoalKind.BOOTSTRAP, term)
    return Goal(GoalKind.PRIMARY, term, identifier, peers=peers)
