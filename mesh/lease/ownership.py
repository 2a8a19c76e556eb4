"""Which host should own each exclusive thing, and the next safe step there.

The virtual IP belongs to the leader. An active-standby service stays with its
holder while that is fit; else it goes to the leader, else to the least loaded
fit host. A live holder is first asked to release; a silent one is waited out.

Invariant: no Assign or Unassign is returned for a name before
`LeaseTable.may_reassign`. Giving a name back to its present holder needs no
wait: one host cannot act against itself.
"""

from collections.abc import Mapping

from mesh.ids import VIP, FencingTerm, HostId, OwnedName
from mesh.lease.grantor import LeaseTable
from mesh.lease.model import (
    Assign,
    Decision,
    HostView,
    OwnershipSituation,
    OwnershipView,
    RequestRelease,
    Unassign,
    WaitUntil,
)


def is_fit(host: HostView) -> bool:
    """The host may become or stay owner of something."""
    return host.alive and host.current and not host.draining


def choose_owner(
    name: OwnedName,
    holder: HostId | None,
    leader: HostId,
    hosts: Mapping[HostId, HostView],
) -> HostId | None:
    """The host that should own `name`; None while no host is fit: whoever owns it keeps it then.

    So with every host drained nothing moves and nothing stops, and what nobody owns is given to nobody.
    """
    fit = {host.host: host for host in hosts.values() if is_fit(host)}
    if name == VIP:
        return leader if leader in fit else None
    if holder in fit:
        return holder
    if leader in fit:
        return leader
    return min(fit, key=lambda host: (fit[host].load, host), default=None)


def decide_ownerships(situation: OwnershipSituation, leases: LeaseTable, now: int) -> tuple[Decision, ...]:
    """The next step for every name that is not where it should be, in name order."""
    hosts = {host.host: host for host in situation.hosts}
    present = {ownership.name: ownership for ownership in situation.ownerships}
    decisions: list[Decision] = []
    for name in sorted({*situation.wanted, *present}):
        ownership = present.get(name)
        if ownership is None:
            target = _target(name, None, situation, hosts)
            if target is not None:
                decisions.append(Assign(name, target, FencingTerm(0)))
        elif name not in situation.wanted:
            decisions.append(_end(ownership, leases, now))
        else:
            target = _target(name, ownership.holder, situation, hosts)
            asked = situation.targets.get(name)
            if target is not None and target == ownership.holder and asked is not None and asked.renew:
                decisions.append(Assign(name, target, ownership.fencing_term))
            elif target is not None:
                decisions.extend(_move(ownership, target, hosts, leases, now))
    return tuple(decisions)


def _target(
    name: OwnedName, holder: HostId | None, situation: OwnershipSituation, hosts: Mapping[HostId, HostView]
) -> HostId | None:
    asked = situation.targets.get(name)
    if asked is not None:
        return asked.host
    if name in situation.on_database:  # who has it keeps it: one that starts anew tells a moment later
        hosts = {host: view for host, view in hosts.items() if view.has_database or host == holder}
    return choose_owner(name, holder, situation.leader, hosts)


def _end(ownership: OwnershipView, leases: LeaseTable, now: int) -> Decision:
    """End an ownership nobody wants. Its holder stops as the declaration is gone, and says so."""
    free_at = leases.may_reassign(ownership)
    if free_at > now:
        return WaitUntil(ownership.name, free_at)
    return Unassign(ownership.name, ownership.fencing_term)


def _move(
    ownership: OwnershipView,
    target: HostId,
    hosts: Mapping[HostId, HostView],
    leases: LeaseTable,
    now: int,
) -> tuple[Decision, ...]:
    name, term = ownership.name, ownership.fencing_term
    if target == ownership.holder:
        # What it has released it never acts for again under that number.
        needs_number = ownership.successor not in (None, target) or leases.is_released(ownership)
        return (Assign(name, target, term),) if needs_number else ()
    free_at = leases.may_reassign(ownership)
    if free_at <= now:
        return (Assign(name, target, term),)
    holder = hosts.get(ownership.holder)
    waiting = WaitUntil(name, free_at)
    if holder is not None and holder.alive and ownership.successor != target:
        return (RequestRelease(name, target, term), waiting)
    return (waiting,)
