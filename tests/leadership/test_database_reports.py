"""How a host's database gets from its beats into the replicated state, and only when it is news."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2, heartbeat_pb2_grpc

from mesh import limits
from mesh.ids import ClusterId, FencingTerm, HostId, Index, MemberId, Term
from mesh.lease.holder import HostLease
from mesh.lease.model import ElectedBy, Election
from mesh.lease.timers import LeaseTimers
from mesh.state.commands import SetHostStatus
from mesh.state.database_commands import ReportDatabase
from mesh.state.database_model import DatabaseRole, DatabaseStatus, Lag
from mesh.state.model import HostStatus
from mesh.state.service import InstanceStatus
from sidecar.leadership import decide
from sidecar.leadership.answers import BeatAnswers
from sidecar.leadership.beat import Beat, BeatReply
from sidecar.leadership.beat_stream import GrpcBeatStream
from sidecar.leadership.beats import Beats
from sidecar.leadership.driver import LeaderDuty
from sidecar.leadership.reports import Reports
from sidecar.leadership.server import HeartbeatServicer
from tests.leadership.test_moments import OneVoter, OwnHost, nothing
from tests.state.model_state import A, B, Cluster, member, status

STANDBY = DatabaseStatus(
    DatabaseRole.STANDBY, "", "42", 3, True, False, Lag.CLOSE, "10.0.0.2:5432", "15.18", FencingTerm(4)
)
STOPPED = replace(STANDBY, role=DatabaseRole.STOPPED, is_streaming=False, health="the disk is full")
CLUSTER = ClusterId("c" * 32)
WAIT_S = 5.0


# ---- what the leader proposes ---------------------------------------------------------


def command(
    cluster: Cluster, reported: DatabaseStatus | None, *, host: HostId = B, complete: bool = True
) -> ReportDatabase | None:
    return decide.database_command(cluster.state, host, member(host).member, reported, complete=complete)


def test_a_database_is_proposed_once_and_only_when_it_is_news() -> None:
    """Goal: hosts may repeat themselves at no cost. Method: the same report twice, then one changed field."""
    cluster = Cluster()
    first = command(cluster, STANDBY)
    assert first == ReportDatabase(B, member(B).member, STANDBY)
    cluster.do(first)
    assert command(cluster, STANDBY) is None
    changed = command(cluster, STOPPED, complete=False)
    assert changed == ReportDatabase(B, member(B).member, STOPPED)


def test_a_sentence_that_is_too_long_is_news_once() -> None:
    """Goal: a verbose failure does not fill the log. Method: a long sentence, reported twice."""
    cluster = Cluster()
    verbose = replace(STOPPED, health="x" * 3 * limits.EVENT_CHARS_MAX)
    first = command(cluster, verbose)
    assert first is not None
    cluster.do(first)
    assert command(cluster, verbose) is None


def test_that_a_host_has_none_counts_when_it_told_everything() -> None:
    """Goal: silence is not taken for absence. Method: none, complete and not, known and not."""
    cluster = Cluster()
    assert command(cluster, None) is None
    cluster.do(ReportDatabase(B, member(B).member, STANDBY))
    assert command(cluster, None, complete=False) is None
    assert command(cluster, None) == ReportDatabase(B, member(B).member, None)


def test_a_lost_host_an_earlier_incarnation_and_a_stranger_report_nothing() -> None:
    """Goal: what was closed when the host was lost is not opened by its last words."""
    cluster = Cluster()
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.LOST, "no beat"))
    assert command(cluster, STANDBY) is None
    assert command(cluster, STANDBY, host=HostId("host9")) is None
    earlier = member(A, 2).member
    assert decide.database_command(cluster.state, A, earlier, STANDBY, complete=True) is None
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.ALIVE))
    assert command(cluster, STANDBY) is not None


def test_reports_keep_the_newest_word_of_each_host() -> None:
    """Goal: an incremental beat without a database changes nothing of it.

    Method: complete with one, incremental without, with another; complete without.
    """
    reports, of = Reports(), member(B).member
    assert reports.take(B, of, (), complete=True, database=STANDBY)
    assert not reports.take(B, of, (), complete=True, database=STANDBY)
    assert not reports.take(B, of, (), complete=False)
    assert reports.items()[0][1].database == STANDBY
    revision = reports.revision
    assert reports.take(B, of, (), complete=False, database=STOPPED)
    assert (reports.items()[0][1].database, reports.revision) == (STOPPED, revision + 1)
    assert reports.take(B, of, (), complete=True)
    assert reports.items()[0][1].database is None


# ---- what beats carry -----------------------------------------------------------------


class Follower:
    """A local member that follows host1."""

    leader: MemberId | None = member(A).member
    term = Term(1)
    applied = Index(7)

    def quorum_confirmed_at(self) -> int | None:
        return None


class Host:
    """A host of which everything can be changed."""

    def __init__(self) -> None:
        self.status: DatabaseStatus | None = None

    def instances(self) -> tuple[InstanceStatus, ...]:
        return (status(B),)

    def state_hash(self) -> tuple[Index, bytes]:
        return Index(0), b""

    def capacity(self) -> heartbeat_pb2.Capacity:
        return heartbeat_pb2.Capacity()

    def is_draining(self) -> bool:
        return False

    def database(self) -> DatabaseStatus | None:
        return self.status


class Stream:
    """Takes beats and never answers."""

    def __init__(self) -> None:
        self.sent: list[Beat] = []
        self.arrived = asyncio.Event()

    async def send(self, beat: Beat) -> None:
        self.sent.append(beat)
        self.arrived.set()

    async def replies(self) -> AsyncIterator[BeatReply]:
        await asyncio.Event().wait()
        yield BeatReply(None)  # type: ignore[arg-type]  # never reached: it makes this a generator

    def close(self) -> None: ...

    async def next(self) -> Beat:
        async with asyncio.timeout(WAIT_S):
            await self.arrived.wait()
        self.arrived.clear()
        return self.sent[-1]


async def test_beats_tell_the_database_when_it_changed_and_completely_when_it_is_gone() -> None:
    """Goal: the leader knows the present database from the beats of one stream alone, at least cost.

    Method: no database, a new one, the same, another, none again.
    """
    host, stream = Host(), Stream()
    beats = Beats(
        member=member(B).member, timers=LeaseTimers(), lease=HostLease(), consensus=Follower(),
        observed=host, open_stream=lambda _: stream, others=lambda: (), on_lease=lambda: None,
        on_diverged=lambda: None, boottime_ns=time.monotonic_ns,
    )  # fmt: skip
    running = asyncio.create_task(beats.run(), name="beats")
    try:
        first = await stream.next()
        assert (first.complete, first.database, len(first.instances)) == (True, None, 1)
        told = []
        for present in (STANDBY, STANDBY, STOPPED, None, None):
            host.status = present
            beats.wake()
            beat = await stream.next()
            told.append((beat.complete, beat.database, len(beat.instances)))
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert told == [
        (False, STANDBY, 0),
        (False, None, 0),
        (False, STOPPED, 0),
        (True, None, 1),
        (False, None, 0),
    ]


async def test_a_database_reaches_the_replicated_state_over_the_wire() -> None:
    """Goal: every part of the way knows it. Method: a real stream to a real leadership; wait for its row.

    Then the leader's own, which takes no stream.
    """
    cluster, now = Cluster(), time.monotonic_ns
    own: list[DatabaseStatus | None] = [None]
    duty = LeaderDuty(
        host=A, member=member(A).member, timers=LeaseTimers(), replicated=OneVoter(cluster, 0), own=OwnHost(),
        own_database=lambda: own[0], election=Election(now(), ElectedBy.TIMEOUT, None, 0),
        serve_from=Index(0), extra_commands=lambda *_: (), change_membership=nothing, boottime_ns=now,
    )  # fmt: skip
    answers = BeatAnswers(
        timers=LeaseTimers(), duty=lambda: duty, term=lambda: Term(2), state_hash=lambda: (Index(0), b"")
    )
    servicer = HeartbeatServicer(cluster=CLUSTER, answers=answers, leader=lambda: None, caller=lambda: None)
    server = grpc.aio.server()
    heartbeat_pb2_grpc.add_HeartbeatServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = asyncio.create_task(duty.run(), name="duty")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = GrpcBeatStream(CLUSTER, member(B).member, channel)
            for sequence, told in enumerate((STANDBY, None, STOPPED)):
                await stream.send(beat(sequence, told))
                await until_row(cluster, B, told or STANDBY)
            await stream.send(beat(0, None, complete=True))
            await until_row(cluster, B, None)
            own[0] = replace(STANDBY, role=DatabaseRole.PRIMARY, is_streaming=False, is_open=True)
            duty.paced()
            await until_row(cluster, A, own[0])
            stream.close()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await server.stop(None)


def beat(sequence: int, database: DatabaseStatus | None, *, complete: bool | None = None) -> Beat:
    is_first = not sequence if complete is None else complete
    return Beat(sequence, Index(1), Index(0), b"", is_first, draining=False, database=database)


async def until_row(cluster: Cluster, host: HostId, expected: DatabaseStatus | None) -> None:
    """The row of *host* is as expected."""
    async with asyncio.timeout(WAIT_S):
        while True:
            row = cluster.state.database_members.get(host)
            if (row.status if row else None) == expected:
                return
            await asyncio.sleep(0.005)
