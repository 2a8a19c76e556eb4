"""What the leader plans for the primaryship, over time: whom it seals, whom it names, when it is patient."""

import asyncio
from dataclasses import replace

from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.lease.model import HostStanding, Target, Verdict
from mesh.lease.plan import NamePlan
from mesh.state.commands import AssignOwner, DrainHost, RecordEvents, RemoveMember, RequestRelease
from mesh.state.database_commands import DeclareDatabase, RecordPromotion, ReportDatabase
from mesh.state.database_model import DatabaseRole, DatabaseSpec, DatabaseStatus, Lag
from sidecar.postgres.account import CHECKPOINT_S, HAND_OVER_S, PATIENCE_S
from sidecar.postgres.leading import DatabaseLeading
from sidecar.postgres.model import Lsn, SealReport, Timeline, TimelineHistory
from tests.postgres.waiting import until_true
from tests.state.database_steps import IDENTIFIER, made, open_primary, publish
from tests.state.model_state import A, B, C, Cluster, member

S = 10**9
NOW = 1_000 * S
STANDBY = DatabaseStatus(
    DatabaseRole.STANDBY, "", IDENTIFIER, 1, True, False, Lag.CLOSE, "10.0.0.2:5432", "15.18", FencingTerm(1)
)


async def nobody(_host: HostId, _term: FencingTerm) -> SealReport:
    raise AssertionError("nobody is asked in this test")


def leading(host: HostId = B) -> DatabaseLeading:
    return DatabaseLeading(host, nobody, lambda: None)


def serving() -> Cluster:
    """Host1 is primary and open; a promotion without it asks both others."""
    cluster = made()
    cluster.do(publish(B, C, quorum=2, version=0))
    report(cluster, A, open_primary())
    report(cluster, B, STANDBY)
    report(cluster, C, STANDBY)
    return cluster


def report(cluster: Cluster, host: HostId, status: DatabaseStatus) -> None:
    cluster.do(ReportDatabase(host, member(host).member, status))


def standings(*lost: HostId, crashed: HostId | None = None) -> dict[HostId, HostStanding]:
    found = {}
    for host in (A, B, C):
        verdict = Verdict.LOST if host in lost else Verdict.ALIVE
        found[host] = HostStanding(host, verdict, 0, 0, crashed_at=1 if host == crashed else None)
    return found


def planned(
    leader: DatabaseLeading, cluster: Cluster, now: int = NOW, *lost: HostId, leaving: tuple[HostId, ...] = ()
) -> NamePlan:
    plan = leader.plan(cluster.state, standings(*lost), leaving, now)
    assert plan is not None
    return plan


def sealed(host: HostId, flushed: int) -> SealReport:
    return SealReport(host, FencingTerm(1), IDENTIFIER, TimelineHistory(Timeline(1)), Lsn(flushed))


# ---- the ordinary course --------------------------------------------------------


def test_without_a_declaration_nothing_is_planned() -> None:
    """Goal: clusters without a database pay nothing. Method: no declaration."""
    assert leading().plan(Cluster().state, standings(), (), NOW) is None


def test_the_database_is_made_on_a_host_that_carries_postgresql_the_leader_if_it_does() -> None:
    """Goal: bootstrap where it can succeed. Method: nobody, one other, and the leader report a database."""
    cluster = Cluster()
    cluster.do(DeclareDatabase(DatabaseSpec()))
    nothing = DatabaseStatus(DatabaseRole.NONE)
    assert planned(leading(), cluster) == NamePlan(PRIMARY, Target(None))
    report(cluster, C, nothing)
    assert planned(leading(), cluster).target == Target(C)
    report(cluster, B, nothing)
    assert planned(leading(), cluster).target == Target(B)
    assert planned(leading(), cluster, NOW, leaving=(B,)).target == Target(C)


def test_the_database_is_made_where_data_were_restored() -> None:
    """Goal: what was restored is what the cluster goes on from, and no empty database in its place.

    Method: a host that does not lead has data; then it is lost.
    """
    cluster = Cluster()
    cluster.do(DeclareDatabase(DatabaseSpec()))
    report(cluster, A, DatabaseStatus(DatabaseRole.NONE))
    report(cluster, B, DatabaseStatus(DatabaseRole.NONE))
    report(cluster, C, DatabaseStatus(DatabaseRole.STOPPED, system_identifier=IDENTIFIER, timeline=3))
    leader = leading()
    assert planned(leader, cluster).target == Target(C)
    assert planned(leader, cluster, NOW, C).target == Target(None)
    assert leader.problem == "data were restored on host3, which is not there"


