"""What the leader proposes, from the applied state and what hosts reported.

Pure: driver.py gathers the arguments and proposes the result. A command that
is already in force is not returned, so a quiet cluster proposes nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from mesh.ids import VIP, FencingTerm, HostId, InstanceId, MemberId, OwnedName, Term, owned_service
from mesh.lease import hosts
from mesh.lease.model import (
    Assign,
    Decision,
    ElectedBy,
    Election,
    HostStanding,
    HostView,
    OwnershipSituation,
    OwnershipView,
    Verdict,
    VerdictChange,
)
from mesh.lease.model import RequestRelease as ReleaseDecision
from mesh.lease.model import Unassign as UnassignDecision
from mesh.lease.plan import NamePlan
from mesh.state import ClusterState
from mesh.state.applying import shortened
from mesh.state.commands import (
    AssignOwner,
    EventDraft,
    ReportInstances,
    RequestRelease,
    SetHostStatus,
    SingleCommand,
    Unassign,
)
from mesh.state.database_commands import ReportDatabase
from mesh.state.database_model import DatabaseStatus
from mesh.state.model import HostStatus, MemberRole, Ownership
from mesh.state.service import InstanceState, InstanceStatus, ServiceMode

STATUS_OF = {
    Verdict.ALIVE: HostStatus.ALIVE,
    Verdict.SUSPECT: HostStatus.SUSPECT,
    Verdict.LOST: HostStatus.LOST,
}
_BECAUSE = {
    ElectedBy.TIMEOUT: "no leader was heard for an election timeout",
    ElectedBy.CRASH_PROOF: "the former leader's sidecar was proven dead",
    ElectedBy.TRANSFER: "the former leader handed over",
}
VERDICT_OF = {status: verdict for verdict, status in STATUS_OF.items()}


def ownership_views(ownerships: Iterable[Ownership]) -> tuple[OwnershipView, ...]:
    """The ownerships that somebody holds, as mesh.lease wants them."""
    return tuple(
        OwnershipView(row.name, row.holder, row.fencing_term, row.successor)
        for row in ownerships
        if row.holder is not None
    )


def wanted_names(state: ClusterState) -> tuple[OwnedName, ...]:
    """Every exclusive thing that should have an owner, but what is planned elsewhere (`NamePlan`)."""
    names = [VIP] if state.info is not None and state.info.virtual_address else []
    names += [
        owned_service(service.spec.name)
        for service in state.services.values()
        if service.spec.mode is ServiceMode.ACTIVE_STANDBY and not service.stopped
    ]
    return tuple(names)


def situation(
    state: ClusterState,
    leader: HostId,
    standings: Mapping[HostId, HostStanding],
    leaving: Collection[HostId] = (),
    plan: NamePlan | None = None,
) -> OwnershipSituation:
    """What `decide_ownerships` looks at.

    A host that is `leaving` gives up what it owns, as a drained one. A witness applies no
    commands, so it would never learn that it owns something: it is no host to choose from.
    """
    load: dict[HostId, int] = {}
    for status in state.instances.values():
        load[status.host] = load.get(status.host, 0) + 1
    views = tuple(
        HostView(
            host=record.host,
            alive=record.host == leader
            or (record.host in standings and standings[record.host].verdict is not Verdict.LOST),
            draining=record.draining or record.host in leaving,
            load=load.get(record.host, 0),
            has_database=record.host in state.database_members,
        )
        for record in state.hosts.values()
        if not _is_witness(state, record.member)
    )
    planned = {} if plan is None else {plan.name: plan.target}
    wanted = (*wanted_names(state), *planned)
    needy = [owned_service(name) for name, service in state.services.items() if service.spec.database]
    return OwnershipSituation(leader, views, wanted, ownership_views(state.owners.values()), planned, needy)


def _is_witness(state: ClusterState, member: MemberId) -> bool:
    row = state.members.get(member)
    return row is not None and row.role is MemberRole.WITNESS


def election_event(host: HostId, term: Term, election: Election) -> EventDraft:
    """The journal's row for a leadership that begins, with what it was decided from."""
    facts = {"by": election.by.value, "predecessor": election.predecessor or "", "term": str(term)}
    return EventDraft(
        "leader-elected",
        host,
        f"{host} leads in term {term}: {_BECAUSE[election.by]}",
        tuple(sorted(facts.items())),
    )


