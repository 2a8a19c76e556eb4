"""Commands on the database: its declaration, who made it, who may succeed its primary.

Invariant: once a primary was followed by another, nothing that the earlier one
says is taken any more: each word of a primary carries its fencing term, and
only the latest counts. Published sets follow each other by one version, so that of
two that were decided from the same one, one is refused.

Absent here: whether a set is safe (that rests on what PostgreSQL has flushed, and
the primary plans it), and who should be primary.
"""

from dataclasses import replace

from mesh.errors import Conflict, NotFound, StaleTerm
from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.state.applying import Applying, check_text, check_version, invalid, shortened
from mesh.state.commands import Applied
from mesh.state.database_checks import (
    check_history,
    check_identifier,
    check_quorum,
    check_spec,
    check_status,
    normal_spec,
)
from mesh.state.database_commands import (
    AcceptDataLoss,
    DeclareDatabase,
    PublishSyncSet,
    RecordBootstrap,
    RecordPromotion,
    ReportDatabase,
)
from mesh.state.database_model import (
    MAIN,
    NEVER_PRIMARY,
    AcceptedLoss,
    DatabaseMember,
    DatabaseRecord,
    DatabaseRole,
    DatabaseSpec,
    Lag,
    SyncSet,
)
from mesh.state.model import ChangeKind, HostStatus


def declare_database(at: Applying, command: DeclareDatabase) -> Applied:
    present, spec = at.state.database, normal_spec(command.spec)
    check_version("the database", present.version if present else 0, command.expected_version)
    if present is not None and present.spec == spec:
        return Applied(at.index, version=present.version, unchanged=True)
    check_spec(at, command.spec)
    _check_holder_keeps_data(at, spec)
    version = present.version + 1 if present else 1
    record = replace(present, spec=spec, version=version) if present else DatabaseRecord(spec, version)
    _put(at, record)
    at.record(
        "database-declared",
        PRIMARY,
        f"the database is declared in version {version}:"
        f" a commit waits for {spec.standbys_needed} standby{'' if spec.standbys_needed == 1 else 's'}",
        version=version,
        standbys_needed=spec.standbys_needed,
        data_hosts=",".join(spec.data_hosts),
        port=spec.port,
    )
    return Applied(at.index, version=version)


def record_bootstrap(at: Applying, command: RecordBootstrap) -> Applied:
    record = _declared(at)
    _check_is_holder(at, command.host, command.fencing_term)
    check_identifier("system_identifier", command.system_identifier)
    check_history(command.timeline, command.history)
    if record.is_bootstrapped:
        if record.system_identifier == command.system_identifier and record.bootstrap_host == command.host:
            return Applied(at.index, unchanged=True)
        raise Conflict(
            f"the database was made on {record.bootstrap_host} already, with system identifier"
            f" {record.system_identifier}; clone it from its primary",
            bootstrap_host=record.bootstrap_host,
            system_identifier=record.system_identifier,
        )
    _put(
        at,
        replace(
            record,
            system_identifier=command.system_identifier,
            timeline=command.timeline,
            history=command.history,
            bootstrap_host=command.host,
            timeline_base=max(0, command.timeline - command.fencing_term),
            primary=command.host,
            primary_term=command.fencing_term,
        ),
    )
    at.record(
        "database-bootstrapped",
        PRIMARY,
        f"{command.host} made the database, system identifier {command.system_identifier}",
        host=command.host,
        system_identifier=command.system_identifier,
        timeline=command.timeline,
        fencing_term=command.fencing_term,
    )
    return Applied(at.index)


def publish_sync_set(at: Applying, command: PublishSyncSet) -> Applied:
    record = _bootstrapped(at)
    _check_is_holder(at, command.host, command.fencing_term)
    before = record.published
    check_version("the published sync set", before.version, command.expected_version)
    voters = tuple(sorted(set(command.voters)))
    check_quorum(at, voters, command.quorum)
    published = SyncSet(before.version + 1, voters, command.quorum)
    _put(at, replace(record, published=published, published_term=command.fencing_term))
    at.record(
        "sync-set-published",
        PRIMARY,
        f"without {command.host}, a promotion needs {command.quorum} of {', '.join(voters)}"
        if voters
        else f"without {command.host}, nobody can be promoted: no standby is known to have every commit",
        host=command.host,
        version=published.version,
        voters=",".join(voters),
        quorum=command.quorum,
        before=",".join(before.voters),
        before_quorum=before.quorum,
        fencing_term=command.fencing_term,
    )
    return Applied(at.index, version=published.version)


def record_promotion(at: Applying, command: RecordPromotion) -> Applied:
    record = _bootstrapped(at)
    _check_is_holder(at, command.host, command.fencing_term)
    check_history(command.timeline, command.history)
    was = record.primary, record.timeline, record.primary_term
    if was == (command.host, command.timeline, command.fencing_term):
        return Applied(at.index, unchanged=True)
    goes_on = command.timeline == record.timeline and command.host == record.primary
    if command.timeline <= record.timeline and not goes_on:
        raise Conflict(
            f"timeline {command.timeline} of {command.host} is not newer than {record.timeline}, which"
            f" {record.primary} wrote; it must not be opened: rewind it or clone it",
            timeline=record.timeline,
            primary=record.primary,
        )
    _put(
        at,
        replace(
            record,
            timeline=command.timeline,
            history=command.history,
            primary=command.host,
            primary_term=command.fencing_term,
        ),
    )
    at.record(
        "database-promoted",
        PRIMARY,
        f"{command.host} {'goes on as' if goes_on else 'is'} primary on timeline {command.timeline}"
        f" under fencing term {command.fencing_term}",
        host=command.host,
        timeline=command.timeline,
        fencing_term=command.fencing_term,
        before=record.primary,
        timeline_before=record.timeline,
    )
    return Applied(at.index)