def test_a_host_that_was_to_make_it_and_died_is_replaced() -> None:
    """Goal: a crash during bootstrap is no end. Method: the owner is lost before it recorded anything."""
    cluster = Cluster()
    cluster.do(DeclareDatabase(DatabaseSpec()))
    cluster.do(AssignOwner(PRIMARY, A, FencingTerm(0)))
    report(cluster, C, DatabaseStatus(DatabaseRole.NONE))
    assert planned(leading(), cluster).target == Target(A)
    assert planned(leading(), cluster, NOW, A).target == Target(C)


def test_a_primary_that_serves_is_left_alone_and_guarded() -> None:
    """Goal: no failover without a reason. Method: an open primary of the present number."""
    leader, cluster = leading(), serving()
    assert planned(leader, cluster) == NamePlan(PRIMARY, Target(A), 1, FencingTerm(1))
    assert leader.problem == ""


# ---- failover -------------------------------------------------------------------


async def test_a_lost_primary_is_succeeded_by_the_furthest_of_a_sealed_quorum() -> None:
    """Goal: the whole course on the leader. Method: hosts that answer; plans before, during, after."""
    asked: list[tuple[HostId, FencingTerm]] = []

    async def seal(host: HostId, term: FencingTerm) -> SealReport:
        asked.append((host, term))
        return sealed(host, 200 if host == C else 100)

    woken: list[None] = []
    leader, cluster = DatabaseLeading(B, seal, lambda: woken.append(None)), serving()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(leader.run())
        first = planned(leader, cluster, NOW, A)
        assert first.target == Target(None)
        assert first.look_at is not None
        assert first.commands == (), "nobody had time to answer: that is no refusal"
        await until_true(lambda: len(woken) == 2)
        plan = planned(leader, cluster, NOW + S, A)
        running.cancel()
    assert sorted(asked) == [(B, FencingTerm(1)), (C, FencingTerm(1))]
    assert plan.target == Target(C)
    assert (plan.expected_sync_version, plan.expected_primary_term) == (1, FencingTerm(1))
    (event,) = plan.commands
    assert isinstance(event, RecordEvents)
    assert event.events[0].kind == "database-failover"
    assert planned(leader, cluster, NOW + S, A).commands == (), "told once"


def test_nobody_is_named_while_too_few_answer_and_the_journal_says_so_once() -> None:
    """Goal: no acknowledged commit is given up in silence. Method: one of the two that are asked answers."""

    leader, cluster = leading(), serving()
    leader._reports, leader._said_by = {B: sealed(B, 100)}, {B: member(B).member}
    plan = planned(leader, cluster, NOW, A, C)
    assert plan.target == Target(None)
    assert [each.events[0].kind for each in plan.commands if isinstance(each, RecordEvents)] == [
        "database-failover-refused"
    ]
    assert "c" in leader.problem
    assert "accept the loss" in leader.problem
    assert planned(leader, cluster, NOW + S, A, C).commands == ()


def test_what_a_host_said_before_it_was_wiped_is_forgotten() -> None:
    """Goal: a promise lives in the data that were wiped. Method: the host joins anew between two plans."""
    leader, cluster = leading(), serving()
    leader._reports = {host: sealed(host, 100) for host in (B, C)}
    leader._said_by = {host: member(host).member for host in (B, C)}
    assert planned(leader, cluster, NOW, A).target == Target(B)
    cluster.do(RemoveMember(member(C).member))
    assert planned(leader, cluster, NOW, A).target == Target(None)


def test_a_holder_that_lives_and_does_not_serve_is_given_time_and_then_given_up() -> None:
    """Goal: a restart in place is shorter than a failover, a broken server is not waited for.

    Method: the server is down; plans before and after the patience; patience doubles after a fruitless one.
    """
    leader, cluster = leading(), serving()
    down = replace(open_primary(), role=DatabaseRole.STOPPED, is_open=False)
    report(cluster, A, down)
    assert planned(leader, cluster).target == Target(A)
    late = NOW + int(PATIENCE_S * S) + 1
    assert planned(leader, cluster, late).target == Target(None)
    cluster.do(AssignOwner(PRIMARY, A, FencingTerm(1)))
    assert planned(leader, cluster, late).target == Target(A)
    assert planned(leader, cluster, late + int(1.5 * PATIENCE_S * S)).target == Target(A)
    assert planned(leader, cluster, late + int(2 * PATIENCE_S * S) + 1).target == Target(None)


