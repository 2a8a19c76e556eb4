"""What hosts reported of their instances, kept by the leader until it is replicated."""

from dataclasses import dataclass, field

from mesh.ids import HostId, InstanceId, MemberId
from mesh.state.service import InstanceState, InstanceStatus


@dataclass(slots=True)
class HostReport:
    """One host's instances as it last told them.

    `complete`: everything the host runs is in `instances`, so what the state
    knows beyond it is gone.
    """

    member: MemberId
    instances: dict[InstanceId, InstanceStatus] = field(default_factory=dict)
    complete: bool = False


class Reports:
    """All hosts' reports of one leadership. Bound: one status per instance of each host."""

    def __init__(self) -> None:
        self._hosts: dict[HostId, HostReport] = {}
        #: Rises whenever something in here has changed.
        self.revision = 0

    def take(
        self, host: HostId, member: MemberId, statuses: tuple[InstanceStatus, ...], *, complete: bool
    ) -> bool:
        """Note what a host says; True when it is news."""
        report = self._hosts.get(host)
        if complete or report is None or report.member != member:
            fresh = HostReport(member, {status.instance: status for status in statuses}, complete)
            changed = report is None or report != fresh
            self._hosts[host] = fresh
            self.revision += changed
            return changed
        for status in statuses:
            if status.state is InstanceState.STOPPED:
                report.instances.pop(status.instance, None)
            else:
                report.instances[status.instance] = status
        self.revision += bool(statuses)
        return bool(statuses)

    def forget(self, host: HostId) -> None:
        """The host is lost or removed; its next report starts anew."""
        self._hosts.pop(host, None)
        self.revision += 1

    def items(self) -> tuple[tuple[HostId, HostReport], ...]:
        """Every host's report, by name."""
        return tuple(sorted(self._hosts.items()))