def accept_data_loss(at: Applying, command: AcceptDataLoss) -> Applied:
    record = _bootstrapped(at)
    present = at.state.fencing_term(PRIMARY)
    if present != command.fencing_term:
        raise StaleTerm(
            f"the primaryship is number {present}, not {command.fencing_term}; look at the database again"
            " before you accept a loss",
            fencing_term=present,
            expected=command.fencing_term,
        )
    if not command.by or not command.why.strip():
        path = "why" if command.by else "by"
        raise invalid(path, "is empty: who accepts a loss says why", "host1 burnt down, host2 was offline")
    check_text("by", command.by)
    if record.accepts_loss(command.fencing_term):
        return Applied(at.index, fencing_term=present, unchanged=True)
    _check_primary_is_gone(at)
    loss = AcceptedLoss(command.fencing_term, command.by, shortened(command.why), at.at_ns)
    _put(at, replace(record, accepted_loss=loss))
    at.record(
        "data-loss-accepted",
        PRIMARY,
        f"{command.by} accepts that commits of primaryship {present} may be lost: {command.why}",
        fencing_term=present,
        by=command.by,
        voters=",".join(record.published.voters),
        quorum=record.published.quorum,
    )
    return Applied(at.index, fencing_term=present)


def report_database(at: Applying, command: ReportDatabase) -> Applied:
    at.host_with_member(command.host, command.member)
    status = command.status
    if status is None:
        known = command.host in at.state.database_members
        forget_database_of(at, command.host)
        return Applied(at.index, unchanged=not known)
    check_status(status)
    status = replace(status, health=shortened(status.health))
    before = at.state.database_members.get(command.host)
    if before is not None and before.status == status:
        return Applied(at.index, unchanged=True)
    is_new_role = before is None or before.status.role is not status.role
    since = at.index if before is None or is_new_role else before.since
    at.state.database_members.put(command.host, DatabaseMember(command.host, status, since))
    at.changed(ChangeKind.DATABASE_MEMBER, command.host)
    if is_new_role:
        why = f": {status.health}" if status.health else ""
        at.record(
            "database-role",
            command.host,
            f"the database of {command.host} is {status.role.value}{why}",
            before=before.status.role.value if before else "",
            timeline=status.timeline,
            fencing_term=status.fencing_term,
        )
    return Applied(at.index)


def forget_database_of(at: Applying, host: HostId) -> None:
    """The host is gone or a new incarnation: nothing that was said of its database holds.

    It stays in the published set, which says where commits are, until the primary publishes another.
    """
    if host in at.state.database_members:
        at.state.database_members.drop(host)
        at.changed(ChangeKind.DATABASE_MEMBER, host)


def close_database_of(at: Applying, host: HostId) -> None:
    """The host is lost: its database counts for nothing until it reports again."""
    row = at.state.database_members.get(host)
    if row is not None:
        status = replace(
            row.status,
            is_streaming=False,
            is_open=False,
            lag=Lag.UNKNOWN,
            health=f"{host} is lost",
            # Whom it follows is not known any more: or it would look as if it were sealed at that number.
            fencing_term=NEVER_PRIMARY,
        )
        at.state.database_members.put(host, replace(row, status=status))
        at.changed(ChangeKind.DATABASE_MEMBER, host)


# ---- what is refused ------------------------------------------------------------------


def _put(at: Applying, record: DatabaseRecord) -> None:
    at.state.databases.put(MAIN, record)
    at.changed(ChangeKind.DATABASE, MAIN)


def _declared(at: Applying) -> DatabaseRecord:
    record = at.state.database
    if record is None:
        raise NotFound("no database is declared in this cluster")
    return record


def _bootstrapped(at: Applying) -> DatabaseRecord:
    record = _declared(at)
    if not record.is_bootstrapped:
        raise Conflict("the database is declared and was not made yet; wait for `database-bootstrapped`")
    return record


def _check_is_holder(at: Applying, host: HostId, fencing_term: FencingTerm) -> None:
    owned = at.state.owners.get(PRIMARY)
    if owned is None or owned.holder != host or owned.fencing_term != fencing_term:
        holder = (owned.holder if owned else None) or "nobody"
        present = at.state.fencing_term(PRIMARY)
        raise StaleTerm(
            f"{host} does not own {PRIMARY} under fencing term {fencing_term}: {holder} does, under"
            f" {present}; {host} must stop acting as primary",
            fencing_term=present,
            expected=fencing_term,
            holder=holder,
        )


def _check_primary_is_gone(at: Applying) -> None:
    owned = at.state.owners.get(PRIMARY)
    if owned is None or owned.holder is None:
        return
    host, row = at.state.hosts.get(owned.holder), at.state.database_members.get(owned.holder)
    if host is None or host.status is HostStatus.LOST or row is None:
        return
    if row.status.role is DatabaseRole.PRIMARY and row.status.is_open:
        raise Conflict(
            f"{owned.holder} is primary and takes writes: nothing is lost; to move it, switch over",
            holder=owned.holder,
            fencing_term=owned.fencing_term,
        )


def _check_holder_keeps_data(at: Applying, spec: DatabaseSpec) -> None:
    owned = at.state.owners.get(PRIMARY)
    holder = owned.holder if owned else None
    if holder is not None and spec.data_hosts and holder not in spec.data_hosts:
        raise Conflict(
            f"{holder} owns {PRIMARY} and would hold no data any more; switch over to another host first",
            holder=holder,
        )