def test_a_holder_that_comes_up_again_is_given_its_time_anew() -> None:
    """Goal: a recovery that is about to end is not thrown away. Method: down, recovering, up, no further."""
    leader, cluster = leading(), serving()
    step = int(0.9 * PATIENCE_S * S)
    for number, role in enumerate((DatabaseRole.STOPPED, DatabaseRole.RECOVERING, DatabaseRole.PRIMARY)):
        report(cluster, A, replace(open_primary(), role=role, is_open=False))
        assert planned(leader, cluster, NOW + number * step).target == Target(A)
    report(cluster, A, replace(open_primary(), role=DatabaseRole.RECOVERING, is_open=False))
    assert planned(leader, cluster, NOW + 3 * step).target == Target(A)
    assert planned(leader, cluster, NOW + 4 * step).target == Target(None)


def test_a_chosen_host_without_data_is_given_up_so_that_the_last_primary_can_go_on() -> None:
    """Goal: it heals when those with the data return.

    Method: the chosen host lost its data before it recorded anything; the last primary comes back.
    """
    leader, cluster = leading(), serving()
    cluster.do(AssignOwner(PRIMARY, B, FencingTerm(1)))
    report(cluster, B, DatabaseStatus(DatabaseRole.NONE))
    assert planned(leader, cluster, NOW, A).target == Target(B)
    late = NOW + int(PATIENCE_S * S) + 1
    plan = planned(leader, cluster, late, A)
    assert plan.target == Target(None)
    assert "accept the loss" in leader.problem
    back = replace(sealed(A, 300), fencing_term=FencingTerm(2), primary_term=FencingTerm(1))
    leader._reports, leader._said_by = {A: back}, {A: member(A).member}
    assert planned(leader, cluster, late).target == Target(A)


def test_a_holder_whom_nobody_could_succeed_is_not_given_up() -> None:
    """Goal: giving up what cannot be had elsewhere helps nobody. Method: one voter is lost."""
    leader, cluster = leading(), serving()
    report(cluster, A, replace(open_primary(), role=DatabaseRole.STOPPED, is_open=False))
    planned(leader, cluster, NOW, C)
    assert planned(leader, cluster, NOW + 60 * S, C).target == Target(A)


# ---- handing over ---------------------------------------------------------------


def test_a_drained_primary_hands_over_to_a_standby_that_can_take_over() -> None:
    """Goal: maintenance loses nothing. Method: the primary's host is drained; the leader's host is preferred;
    asked once; nobody is asked while no standby is fit."""
    leader, cluster = leading(), serving()
    cluster.do(DrainHost(A, draining=True))
    assert planned(leader, cluster).commands == (RequestRelease(PRIMARY, B, FencingTerm(1)),)
    assert planned(leader, cluster).commands == ()
    report(cluster, B, replace(STANDBY, lag=Lag.FAR))
    assert planned(leading(), cluster).commands == (RequestRelease(PRIMARY, C, FencingTerm(1)),)
    report(cluster, C, replace(STANDBY, is_streaming=False, lag=Lag.UNKNOWN))
    assert planned(leading(), cluster).commands == ()


def test_a_hand_over_that_does_not_end_is_called_off() -> None:
    """Goal: a switchover is no outage without end. Method: the holder goes on; before and after."""
    leader, cluster = leading(), serving()
    cluster.do(RequestRelease(PRIMARY, C, FencingTerm(1)))
    assert planned(leader, cluster).target == Target(None)
    late = NOW + int(CHECKPOINT_S * S) + 1
    assert planned(leader, cluster, late).target == Target(A), "it is given the ownership anew, and goes on"


def test_a_hand_over_that_writes_its_checkpoint_while_it_serves_is_given_time() -> None:
    """Goal: a large database can be moved. Method: asked, open for long, then closed."""
    leader, cluster = leading(), serving()
    cluster.do(RequestRelease(PRIMARY, C, FencingTerm(1)))
    assert planned(leader, cluster).target == Target(None)
    at = NOW + 60 * S
    assert planned(leader, cluster, at).target == Target(None)
    report(cluster, A, replace(open_primary(), is_open=False))
    assert planned(leader, cluster, at).target == Target(None)
    assert planned(leader, cluster, at + int(HAND_OVER_S * S) + 1).target == Target(A)


