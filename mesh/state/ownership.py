"""Commands on exclusive things: who holds them, under which fencing term.

Invariant: the fencing term of a name rises with each assignment and is kept in
a counter of its own, which nothing ever lowers or forgets.

Absent here: whether the earlier holder can still act. That is a matter of
leases, and the leader decides it before it proposes.
"""

from dataclasses import replace

from mesh.errors import Conflict, InvalidRequest, NotFound, StaleTerm
from mesh.ids import PRIMARY, VIP, FencingTerm, OwnedName, ServiceName
from mesh.state.applying import Applying, check_name, check_version
from mesh.state.commands import NEVER_ASSIGNED, Applied, AssignOwner, RequestRelease, Unassign
from mesh.state.model import ChangeKind, Fence, HostStatus, Ownership


def assign_owner(at: Applying, command: AssignOwner) -> Applied:
    _check_owned_name(command.name)
    record = at.host(command.holder)
    _check_term(at, command.name, command.expected_fencing_term)
    _check_sync_version(at, command)
    if record.status is HostStatus.LOST:
        raise Conflict(
            f"{command.holder} is lost and can own nothing; choose another host", host=command.holder
        )
    term = FencingTerm(at.raise_counter(f"fencing/{command.name}"))
    before = at.state.owners.get(command.name)
    at.state.owners.put(command.name, Ownership(command.name, command.holder, term, at.index))
    at.changed(ChangeKind.OWNERSHIP, command.name)
    at.record(
        "ownership-assigned",
        command.name,
        f"{command.holder} owns {command.name} under fencing term {term}",
        holder=command.holder,
        fencing_term=term,
        before=before.holder if before and before.holder else "",
    )
    return Applied(at.index, fencing_term=term)


def request_release(at: Applying, command: RequestRelease) -> Applied:
    owned = at.state.owners.get(command.name)
    if owned is None or owned.holder is None:
        raise NotFound(f"nobody owns {command.name}; nothing is to be released", name=command.name)
    if command.expected_fencing_term != NEVER_ASSIGNED:
        _check_term(at, command.name, command.expected_fencing_term)
    if command.successor is not None:
        at.host(command.successor)
        if command.successor == owned.holder:
            raise InvalidRequest(f"{command.successor} already owns {command.name}; name another host")
    if owned.successor == command.successor:
        return Applied(at.index, fencing_term=owned.fencing_term, unchanged=True)
    at.state.owners.put(command.name, replace(owned, successor=command.successor))
    at.changed(ChangeKind.OWNERSHIP, command.name)
    if command.successor is not None:
        at.record(
            "ownership-release-requested",
            command.name,
            f"{owned.holder} is asked to give {command.name} to {command.successor}",
            holder=owned.holder,
            successor=command.successor,
            fencing_term=owned.fencing_term,
        )
    return Applied(at.index, fencing_term=owned.fencing_term)


def unassign(at: Applying, command: Unassign) -> Applied:
    owned = at.state.owners.get(command.name)
    if owned is None:
        raise NotFound(f"{command.name} was never assigned", name=command.name)
    _check_term(at, command.name, command.expected_fencing_term)
    if owned.holder is None and _is_wanted(at, command.name):
        return Applied(at.index, fencing_term=owned.fencing_term, unchanged=True)
    if _is_wanted(at, command.name):
        at.state.owners.put(command.name, Ownership(command.name, None, owned.fencing_term, at.index))
    else:
        at.state.owners.drop(command.name)
    at.changed(ChangeKind.OWNERSHIP, command.name)
    if owned.holder is not None:
        at.record(
            "ownership-released",
            command.name,
            f"{owned.holder} no longer owns {command.name}",
            holder=owned.holder,
            fencing_term=owned.fencing_term,
        )
    return Applied(at.index, fencing_term=owned.fencing_term)


def check_fence(at: Applying, fence: Fence) -> None:
    """Refuses what somebody wants who is not the owner, or is it no more.

    Whatever was assigned before this entry counts, so nothing that an overtaken owner asked for comes
    after the first change of its successor.
    """
    owned = at.state.owners.get(fence.name)
    present = at.state.fencing_term(fence.name)
    if present != fence.fencing_term:
        raise StaleTerm(
            f"{fence.name} is at fencing term {present}, not {fence.fencing_term}: whoever asks is overtaken"
            " and should end; nothing was changed",
            fencing_term=present,
            expected=fence.fencing_term,
        )
    if owned is None or owned.holder is None:
        raise StaleTerm(
            f"nobody owns {fence.name} any more; whoever asks has given it up, and nothing was changed",
            fencing_term=present,
        )


def _is_wanted(at: Applying, name: OwnedName) -> bool:
    """False for the ownership of a service that is no longer declared."""
    kind, _, rest = name.partition("/")
    return kind != "service" or ServiceName(rest) in at.state.services


def _check_term(at: Applying, name: OwnedName, expected: FencingTerm) -> None:
    present = at.state.fencing_term(name)
    if present != expected:
        raise StaleTerm(
            f"{name} is at fencing term {present}, not {expected}; it was assigned since you looked",
            fencing_term=present,
            expected=expected,
        )


def _check_sync_version(at: Applying, command: AssignOwner) -> None:
    """What the old primary published or recorded since the choice may have let it acknowledge more."""
    database = at.state.database
    if command.name != PRIMARY or database is None:
        return
    check_version("the published sync set", database.published.version, command.expected_sync_version)
    if command.expected_primary_term not in (None, database.primary_term):
        raise Conflict(
            f"primaryship {database.primary_term} was recorded since the successor was chosen; choose again",
            recorded=database.primary_term,
            expected=command.expected_primary_term,
        )


def _check_owned_name(name: OwnedName) -> None:
    if name == VIP:
        return
    kind, slash, rest = name.partition("/")
    check_name("name", kind, "vip")
    if slash:
        check_name("name", rest, "service/reporter")
