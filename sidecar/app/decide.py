"""What this host should run, hold and route at this moment.

Pure: the applied state, the lease and what is held here go in; everything the
host driver must bring about comes out. The same function decides whether the
host is fenced, so there is one answer to "may I act".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mesh.ids import (
    PRIMARY,
    VIP,
    FencingTerm,
    HostId,
    InstanceId,
    OwnedName,
    ServiceName,
    instance_id,
    owned_service,
)
from mesh.lease.acting import held_term
from mesh.lease.model import OwnershipView
from mesh.state import ClusterState
from mesh.state.database_model import DatabaseStatus
from mesh.state.model import DeclaredService, HostStatus
from mesh.state.service import InstanceStatus, ServiceMode
from mesh.state.spec_rules import GRACE_MS_MAX
from sidecar.routing.model import RoutingView
from sidecar.supervisor.model import Assignment

#: What handing the database over may take: its checkpoint, while it goes on serving.
DATABASE_GRACE_MS: Final = 150_000
NOTHING: Final[Mapping[InstanceId, Assignment]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Standing:
    """What this host knows of itself."""

    host: HostId
    #: The lease has more than its margin left.
    lease_live: bool
    #: Fenced for longer than the grace: active-active instances stop too.
    grace_over: bool = False
    leader: HostId | None = None
    #: What it has told the leader to have given up: never acted for again under that number.
    released: Mapping[OwnedName, FencingTerm] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be true on this host."""

    assignments: tuple[Assignment, ...]
    #: Fencing term under which to hold the virtual IP; None: do not.
    vip_term: FencingTerm | None


def ownership_views(state: ClusterState) -> tuple[OwnershipView, ...]:
    """The ownerships that somebody holds."""
    return tuple(
        OwnershipView(row.name, row.holder, row.fencing_term, row.successor)
        for row in state.owners.values()
        if row.holder is not None
    )


def desired(
    state: ClusterState, standing: Standing, present: Mapping[InstanceId, Assignment] = NOTHING
) -> Desired:
    """Everything this host should bring about now; `present` is what it was told last.

    A changed declaration and a requested restart reach the instances of an
    active-active service one after the other, in the order of their slots: an
    instance keeps what it has until all before it run the new one and are ready.
    """
    views = ownership_views(state)
    assignments: list[Assignment] = []
    for service in state.services.values():
        if not service.stopped:
            assignments += _assignments(state, service, standing, views, present)
    return Desired(tuple(assignments), _acting_term(standing, VIP, views))


def _acting_term(standing: Standing, name: OwnedName, views: Iterable[OwnershipView]) -> FencingTerm | None:
    """The number under which this host may act for a name now; None: it may not."""
    term = held_term(standing.host, name, views) if standing.lease_live else None
    return None if standing.released.get(name) == term else term


def _assignments(
    state: ClusterState,
    service: DeclaredService,
    standing: Standing,
    views: Iterable[OwnershipView],
    present: Mapping[InstanceId, Assignment],
) -> list[Assignment]:
    name = service.spec.name
    if service.spec.mode is ServiceMode.ACTIVE_STANDBY:
        term = _acting_term(standing, owned_service(name), views)
        if term is None:
            return []
        return [_assignment(service, standing.host, 0, term)]
    placement = state.placements.get(name)
    if placement is None or standing.grace_over:
        return []
    assignments, may_change = [], True
    for slot in placement.slots:
        instance = instance_id(name, slot.host, slot.ordinal)
        if slot.host == standing.host:
            wanted = _assignment(service, slot.host, slot.ordinal, None)
            assignments.append(wanted if may_change else present.get(instance, wanted))
        may_change = may_change and _follows(state.instances.get(instance), service)
    return assignments


def _follows(status: InstanceStatus | None, wanted: DeclaredService) -> bool:
    """The instance runs the wanted declaration and restart, and is ready."""
    return (
        status is not None
        and status.ready
        and (status.spec_version, status.restart_nonce) == (wanted.version, wanted.restart_nonce)
    )


