"""Where the instances of services run: a function of declarations, hosts and what runs now.

An active-active service runs `instances_min` instances, spread evenly over the
hosts; `instances_max` is the ceiling for growth by load, which does not exist
yet. When hosts are fewer than instances, a host runs several. An active-standby
service runs on its owner only: who that is, is decided by mesh.lease.

Nothing moves without need: an instance stays where it is while its host may
keep it and no other host has two instances less. A lost or draining host's
instances are placed elsewhere at once; when the host is back it is given some
again only as far as the spread requires. A service that needs the database is given to hosts that carry one:
only there is a listener that leads to the primary.

Invariant: for equal arguments, in whatever order, the decisions are equal, and
deciding again from the result changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mesh.ids import HostId, OwnedName, ServiceName, owned_service
from mesh.placement.model import HostRoom, PlacementDecision
from mesh.placement.spread import Spread
from mesh.state import ClusterState
from mesh.state.commands import SetPlacement
from mesh.state.model import DeclaredService, HostStatus, MemberRole, Placement, Slot
from mesh.state.service import ServiceMode


def decide_placement(
    services: Iterable[DeclaredService],
    hosts: Iterable[HostRoom],
    current: Mapping[ServiceName, Placement],
    owners: Mapping[OwnedName, HostId | None],
) -> tuple[PlacementDecision, ...]:
    """The placement of every declared service, sorted by name."""
    rooms = {room.host: room for room in sorted(hosts, key=lambda room: room.host)}
    ordered = sorted(services, key=lambda each: each.spec.name)
    before = {each.spec.name: _slots(current, each.spec.name) for each in ordered}
    load = dict.fromkeys(rooms, 0)
    for service in ordered:
        for slot in before[service.spec.name]:
            if slot.host in rooms and not service.stopped:
                load[slot.host] += 1
    return tuple(_decide(each, rooms, before[each.spec.name], owners, load) for each in ordered)


def placement_commands(
    decisions: Iterable[PlacementDecision], current: Mapping[ServiceName, Placement]
) -> tuple[SetPlacement, ...]:
    """The proposals for what differs from the present placement."""
    commands = []
    for decision in decisions:
        present = current.get(decision.service)
        if decision.slots != (present.slots if present else ()):
            version = present.version if present else 0
            commands.append(SetPlacement(decision.service, decision.slots, version))
    return tuple(commands)


def rooms_of(
    state: ClusterState, full: Iterable[HostId] = (), expected_back: Iterable[HostId] = ()
) -> tuple[HostRoom, ...]:
    """The hosts as the applied state has them.

    `full` names those below a capacity threshold, `expected_back` lost ones whose
    sidecar may be started again any moment: both keep what they have and get no more.
    """
    back = frozenset(expected_back)
    crowded = frozenset(full) | back
    rooms = []
    for record in state.hosts.values():
        member = state.members.get(record.member)
        witness = member is None or member.role is MemberRole.WITNESS
        alive = (record.status is not HostStatus.LOST or record.host in back) and not witness
        # Told by a host whose settings have a [database], declared or not.
        has_database = record.host in state.database_members
        rooms.append(HostRoom(record.host, alive, record.draining, record.host in crowded, has_database))
    return tuple(rooms)


def owners_of(state: ClusterState) -> dict[OwnedName, HostId | None]:
    """Who holds what, as the applied state has it."""
    return {name: owned.holder for name, owned in state.owners.items()}


def _slots(current: Mapping[ServiceName, Placement], name: ServiceName) -> tuple[Slot, ...]:
    present = current.get(name)
    return present.slots if present else ()


def _decide(
    service: DeclaredService,
    rooms: Mapping[HostId, HostRoom],
    before: tuple[Slot, ...],
    owners: Mapping[OwnedName, HostId | None],
    load: dict[HostId, int],
) -> PlacementDecision:
    name = service.spec.name
    if service.stopped:
        return PlacementDecision(name, (), (f"{name} is stopped",) if before else ())
    if service.spec.database:
        rooms = {host: _with_database(room) for host, room in rooms.items()}
    if service.spec.mode is ServiceMode.ACTIVE_STANDBY:
        return _on_owner(name, rooms, before, owners.get(owned_service(name)))
    spread = Spread(rooms, before, load)
    spread.leave_hosts()
    spread.shrink(service.spec.instances_min)
    spread.grow(service.spec.instances_min)
    spread.level()
    return PlacementDecision(
        name,
        spread.slots(),
        tuple(spread.reasons),
        _degraded(len(spread.slots()), service.spec.instances_min, rooms),
    )


def _with_database(room: HostRoom) -> HostRoom:
    """What runs there already stays: a host that starts anew tells of its database a moment later."""
    return room if room.has_database else replace(room, lacking="carries no database")


def _on_owner(
    name: ServiceName,
    rooms: Mapping[HostId, HostRoom],
    before: tuple[Slot, ...],
    owner: HostId | None,
) -> PlacementDecision:
    """On the owner, draining or not: it stops acting when its ownership is taken over."""
    if owner is None or owner not in rooms or not rooms[owner].alive:
        why = "nobody owns it" if owner is None else f"its owner {owner} is lost"
        if owner is None and rooms and all(room.lacking for room in rooms.values()):
            why = "no host carries a database"
        return PlacementDecision(name, (), (why,) if before else (), f"{name} does not run: {why}")
    slots = (Slot(owner, 0),)
    return PlacementDecision(name, slots, (f"{owner} owns it",) if slots != before else ())


def _degraded(placed: int, wanted: int, rooms: Mapping[HostId, HostRoom]) -> str:
    if placed >= wanted:
        return ""
    whys = [f"{room.host} {_why_not(room)}" for room in rooms.values() if not room.accepts]
    return f"{placed} of {wanted} instances can be placed: {', '.join(whys) or 'there are no hosts'}"


def _why_not(room: HostRoom) -> str:
    if not room.alive:
        return "is lost or a witness"
    return "is draining" if room.draining else room.lacking or "has no room"
