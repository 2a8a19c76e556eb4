"""Which host's database may go down next for its own good: one at a time, and none that commits need.

Pure. A host says what it wants (`DatabaseStatus.wants`); from the replicated state everybody finds the
same host, and that one acts when it finds itself. Those whose data are damaged come first. What is declared
comes into force by a start of every standby, then of the primary: what a standby refuses the primary
never sees, and a standby always has at least what its primary has. What is lowered comes the other way round.

Invariant: nobody has a turn while the primary is moved or does not serve, nor where fewer standbys than
a commit needs would be left. Hosts want in one step of the state what they want of one declaration, so that
the order among them does not change under way.
Absent here: how a host takes its turn (driver), and how a primary hands over (leading).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.ids import PRIMARY, HostId
from mesh.state import ClusterState
from mesh.state.database_checks import data_hosts
from mesh.state.database_model import DatabaseRecord, DatabaseRole, DatabaseStatus, Wants
from mesh.state.model import HostStatus, Ownership

_RESTARTS = (Wants.RESTART, Wants.RESTART_LATER)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose it is, or why nobody's. Nobody, without a reason: nothing is wanted."""

    host: HostId | None = None
    reason: str = ""


def turn_in(state: ClusterState) -> Turn:
    """Whose turn it is by the replicated state."""
    record, owner = state.database, state.owners.get(PRIMARY)
    if record is None or owner is None:
        return Turn()
    statuses = {row.host: row.status for row in state.database_members.values()}
    lost = [row.host for row in state.hosts.values() if row.status is HostStatus.LOST]
    return whose_turn(record, owner, statuses, data_hosts(state), lost)


def whose_turn(
    record: DatabaseRecord,
    owner: Ownership,
    statuses: Mapping[HostId, DatabaseStatus],
    hosts: Collection[HostId],
    lost: Collection[HostId],
) -> Turn:
    """The one host that may go down now. *lost* ones are waited for only where commits need them."""
    wanting = {host: statuses[host].wants for host in hosts if host in statuses and host not in lost}
    wanting = {host: wants for host, wants in wanting.items() if wants is not Wants.NOTHING}
    if not wanting:
        return Turn()
    primary = owner.holder
    if primary is None or owner.successor not in (None, primary) or not _serves(owner, statuses.get(primary)):
        return Turn(None, "waits until a primary takes writes")
    standbys = [host for host in hosts if host != primary and host not in lost]
    away = [host for host in standbys if not _follows(owner, statuses.get(host))]
    if away:
        return Turn(None, f"waits for {', '.join(sorted(away))} to stream")
    damaged = sorted(host for host, wants in wanting.items() if wants is Wants.COPY)
    if damaged:
        return _damaged_turn(record, primary, damaged, standbys)
    return _restart_turn(record, primary, wanting, statuses, standbys)


def _serves(owner: Ownership, status: DatabaseStatus | None) -> bool:
    is_primary = status is not None and status.role is DatabaseRole.PRIMARY
    return is_primary and status is not None and status.is_open and status.fencing_term == owner.fencing_term


def _follows(owner: Ownership, status: DatabaseStatus | None) -> bool:
    return status is not None and status.is_streaming and status.fencing_term == owner.fencing_term


def _damaged_turn(
    record: DatabaseRecord, primary: HostId, damaged: list[HostId], standbys: list[HostId]
) -> Turn:
    """A copy is made from the primary: one that is damaged itself hands over before."""
    if primary in damaged:
        if set(standbys) <= set(damaged):
            return Turn(None, "waits for a standby whose data are not damaged")
        return Turn(primary, "its turn: it hands over, to be copied anew")
    return _of_standby(record, damaged[0], standbys, "it is copied anew")


def _restart_turn(
    record: DatabaseRecord,
    primary: HostId,
    wanting: Mapping[HostId, Wants],
    statuses: Mapping[HostId, DatabaseStatus],
    standbys: list[HostId],
) -> Turn:
    everybody = sorted([primary, *standbys])
    refusing = [host for host in everybody if statuses[host].parameters_refused == record.version]
    if refusing:
        return Turn(None, f"not while {refusing[0]} refuses what is declared")
    behind = [host for host in everybody if statuses[host].parameters_version != record.version]
    if behind:
        return Turn(None, f"waits for {', '.join(behind)} to load what is declared")
    first = sorted(host for host in standbys if wanting.get(host) is Wants.RESTART)
    if first:
        return _of_standby(record, first[0], standbys, "it starts anew")
    if wanting.get(primary) in _RESTARTS:
        if len(standbys) < record.spec.standbys_needed:
            return Turn(None, _too_few(record))
        return Turn(primary, "its turn: it starts anew")
    return _of_standby(record, min(wanting), standbys, "it starts anew")


def _of_standby(record: DatabaseRecord, host: HostId, standbys: list[HostId], does: str) -> Turn:
    if len(standbys) - 1 < record.spec.standbys_needed:
        return Turn(None, _too_few(record))
    return Turn(host, f"its turn: {does}")


def _too_few(record: DatabaseRecord) -> str:
    needed = record.spec.standbys_needed
    return f"waits for another standby: commits need {needed} that {'stream' if needed > 1 else 'streams'}"
