"""Applies committed commands to the replicated state, the same way on every host.

`apply` is a function of the state, the index and the request alone. A refusal
is an outcome, like success; both are remembered for the session. A command
either takes effect as a whole or leaves every row as it was.

Invariant: equal states and equal requests give equal states, outcomes, changes
and events, on every host and under every hash seed.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from mesh import errors
from mesh.errors import InvalidRequest, InvariantBroken, Problem, Refused, TrellisError, UnknownCommand
from mesh.ids import Index
from mesh.limits import EVENT_FACTS_MAX, EVENTS_MAX
from mesh.state import commands as c
from mesh.state import database, documents, hosts, ownership, security, services
from mesh.state import database_commands as d
from mesh.state.applying import Applying, shortened
from mesh.state.commands import Applied, Outcome, Rejected, Request
from mesh.state.hash import fold
from mesh.state.model import ChangeKind, Event
from mesh.state.sessions import recall, remember
from mesh.state.tables import ClusterState
from mesh.state.watch import ChangeSet

#: Changed rows before they are counted into the state hash without being asked.
_DIRTY_MAX: Final = 8_192


class Effect(NamedTuple):
    """What one entry came to: its outcome, and everything it changed.

    A refused or repeated request has an empty change set, except that a bug
    leaves an event.
    """

    outcome: Outcome
    changed: ChangeSet


def apply(state: ClusterState, index: Index, request: Request) -> Effect:
    """Applies one committed request.

    Order: indexes rise; entries that are no commands are not applied here.
    Fails: `UnknownCommand` for a command that this version does not know, with
    the state untouched: the host must stop applying and stay out.
    `InvariantBroken` when an index comes twice.
    """
    if index <= state.applied:
        raise InvariantBroken(f"entry {index} was to be applied after entry {state.applied}")
    if request.session:
        known = recall(state, request)
        if known is not None:
            state.applied = index
            return Effect(known, ChangeSet(index, ()))
    at = Applying(state, index, request.at_ns)
    outcome = _attempt(at, request)
    events = _record_events(at, request.trace_id) if at.events else ()
    if at.documents:
        documents.forget_tombstones(at)
    if request.session:
        remember(state, index, request, outcome)
    state.applied = index
    changed = ChangeSet(index, tuple(at.changes), tuple(at.documents), events)
    if changed.changes:
        state.kept.append(changed)
    if state.ledger.dirty_count > _DIRTY_MAX:
        fold(state)
    return Effect(outcome, changed)


def error_of(rejected: Rejected) -> TrellisError:
    """The error to raise towards the caller whose command was rejected."""
    metadata: dict[str, object] = dict(rejected.metadata)
    kind = _BY_REASON.get(rejected.reason, Refused)
    if issubclass(kind, InvalidRequest):
        return kind(rejected.message, rejected.problems, **metadata)
    return kind(rejected.message, **metadata)


def _attempt(at: Applying, request: Request) -> Outcome:
    """Runs a command; whatever stops it, no row is different afterwards."""
    state, command = at.state, request.command
    state.ledger.undo.clear()
    sizes = state.document_bytes, state.history_bytes
    try:
        if request.fence is not None:
            ownership.check_fence(at, request.fence)
        return _dispatch(at, command)
    except Refused as refusal:
        outcome = _rejected(refusal)
    except (UnknownCommand, MemoryError):
        # What this host alone cannot do must not become an outcome that differs from the others'.
        state.ledger.roll_back()
        state.document_bytes, state.history_bytes = sizes
        raise
    except Exception as bug:  # noqa: BLE001 - the same bug is in every host: refused everywhere alike,
        # where a crash would repeat on every host at every start, without end.
        outcome = Rejected(
            "COMMAND_FAILED", f"{type(command).__name__} failed by a bug: {type(bug).__name__}"
        )
    state.ledger.roll_back()
    state.document_bytes, state.history_bytes = sizes
    at.changes.clear()
    at.documents.clear()
    at.events.clear()
    if outcome.reason == "COMMAND_FAILED":
        at.record("command-failed", type(command).__name__, outcome.message)
    return outcome


def _dispatch(at: Applying, command: c.Command) -> Applied:
    if isinstance(command, c.Batch):
        return Applied(at.index, parts=tuple(_run(at, each) for each in command.commands))
    return _run(at, command)


def _run(at: Applying, command: c.SingleCommand) -> Applied:
    function = _FUNCTIONS.get(type(command))
    if function is None:
        raise UnknownCommand(
            f"entry {at.index} holds a {type(command).__name__}, which this version does not know;"
            " upgrade this host",
            index=at.index,
        )
    return function(at, command)


def _rejected(refusal: Refused) -> Rejected:
    problems: tuple[Problem, ...] = refusal.problems if isinstance(refusal, InvalidRequest) else ()
    metadata = tuple(sorted(refusal.metadata.items()))
    return Rejected(refusal.reason, refusal.message, metadata, problems)


def _record_events(at: Applying, trace_id: str) -> tuple[Event, ...]:
    """Puts the drafts into the journal and forgets its oldest events."""
    table = at.state.events
    recorded = tuple(
        Event(
            at.index,
            position,
            at.at_ns,
            draft.kind,
            shortened(draft.subject),
            shortened(draft.message),
            tuple(sorted(_facts(draft))),
            trace_id,
        )
        for position, draft in enumerate(at.events[:EVENTS_MAX])
    )
    for event in recorded:
        table.put((event.index, event.position), event)
        at.changed(ChangeKind.EVENT, str(event.index))
    while len(table) > EVENTS_MAX:
        table.drop(next(iter(table.rows)))
    return recorded


def _facts(draft: c.EventDraft) -> Iterator[tuple[str, str]]:
    for name, value in draft.attributes[:EVENT_FACTS_MAX]:
        yield shortened(name), shortened(value)


def _journal(at: Applying, command: c.RecordEvents) -> Applied:
    at.events.extend(command.events)
    return Applied(at.index)


_FUNCTIONS: Final[dict[type, Callable[[Applying, Any], Applied]]] = {
    c.InitCluster: hosts.init_cluster,
    c.SetVirtualAddress: hosts.set_virtual_address,
    c.AdmitMember: hosts.admit_member,
    c.UpdateMember: hosts.update_member,
    c.SetMemberRole: hosts.set_member_role,
    c.RemoveMember: hosts.remove_member,
    c.SetHostStatus: hosts.set_host_status,
    c.DrainHost: hosts.drain_host,
    c.PutDocument: documents.put_document,
    c.DeleteDocument: documents.delete_document,
    c.ApplyService: services.apply_service,
    c.StopService: services.stop_service,
    c.RestartService: services.restart_service,
    c.SetPlacement: services.set_placement,
    c.ReportInstances: services.report_instances,
    c.AssignOwner: ownership.assign_owner,
    c.RequestRelease: ownership.request_release,
    c.Unassign: ownership.unassign,
    c.AddToken: security.add_token,
    c.ConsumeToken: security.consume_token,
    c.RevokeCertificate: security.revoke_certificate,
    c.SetTrust: security.set_trust,
    c.PutSecret: security.put_secret,
    c.RecordEvents: _journal,
    d.DeclareDatabase: database.declare_database,
    d.RecordBootstrap: database.record_bootstrap,
    d.PublishSyncSet: database.publish_sync_set,
    d.RecordPromotion: database.record_promotion,
    d.ReportDatabase: database.report_database,
    d.AcceptDataLoss: database.accept_data_loss,
}

_BY_REASON: Final[dict[str, type[TrellisError]]] = {
    kind.reason: kind
    for kind in (
        errors.NotLeader,
        errors.StaleTerm,
        errors.VersionConflict,
        errors.QueueFull,
        errors.NotFound,
        errors.Conflict,
        errors.OutOfRange,
        errors.Denied,
        errors.InvalidRequest,
        errors.OutcomeUnknown,
    )
}
