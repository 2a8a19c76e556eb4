"""What hosts reported of their instances and databases, kept by the leader until it is replicated."""

from dataclasses import dataclass, field

from mesh.ids import HostId, InstanceId, MemberId
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceState, InstanceStatus


@dataclass(slots=True)
class HostReport:
    """One host's instances and its database as it last told them.

    `complete`: everything the host runs is here, so what the state knows beyond it is gone.
    """

    member: MemberId
    instances: dict[InstanceId, InstanceStatus] = field(default_factory=dict)
    complete: bool = False
    #: None: it has none, or (unless `complete`) has not said.
    database: DatabaseStatus | None = None


class Reports:
    """All hosts' reports of one leadership. Bound: one status per instance of each host."""

    def __init__(self) -> None:
        self._hosts: dict[HostId, HostReport] = {}
        #: Rises whenever something in here has changed.
        self.revision = 0

    def take(
        self,
        host: HostId,
        member: MemberId,
        statuses: tuple[InstanceStatus, ...],
        *,
        complete: bool,
        database: DatabaseStatus | None = None,
    ) -> bool:
        """Note what a host says; True when it is news. No `database`: as before, or none when `complete`."""
        report = self._hosts.get(host)
        if complete or report is None or report.member != member:
            instances = {status.instance: status for status in statuses}
            fresh = HostReport(member, instances, complete, database)
            changed = report is None or report != fresh
            self._hosts[host] = fresh
            self.revision += changed
            return changed
        for status in statuses:
            if status.state is InstanceState.STOPPED:
                report.instances.pop(status.instance, None)
            else:
                report.instances[status.instance] = status
        is_news = bool(statuses) or database is not None
        report.database = database or report.database
        self.revision += is_news
        return is_news

    def forget(self, host: HostId) -> None:
        """The host is lost or removed; its next report starts anew."""
        self._hosts.pop(host, None)
        self.revision += 1

    def items(self) -> tuple[tuple[HostId, HostReport], ...]:
        """Every host's report, by name."""
        return tuple(sorted(self._hosts.items()))
