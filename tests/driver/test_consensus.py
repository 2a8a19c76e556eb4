"""Three members over real gRPC and TLS in one process: propose and read from anywhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mesh.errors import (
    Draining,
    InvalidRequest,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    QueueFull,
    Refused,
    StorageFailed,
    TrellisError,
)
from mesh.ids import ClusterId, Index, MemberId, Term, host_of
from mesh.raft.model import Role
from tests.driver.switchboard import FAST, fast_raft
from tests.driver.toys import (
    CLUSTER,
    Member,
    ToyAuthority,
    ToyIdentity,
    ToyMachine,
    free_port,
    running_member,
)


@dataclass
class Cluster:
    directory: Path
    identities: dict[MemberId, ToyIdentity]
    addresses: dict[MemberId, str]
    members: dict[MemberId, Member]
    stacks: dict[MemberId, contextlib.AsyncExitStack]
    #: Election timeouts times this; for tests in which nobody may lose leadership on a busy machine.
    patience: int = 1

    async def start(self, member: MemberId, identity: ToyIdentity | None = None) -> Member:
        stack = self.stacks[member] = contextlib.AsyncExitStack()
        self.members[member] = await stack.enter_async_context(
            running_member(
                member,
                self.directory / member,
                identity or self.identities[member],
                self.addresses,
                founders=self.addresses,
                settings=replace(FAST, snapshot_entries=500),
                raft=replace(
                    fast_raft(member),
                    trailing_entries=50,
                    election_ticks_min=15 * self.patience,
                    election_ticks_max=30 * self.patience,
                ),
            )
        )
        return self.members[member]

    async def stop(self, member: MemberId) -> None:
        del self.members[member]
        await self.stacks.pop(member).aclose()

    async def leader(self) -> Member:
        async with asyncio.timeout(10):
            while True:
                for member in self.members.values():
                    if member.consensus.driver.role is Role.LEADER:
                        return member
                await asyncio.sleep(0.01)

    async def followers(self) -> list[Member]:
        leader = await self.leader()
        return [each for each in self.members.values() if each is not leader]


@contextlib.asynccontextmanager
async def cluster_in(directory: Path, *, patience: int = 1) -> AsyncIterator[Cluster]:
    authority = ToyAuthority.create()
    ids = [MemberId(f"host{n}.1") for n in (1, 2, 3)]
    cluster = Cluster(
        directory,
        {member: authority.issue(host_of(member)) for member in ids},
        {member: f"127.0.0.1:{free_port()}" for member in ids},
        {},
        {},
        patience,
    )
    try:
        for member in ids:
            await cluster.start(member)
        yield cluster
    finally:
        for member in list(cluster.stacks):
            await cluster.stop(member)


async def test_any_member_proposes_and_every_member_reads_it(tmp_path: Path) -> None:
    """Goal: it does not matter whom a caller asks. Method: propose at each of three, read at each."""
    async with cluster_in(tmp_path) as cluster:
        for number, member in enumerate(cluster.members.values()):
            index, outcome = await member.consensus.propose_anywhere(
                b"%d" % number, timeout_s=10, repeatable=False
            )
            assert outcome == number
            for reader in cluster.members.values():
                assert await reader.consensus.read_barrier(timeout_s=10) >= index
                assert reader.machine.commands[-1] == b"%d" % number  # type: ignore[union-attr]


async def test_many_commands_of_a_follower_share_its_stream_and_keep_their_answers(tmp_path: Path) -> None:
    """Goal: no answer goes to another's request.

    Method: 500 at once through one follower, each checked against the log.
    """
    async with cluster_in(tmp_path) as cluster:
        follower = (await cluster.followers())[0]
        answers = await asyncio.gather(
            *(
                follower.consensus.propose_anywhere(b"%d" % n, timeout_s=10, repeatable=False)
                for n in range(500)
            )
        )
        await follower.consensus.read_barrier(timeout_s=10)
        commands = follower.machine.commands  # type: ignore[union-attr]
        assert [commands[int(str(outcome))] for _, outcome in answers] == [b"%d" % n for n in range(500)]


async def test_a_command_waits_for_the_next_leader(tmp_path: Path) -> None:
    """The leader stops; a follower is asked at once, and answers when somebody leads again."""
    async with cluster_in(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = (await cluster.followers())[0]
        await follower.consensus.propose_anywhere(b"before", timeout_s=10, repeatable=True)
        stopping = asyncio.create_task(cluster.stop(leader.id))
        _, outcome = await follower.consensus.propose_anywhere(b"after", timeout_s=10, repeatable=True)
        assert outcome in (1, 2)  # a repeated command may have been applied twice: no session here
        await stopping


async def test_a_minority_refuses_writes_and_reads(tmp_path: Path) -> None:
    """Goal: no answer that the majority would not give. Method: stop two of three, ask the third."""
    async with cluster_in(tmp_path) as cluster:
        for follower in await cluster.followers():
            await cluster.stop(follower.id)
        last = next(iter(cluster.members.values()))
        with pytest.raises((NoLeader, OutcomeUnknown)):
            await last.consensus.propose_anywhere(b"x", timeout_s=0.5, repeatable=True)
        with pytest.raises(NoLeader):
            await last.consensus.read_barrier(timeout_s=0.3)
        assert last.machine.commands == []  # type: ignore[union-attr]


async def test_a_planned_transfer_loses_no_command_and_leaves_none_unknown(tmp_path: Path) -> None:
    """Goal: a planned move is invisible to callers.

    Method: five callers that fail on any error, a transfer in between, then count.
    """
    async with cluster_in(tmp_path, patience=3) as cluster:
        leader = await cluster.leader()
        follower, target = await cluster.followers()
        done = asyncio.Event()
        acknowledged = 0

        async def keep_proposing() -> None:
            nonlocal acknowledged
            while not done.is_set():
                await follower.consensus.propose_anywhere(b"x", timeout_s=10, repeatable=False)
                acknowledged += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(keep_proposing())
            await follower.consensus.driver.wait_applied(leader.consensus.applied, timeout_s=5)
            await leader.consensus.driver.transfer_leadership(target.id, timeout_s=5)
            await target.consensus.propose_anywhere(b"moved", timeout_s=5, repeatable=False)
            done.set()
        assert (await cluster.leader()).id == target.id
        await target.consensus.read_barrier(timeout_s=5)
        assert len(target.machine.commands) == acknowledged + 1  # type: ignore[union-attr]


async def test_a_member_that_was_away_catches_up_over_the_snapshot_stream(tmp_path: Path) -> None:
    """Goal: a compacted log leaves nobody behind.

    Method: stop one, write past two snapshots, start it, compare all commands.
    """
    async with cluster_in(tmp_path) as cluster:
        away = (await cluster.followers())[0].id
        await cluster.stop(away)
        leader = await cluster.leader()
        driver = leader.consensus.driver
        for _ in range(5):
            await asyncio.gather(*(driver.propose(b"x" * 1000, timeout_s=10) for _ in range(300)))
        assert driver.counters.snapshots_taken >= 1
        back = await cluster.start(away)
        await back.consensus.driver.wait_applied(driver.applied, timeout_s=10)
        assert back.consensus.driver.counters.snapshots_installed == 1
        assert back.machine.commands == leader.machine.commands  # type: ignore[union-attr]


async def test_a_host_of_another_authority_is_not_heard(tmp_path: Path) -> None:
    """Goal: a stolen name without a certificate is worth nothing.

    Method: a member restarted under another authority.
    """
    async with cluster_in(tmp_path) as cluster:
        out = (await cluster.followers())[0].id
        await cluster.stop(out)
        stranger = await cluster.start(out, ToyAuthority.create("other CA").issue(host_of(out)))
        leader = await cluster.leader()
        await leader.consensus.propose_anywhere(b"x", timeout_s=10, repeatable=False)
        with pytest.raises(NoLeader):
            await stranger.consensus.read_barrier(timeout_s=1)
        assert stranger.consensus.driver.counters.messages_received == 0


async def test_a_host_may_not_speak_for_another(tmp_path: Path) -> None:
    """Its certificate is of the cluster, but names another host than its messages do."""
    async with cluster_in(tmp_path) as cluster:
        out = (await cluster.followers())[0].id
        await cluster.stop(out)
        authority_of_cluster = cluster.identities[out]
        forged = next(identity for member, identity in cluster.identities.items() if member != out)
        assert forged.ca == authority_of_cluster.ca
        leader = await cluster.leader()
        await cluster.start(out, forged)
        counters = leader.consensus.driver.counters
        async with asyncio.timeout(10):
            while not sum(
                each.consensus.driver.counters.dropped["forged-sender"] for each in cluster.members.values()
            ):
                await asyncio.sleep(0.01)
        assert counters.dropped["malformed"] == 0


async def test_a_certain_refusal_after_an_attempt_that_may_have_happened_stays_unknown(
    tmp_path: Path,
) -> None:
    """Goal: nobody is told that nothing was done when it may have been. Method: chosen ends of attempts."""
    ends: list[TrellisError] = []

    async def attempt(data: bytes, timeout_s: float) -> tuple[Index, object]:
        raise ends.pop(0)

    lost, refused = OutcomeUnknown("the answer was lost"), InvalidRequest("too large")
    async with cluster_in(tmp_path) as cluster:
        consensus = (await cluster.leader()).consensus
        consensus._propose_once = attempt  # type: ignore[method-assign] # the ends of attempts are chosen
        ends[:] = [refused]
        with pytest.raises(InvalidRequest):
            await consensus.propose_anywhere(b"x", timeout_s=5, repeatable=True)
        ends[:] = [lost, QueueFull("busy"), refused]
        with pytest.raises(OutcomeUnknown) as told:
            await consensus.propose_anywhere(b"x", timeout_s=5, repeatable=True)
        assert told.value is lost
        assert ends == []


async def test_stopping_while_no_leader_is_known_is_not_a_failure(tmp_path: Path) -> None:
    """A read and a command wait for a leader that never comes; both are answered, and the end is clean."""
    async with cluster_in(tmp_path) as cluster:
        for follower in await cluster.followers():
            await cluster.stop(follower.id)
        last = next(iter(cluster.members.values()))
        await last.consensus.driver.wait_until(lambda status: status.leader is None, timeout_s=10)
        read = asyncio.create_task(last.consensus.read_barrier(timeout_s=20))
        command = asyncio.create_task(last.consensus.propose_anywhere(b"x", timeout_s=20, repeatable=True))
        async with asyncio.timeout(5):
            while len(last.consensus.driver._conditions._waiting) < 2:
                await asyncio.sleep(0.01)
        await cluster.stop(last.id)
        for waiting in (read, command):
            with pytest.raises(Draining):
                await waiting


async def test_an_oversized_command_is_refused(tmp_path: Path) -> None:
    """Goal: one request cannot break the stream of all others.

    Method: a byte more than fits, through a follower.
    """
    async with cluster_in(tmp_path) as cluster:
        follower = (await cluster.followers())[0]
        with pytest.raises(Refused, match="more than"):
            await follower.consensus.propose_anywhere(bytes(1 << 20 | 1), timeout_s=5, repeatable=True)


async def test_new_credentials_reach_the_peers_without_losing_a_command(tmp_path: Path) -> None:
    """Goal: renewal of certificates costs nothing.

    Method: renew in the midst of 30 commands; no error, no election, a new channel.
    """
    async with cluster_in(tmp_path, patience=3) as cluster:
        leader = await cluster.leader()
        follower = (await cluster.followers())[0]
        channel = follower.consensus.transport.channel_to(leader.id)
        for number in range(30):
            if number % 10 == 5:
                follower.consensus.renew_channels()
            _, outcome = await follower.consensus.propose_anywhere(b"x", timeout_s=10, repeatable=False)
            assert outcome == number
        assert follower.consensus.transport.channel_to(leader.id) is not channel
        assert (await cluster.leader()) is leader


async def test_a_command_that_ends_the_driver_ends_the_consensus_with_that_error(tmp_path: Path) -> None:
    """The error itself, not a group around it: its reason is what the operator reads."""

    class BrokenMachine(ToyMachine):
        def apply(self, index: Index, data: bytes) -> object:
            raise StorageFailed("the disk is gone")

    member = MemberId("host1.1")
    identity = ToyAuthority.create().issue(host_of(member))
    address = f"127.0.0.1:{free_port()}"

    async def live_and_die() -> None:
        async with running_member(
            member,
            tmp_path,
            identity,
            {member: address},
            founders=[member],
            settings=FAST,
            machine=BrokenMachine(),
        ) as running:
            await running.consensus.driver.wait_leader(timeout_s=5)
            with pytest.raises(OutcomeUnknown):
                await running.consensus.propose_anywhere(b"x", timeout_s=5, repeatable=False)

    with pytest.raises(ExceptionGroup) as ended:
        await live_and_die()
    assert [type(error) for error in ended.value.exceptions] == [StorageFailed]


@pytest.mark.parametrize(
    ("stranger_cluster", "called", "reason"),
    [
        (ClusterId("f" * 32), "host1.1", "wrong-cluster"),
        (CLUSTER, "host1.2", "wrong-receiver"),
    ],
)
async def test_a_message_for_somebody_else_is_dropped_before_it_touches_state(
    tmp_path: Path, stranger_cluster: ClusterId, called: str, reason: str
) -> None:
    """Certificates of one authority; the stranger is of another cluster, or means another incarnation."""
    authority = ToyAuthority.create()
    here, stranger = MemberId("host1.1"), MemberId("host2.1")
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    own = running_member(
        here,
        tmp_path / here,
        authority.issue(host_of(here)),
        {here: ports[0], stranger: ports[1]},
        founders=[here],
        settings=FAST,
    )
    other = running_member(
        stranger,
        tmp_path / stranger,
        authority.issue(host_of(stranger)),
        {stranger: ports[1], MemberId(called): ports[0]},
        founders=[stranger, MemberId(called)],
        settings=FAST,
        raft=fast_raft(stranger),
        cluster=stranger_cluster,
    )
    async with own as member, other:
        counters = member.consensus.driver.counters
        async with asyncio.timeout(10):
            while not counters.dropped[reason]:
                await asyncio.sleep(0.01)
        assert counters.messages_received == 0


async def test_what_a_leader_decided_in_its_term_never_reaches_another_leader(tmp_path: Path) -> None:
    """Goal: a decision dies with the term it was made in.

    Method: the right term, a later one, and through followers; then count.
    """
    async with cluster_in(tmp_path) as cluster:
        leader = await cluster.leader()
        term = leader.consensus.driver.term
        assert await leader.consensus.propose_in_term(b"own", term=term, timeout_s=10)
        with pytest.raises(NotLeader):
            await leader.consensus.propose_in_term(b"later", term=Term(term + 1), timeout_s=10)
        for follower in await cluster.followers():
            with pytest.raises(NotLeader):
                await follower.consensus.propose_in_term(b"foreign", term=term, timeout_s=10)
        _, outcome = await leader.consensus.propose_anywhere(b"count", timeout_s=10, repeatable=False)
        assert outcome == 1
