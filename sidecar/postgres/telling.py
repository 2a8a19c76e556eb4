"""What a host says of its database, from one look at it: to the cluster, and when it is sealed. Pure."""

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import DatabaseRole, DatabaseStatus, Lag, lag_class
from sidecar.postgres.model import (
    NO_TERM,
    NO_TIMELINE,
    DataKind,
    Goal,
    GoalKind,
    LocalState,
    ProcessKind,
    SealReport,
    TimelineHistory,
)
from sidecar.postgres.port import Sight

_UNKNOWN_HISTORY = TimelineHistory(NO_TIMELINE)
_ROLE_OF = {
    ProcessKind.STARTING: DatabaseRole.RECOVERING,
    ProcessKind.RECOVERING: DatabaseRole.RECOVERING,
    ProcessKind.STANDBY: DatabaseRole.STANDBY,
    ProcessKind.PRIMARY: DatabaseRole.PRIMARY,
}


def role_of(sight: Sight, *, is_preparing: bool) -> DatabaseRole:
    """What its database is. *is_preparing*: it is being made, copied or rewound."""
    if is_preparing:
        return DatabaseRole.PREPARING
    process, data = sight.local.process, sight.local.data
    if process.kind is not ProcessKind.DOWN:
        return _ROLE_OF[process.kind]
    if data.kind is DataKind.PRESENT:
        return DatabaseRole.STOPPED
    return DatabaseRole.NONE if data.kind is DataKind.NONE else DatabaseRole.PREPARING


def told_term(goal: Goal, local: LocalState) -> FencingTerm:
    """The primaryship that it acts in or receives from; else the last that it is sealed at."""
    match goal.kind:
        case GoalKind.PRIMARY | GoalKind.BOOTSTRAP | GoalKind.HAND_OVER:
            return goal.fencing_term
        case GoalKind.FENCED:
            return max(goal.fencing_term, local.sealed_under)
        case GoalKind.FOLLOW if local.process.receives_from == goal.primary:
            return goal.fencing_term
        case _:
            return local.sealed_under


def status_of(
    sight: Sight,
    *,
    is_preparing: bool,
    fencing_term: FencingTerm,
    address: str,
    health: str,
    before: DatabaseStatus | None,
) -> DatabaseStatus:
    """What the cluster is told. *before*: what it was told last, so that a lag at a bound is no news."""
    role, process, data = role_of(sight, is_preparing=is_preparing), sight.local.process, sight.local.data
    is_streaming = role is DatabaseRole.STANDBY and process.receives_from is not None
    lag = lag_class(sight.behind, before.lag if before else Lag.UNKNOWN) if is_streaming else Lag.UNKNOWN
    return DatabaseStatus(
        role=role,
        health=health or sight.problem,
        system_identifier=data.system_identifier,
        timeline=data.history.timeline if data.history is not None else NO_TIMELINE,
        is_streaming=is_streaming,
        is_open=role is DatabaseRole.PRIMARY and process.is_open,
        lag=lag,
        address=address,
        version=sight.version,
        fencing_term=fencing_term,
        is_leftover=data.is_leftover,
        wants=sight.wants,
    )


def report_of(host: HostId, sight: Sight) -> SealReport:
    """What a sealed host has. Order: *sight* was taken after the promise, and after the receiver was gone."""
    local = sight.local
    data, process = local.data, local.process
    damaged = data.damaged
    if data.kind is not DataKind.PRESENT or data.history is None:
        damaged = damaged or "it has no whole data"
    is_running = process.kind is ProcessKind.STANDBY
    was_primary = data.was_primary and not is_running
    return SealReport(
        host=host,
        fencing_term=local.sealed_under,
        system_identifier=data.system_identifier,
        history=data.history or _UNKNOWN_HISTORY,
        flushed=process.flushed if is_running else data.end,
        damaged=damaged,
        # What a stopped standby has, only a recovery tells: it is being started for that.
        catching_up=sight.is_catching_up if is_running else not was_primary and not damaged,
        primary_term=data.primary_term if was_primary else NO_TERM,
        ended_cleanly=was_primary and data.is_clean,
    )


def is_final(report: SealReport) -> bool:
    """Asking again brings nothing new."""
    return bool(report.damaged) or not report.catching_up
