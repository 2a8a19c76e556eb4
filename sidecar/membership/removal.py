"""What speaks against removing a host for good."""

from mesh.errors import Problem
from mesh.ids import HostId
from mesh.state import ClusterState
from mesh.state.model import HostStatus, MemberRole


def removal_problems(state: ClusterState, host: HostId) -> tuple[Problem, ...]:
    """Every reason that `force` lifts; what it does not lift, the state refuses itself."""
    record = state.hosts.get(host)
    if record is None:
        return ()
    problems = []
    if record.status is HostStatus.ALIVE and not record.draining:
        problems.append(Problem("host", f"{host} is alive and in service", f"trellis host drain {host}"))
    rows = [row for row in state.members.values() if row.host != host and row.role is not MemberRole.LEARNER]
    alive = [row for row in rows if state.hosts[row.host].status is HostStatus.ALIVE]
    if len(alive) <= len(rows) // 2:
        problem = f"without {host} only {len(alive)} of {len(rows)} voters are alive, too few to decide"
        problems.append(Problem("host", problem, "bring another host back first"))
    others = [each for each in state.hosts.values() if each.host != host]
    if not any(each.status is HostStatus.ALIVE and not each.draining for each in others):
        problems.append(Problem("host", "no other host could run the services", "trellis join"))
    return tuple(problems)
