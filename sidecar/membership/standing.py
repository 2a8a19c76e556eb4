"""Whether a member is of the cluster, as far as this host's applied state knows. Pure."""

from mesh.ids import MemberId, host_of, incarnation_of
from mesh.state import ClusterState


def is_removed(state: ClusterState, member: MemberId) -> bool:
    """True for a member that was removed or replaced by a later incarnation of its host.

    A member that the state has not heard of yet is not removed: a host that has
    just joined, with its state still empty, must let the leader in.
    """
    return member not in state.members and incarnation_of(member) <= _latest(state, member)


def _latest(state: ClusterState, member: MemberId) -> int:
    """The newest incarnation that the host of *member* ever had."""
    return state.counters.get(f"incarnation/{host_of(member)}", 0)
