"""Whether a host may act for an exclusive thing at this moment."""

from collections.abc import Iterable

from mesh.ids import FencingTerm, HostId, OwnedName
from mesh.lease.holder import HostLease
from mesh.lease.model import OwnershipView


def held_term(host: HostId, name: OwnedName, ownerships: Iterable[OwnershipView]) -> FencingTerm | None:
    """The fencing term under which the applied state lets `host` act for `name`.

    None: somebody else owns it, nobody does, or it is being handed over.
    """
    for ownership in ownerships:
        if ownership.name == name:
            handing_over = ownership.successor not in (None, host)
            return None if ownership.holder != host or handing_over else ownership.fencing_term
    return None


def may_act(
    host: HostId,
    name: OwnedName,
    fencing_term: FencingTerm,
    ownerships: Iterable[OwnershipView],
    lease: HostLease,
    *,
    now: int,
    margin: int,
) -> bool:
    """Every condition for `host` to act for `name` as owner number `fencing_term`.

    `margin` is kept free at the end of the lease. It covers the caller's own
    delay between asking and acting, and one Raft tick, by which a voter's count
    of the election timeout may fall short.
    """
    return lease.is_live(now, margin) and held_term(host, name, ownerships) == fencing_term
