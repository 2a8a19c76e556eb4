"""Which instances to start, stop, restart or kill so that what runs is what is assigned.

Order: an instance starts when each service it depends on either has no
instance on this host or has one that is ready; it stops before the services
it depends on. A dependency that fails later stops nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mesh.ids import InstanceId, ServiceName
from mesh.state.service import InstanceState
from sidecar.supervisor.model import Assignment


@dataclass(frozen=True, slots=True)
class Present:
    """One instance as it is now. `assignment` is what its process was started with."""

    assignment: Assignment
    state: InstanceState
    ready: bool
    #: Whether it is assigned now.
    wanted: bool


class Step(Enum):
    """What an assignment changes for one instance."""

    ADD = "add"
    KEEP = "keep"
    RESTART = "restart"
    #: Kill at once, then start with the new fencing term.
    REPLACE = "replace"
    REMOVE = "remove"


def compare(
    present: Mapping[InstanceId, Assignment], desired: Sequence[Assignment]
) -> tuple[tuple[InstanceId, Step], ...]:
    """What each instance needs, those present first, in a stable order."""
    wanted = {assignment.instance: assignment for assignment in desired}
    steps = [(name, _step(was, wanted.get(name))) for name, was in present.items()]
    added = [(name, Step.ADD) for name in wanted if name not in present]
    return (*steps, *added)


def _step(was: Assignment, wanted: Assignment | None) -> Step:
    if wanted is None:
        return Step.REMOVE
    if was.fencing_term != wanted.fencing_term:
        return Step.REPLACE
    if (was.spec_version, was.restart_nonce) != (wanted.spec_version, wanted.restart_nonce):
        return Step.RESTART
    return Step.KEEP


def waits_for(assignment: Assignment, present: Mapping[InstanceId, Present]) -> tuple[ServiceName, ...]:
    """The dependencies that must become ready on this host before it may start."""
    ready: dict[ServiceName, bool] = {}
    for other in present.values():
        if other.wanted:
            name = other.assignment.spec.name
            ready[name] = ready.get(name, False) or other.ready
    return tuple(name for name in assignment.spec.depends_on if ready.get(name) is False)


def may_stop(assignment: Assignment, present: Mapping[InstanceId, Present]) -> bool:
    """Whether nothing that is going away too still depends on it."""
    return not any(
        assignment.spec.name in other.assignment.spec.depends_on
        and not other.wanted
        and other.state is not InstanceState.STOPPED
        for other in present.values()
        if other.assignment.instance != assignment.instance
    )