def _assignment(service: DeclaredService, host: HostId, ordinal: int, term: FencingTerm | None) -> Assignment:
    return Assignment(
        instance=instance_id(service.spec.name, host, ordinal),
        spec=service.spec,
        spec_version=service.version,
        ordinal=ordinal,
        fencing_term=term,
        restart_nonce=service.restart_nonce,
    )


def _carries_none(_term: FencingTerm) -> bool:
    """A host without a database acts under no number."""
    return True


def releases(
    state: ClusterState,
    host: HostId,
    *,
    running: Iterable[ServiceName],
    vip_held: bool,
    leaving: bool,
    database_given_up: Callable[[FencingTerm], bool] = _carries_none,
) -> Mapping[OwnedName, FencingTerm]:
    """Ownerships of this host that it has stopped acting for and should give back.

    An ownership is given back when it is being handed to another host, when
    its service is gone or stopped, or when this sidecar is `leaving`; and only
    once nothing of it runs here any more.
    """
    alive = set(running)
    given: dict[OwnedName, FencingTerm] = {}
    for row in state.owners.values():
        if row.holder != host:
            continue
        if row.name == VIP:
            unwanted, stopped = False, not vip_held
        elif row.name == PRIMARY:
            # What it has promised not to act under again is over, whoever asked for that.
            unwanted = stopped = database_given_up(row.fencing_term)
        else:
            name = ServiceName(row.name.removeprefix("service/"))
            service = state.services.get(name)
            unwanted, stopped = service is None or service.stopped, name not in alive
        handed = row.successor is not None and row.successor != host
        if stopped and (handed or unwanted or leaving):
            given[row.name] = row.fencing_term
    return given


def owed(
    state: ClusterState, host: HostId, released: Mapping[OwnedName, FencingTerm]
) -> Mapping[OwnedName, int]:
    """What this host has been asked to give up and has not, with its grace in ms."""
    found: dict[OwnedName, int] = {}
    for row in state.owners.values():
        if row.holder != host or released.get(row.name) == row.fencing_term:
            continue
        service = state.services.get(ServiceName(row.name.removeprefix("service/")))
        handed = row.successor is not None and row.successor != host
        is_service = row.name not in (VIP, PRIMARY)
        if handed or (is_service and (service is None or service.stopped)):
            gone_ms = GRACE_MS_MAX if is_service else DATABASE_GRACE_MS if row.name == PRIMARY else 0
            found[row.name] = service.spec.grace_ms if service is not None else gone_ms
    return found


def routing_view(
    state: ClusterState,
    standing: Standing,
    *,
    revision: int,
    own: Iterable[InstanceStatus],
    owns_vip: bool,
    database: DatabaseStatus | None = None,
) -> RoutingView:
    """What the routes are made from; what is observed here beats what is replicated of here.

    So an instance that has just ended or turned unready on this host gets no
    more traffic, before the leader has even heard of it.
    """
    observed = {status.instance: status for status in own}
    instances = [status for status in state.instances.values() if status.host != standing.host]
    instances += [observed[key] for key in sorted(observed)]
    return RoutingView(
        revision=revision,
        services=tuple(service.spec for service in state.services.values() if service.spec.routed),
        instances=tuple(instances),
        hosts=tuple(record.host for record in state.hosts.values()),
        hosts_out=tuple(
            record.host
            for record in state.hosts.values()
            if record.host != standing.host and (record.status is HostStatus.LOST or record.draining)
        ),
        hosts_suspect=tuple(
            record.host
            for record in state.hosts.values()
            if record.host != standing.host and record.status is HostStatus.SUSPECT
        ),
        leader=standing.leader,
        owns_vip=owns_vip and standing.lease_live,
        northbound_open=standing.lease_live,
        database_primary=primary_address(state, standing.host, database),
    )


def primary_address(state: ClusterState, host: HostId, own: DatabaseStatus | None) -> str:
    """Where the database takes writes now; empty: nowhere. What is seen here beats what is replicated."""
    row = state.owners.get(PRIMARY)
    if row is None or row.holder is None:
        return ""
    member = state.database_members.get(row.holder)
    status = own if row.holder == host else member.status if member is not None else None
    is_open = status is not None and status.is_open and status.fencing_term == row.fencing_term
    return status.address if status is not None and is_open else ""