def first_standing(host: HostId, now: int, verdict: Verdict, election: Election) -> HostStanding:
    """The account that a new leader opens for a host it has not heard from yet.

    Full time to beat, but for the former leader when nobody had heard it for an
    election timeout: its silence began when this host heard it last.
    """
    standing = hosts.opened(host, now, verdict)
    if election.by is ElectedBy.TIMEOUT and host == election.predecessor and election.predecessor_heard_at:
        return replace(standing, last_beat=election.predecessor_heard_at)
    return standing


def verdict_commands(state: ClusterState, changes: Iterable[VerdictChange]) -> tuple[SingleCommand, ...]:
    """Verdicts that differ from the replicated ones."""
    commands: list[SingleCommand] = []
    for change in changes:
        record = state.hosts.get(change.host)
        status = STATUS_OF[change.after]
        if record is not None and record.status is not status:
            commands.append(SetHostStatus(change.host, record.member, status, change.because))
    return tuple(commands)


def ownership_commands(
    state: ClusterState, decisions: Iterable[Decision], plan: NamePlan | None = None
) -> tuple[SingleCommand, ...]:
    """The proposals that carry out ownership decisions and what is planned; waiting needs none."""
    commands: list[SingleCommand] = []
    for decision in decisions:
        if isinstance(decision, Assign):
            assign = AssignOwner(decision.name, decision.holder, expected_term(state, decision.name))
            if plan is not None and plan.name == decision.name:
                assign = replace(
                    assign,
                    expected_sync_version=plan.expected_sync_version,
                    expected_primary_term=plan.expected_primary_term,
                )
            commands.append(assign)
        elif isinstance(decision, UnassignDecision):
            commands.append(Unassign(decision.name, decision.expected_fencing_term))
        elif isinstance(decision, ReleaseDecision):
            expected = decision.expected_fencing_term
            commands.append(RequestRelease(decision.name, decision.successor, expected))
    return (*commands, *(plan.commands if plan is not None else ()))


def expected_term(state: ClusterState, name: OwnedName) -> FencingTerm:
    """The latest fencing term of a name, also while nobody holds it."""
    return state.fencing_term(name)


def report_command(
    state: ClusterState,
    host: HostId,
    member: MemberId,
    reported: Mapping[InstanceId, InstanceStatus],
    *,
    complete: bool,
) -> ReportInstances | None:
    """What the replicated state does not know yet of a host's instances; None when all is known.

    With `complete`, instances that the host no longer mentions are forgotten. What a
    lost host said last counts again only when it is back.
    """
    record = state.hosts.get(host)
    if record is None or record.member != member or record.status is HostStatus.LOST:
        return None
    known = {status.instance: status for status in state.instances.values() if status.host == host}
    news = tuple(
        status
        for instance, status in sorted(reported.items())
        if known.get(instance) != status
        and not (status.state is InstanceState.STOPPED and instance not in known)
    )
    gone = complete and any(instance not in reported for instance in known)
    if not news and not gone:
        return None
    if gone:
        return ReportInstances(host, member, tuple(reported[key] for key in sorted(reported)), complete=True)
    return ReportInstances(host, member, news)


def database_command(
    state: ClusterState,
    host: HostId,
    member: MemberId,
    reported: DatabaseStatus | None,
    *,
    complete: bool,
) -> ReportDatabase | None:
    """What the replicated state does not know yet of a host's database; None when all is known.

    That a host has none counts only when it told everything. As with instances, what a
    lost host said last counts again only when it is back.
    """
    record, known = state.hosts.get(host), state.database_members.get(host)
    if record is None or record.member != member or record.status is HostStatus.LOST:
        return None
    if reported is None:
        return ReportDatabase(host, member, None) if complete and known is not None else None
    # As it is kept, so that a long sentence is no news each time.
    reported = replace(reported, health=shortened(reported.health))
    if known is not None and known.status == reported:
        return None
    return ReportDatabase(host, member, reported)