def test_whom_a_switchover_goes_to_and_why_not() -> None:
    """Goal: refused before anything stops. Method: the best, a named one, a far one, the primary, none."""
    leader, cluster = leading(), serving()
    assert leader.successor(cluster.state, None, NOW) == (B, "")
    assert leader.successor(cluster.state, C, NOW) == (C, "")
    assert "is the primary already" in leader.successor(cluster.state, A, NOW)[1]
    report(cluster, C, replace(STANDBY, lag=Lag.BEHIND))
    assert "too far behind" in leader.successor(cluster.state, C, NOW)[1]
    assert leader.successor(Cluster().state, None, NOW) == (None, "there is no primary")


def test_leadership_follows_only_a_primaryship_that_was_assigned_in_it() -> None:
    """Goal: a transfer that somebody asked for is left alone. Method: the number found, a later one."""
    leader, cluster = leading(), serving()
    planned(leader, cluster)
    owner = cluster.state.owners[PRIMARY]
    assert not leader.moved_here(owner)
    cluster.do(AssignOwner(PRIMARY, C, FencingTerm(1)))
    cluster.do(RecordPromotion(C, 2, FencingTerm(2)))
    assert leader.moved_here(cluster.state.owners[PRIMARY])


async def test_in_a_hand_over_the_others_are_asked_as_soon_as_the_holder_has_stopped() -> None:
    """Goal: nobody waits for another plan while nobody serves. Method: one plan; the holder answers later."""
    asked: list[HostId] = []
    has_stopped = asyncio.Event()

    async def seal(host: HostId, _term: FencingTerm) -> SealReport:
        asked.append(host)
        if host == A:
            await has_stopped.wait()
            return replace(sealed(A, 200), primary_term=FencingTerm(1), ended_cleanly=True)
        return sealed(host, 200)

    leader, cluster = DatabaseLeading(A, seal, lambda: None), serving()
    cluster.do(RequestRelease(PRIMARY, C, FencingTerm(1)))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(leader.run())
        planned(leader, cluster)
        await until_true(lambda: asked == [A])
        has_stopped.set()
        await until_true(lambda: len(leader._reports) == 3)
        running.cancel()
    assert sorted(asked) == [A, B, C], "each once"
    assert planned(leader, cluster).target == Target(C)


async def test_an_answer_of_a_primaryship_that_is_over_by_then_is_not_kept() -> None:
    """Goal: a late word does not stand for a new one. Method: the number rises while one is asked."""
    may_answer = asyncio.Event()

    async def seal(host: HostId, _term: FencingTerm) -> SealReport:
        await may_answer.wait()
        return sealed(host, 100)

    leader, cluster = DatabaseLeading(B, seal, lambda: None), serving()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(leader.run())
        planned(leader, cluster, NOW, A)
        await until_true(lambda: bool(leader._to_seal))
        cluster.do(AssignOwner(PRIMARY, C, FencingTerm(1)))
        planned(leader, cluster, NOW)
        may_answer.set()
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
    assert leader._reports == {}


def test_patience_begins_when_somebody_else_could_take_over() -> None:
    """Goal: a database that has just been made is not failed over. Method: closed for long, alone."""
    leader, cluster = leading(), made()
    report(cluster, A, replace(open_primary(), is_open=False))
    planned(leader, cluster)
    cluster.do(publish(B, C, quorum=2, version=0))
    late = NOW + 60 * S
    assert planned(leader, cluster, late).target == Target(A)
    assert planned(leader, cluster, late + int(PATIENCE_S * S) + 1).target == Target(None)


async def test_who_was_sealed_by_an_earlier_leader_is_not_left_behind() -> None:
    """Goal: a standby that is sealed at the number of a primary that is well streams again.

    Method: the leader that sealed it is gone; its status says so; asked again, the primary gets a new number.
    """
    asked: list[HostId] = []

    async def seal(host: HostId, term: FencingTerm) -> SealReport:
        asked.append(host)
        return sealed(host, 100)

    leader, cluster = DatabaseLeading(B, seal, lambda: None), serving()
    report(cluster, C, replace(STANDBY, is_streaming=False, fencing_term=FencingTerm(0)))
    assert planned(leader, cluster).target == Target(A), "it is about to connect"
    report(cluster, C, replace(STANDBY, is_streaming=False))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(leader.run())
        assert planned(leader, cluster).target == Target(A)
        await until_true(lambda: C in leader._reports)
        plan = planned(leader, cluster)
        running.cancel()
    assert asked == [C]
    assert plan.target == Target(A, renew=True)
