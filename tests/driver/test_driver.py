"""One driver among others: batches, fates of proposals, reads, snapshots, failures of its disk."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Draining, NoLeader, NotLeader, OutcomeUnknown, StorageFailed, UnknownCommand
from mesh.ids import Index, MemberId
from mesh.raft.model import Membership, Ready, Role
from tests.driver.switchboard import FAST, running_group
from tests.driver.toys import CLUSTER, UNKNOWN


async def test_a_command_is_applied_everywhere_in_the_same_order(tmp_path: Path) -> None:
    """Goal: replicas never diverge. Method: fifty at once, then compare the lists of all machines."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        outcomes = await asyncio.gather(*(leader.driver.propose(b"%d" % n, timeout_s=5) for n in range(50)))
        assert [outcome for _, outcome in outcomes] == list(range(50))
        await group.settled()
        assert {tuple(part.machine.commands) for part in group.parts.values()} == {
            tuple(b"%d" % n for n in range(50))
        }


async def test_commands_that_come_together_are_stored_together(tmp_path: Path) -> None:
    """Goal: throughput is not one disk flush per command.

    Method: count the store's writes for 200 at once.
    """
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        before = leader.store._state.sequence
        await asyncio.gather(*(leader.driver.propose(b"x", timeout_s=5) for _ in range(200)))
        assert leader.store._state.sequence - before <= 5


async def test_a_follower_refuses_and_names_the_leader(tmp_path: Path) -> None:
    """Goal: a caller's second try hits. Method: write and read at every follower."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        for part in group.others(leader):
            with pytest.raises(NotLeader) as refusal:
                await part.driver.propose(b"x", timeout_s=5)
            assert refusal.value.metadata["leader"] == leader.driver.id
            with pytest.raises(NotLeader):
                await part.driver.read_index(timeout_s=5)


async def test_a_command_that_nobody_here_understands_never_gets_into_the_log(tmp_path: Path) -> None:
    """Goal: a newer host cannot stop all older ones. Method: propose what `check` refuses."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        last = leader.driver.status().last
        with pytest.raises(UnknownCommand):
            await leader.driver.propose(UNKNOWN, timeout_s=5)
        assert leader.driver.status().last == last


async def test_a_command_that_another_leaders_entry_overtakes_is_refused_for_certain(tmp_path: Path) -> None:
    """The old leader is cut off with a command in its log; the others go on without it.

    Its grace is long, so that what it answers rests on the entry that it sees, not on the clock.
    """
    async with running_group(tmp_path) as group:
        for member in group.members:
            await group.stop(member)
            group.start(member, settings=replace(FAST, lost_grace_s=20))
        old = await group.leader()
        group.network.cut_off = {old.driver.id}
        lost = asyncio.create_task(old.driver.propose(b"lost", timeout_s=20))
        rest = [part.driver.id for part in group.others(old)]
        new = await group.leader(among=rest)
        await new.driver.propose(b"kept", timeout_s=5)
        group.network.cut_off = set()
        with pytest.raises(NotLeader, match="certainly not applied"):
            await lost
        await group.settled()
        assert all(part.machine.commands == [b"kept"] for part in group.parts.values())


async def test_a_command_whose_fate_is_not_learned_in_time_is_of_unknown_outcome(tmp_path: Path) -> None:
    """Goal: a timeout is never told as a refusal.

    Method: cut the leader off for longer than the caller waits.
    """
    async with running_group(tmp_path) as group:
        old = await group.leader()
        group.network.cut_off = {old.driver.id}
        with pytest.raises(OutcomeUnknown):
            await old.driver.propose(b"unknown", timeout_s=0.05)
        group.network.cut_off = set()
        await group.leader()


async def test_a_leader_that_lost_its_quorum_does_not_keep_callers_waiting(tmp_path: Path) -> None:
    """No timeout of the caller's: the driver itself gives the command up, after its grace."""
    async with running_group(tmp_path) as group:
        old = await group.leader()
        group.network.cut_off = {old.driver.id}
        with pytest.raises(OutcomeUnknown, match="no longer leads"):
            await old.driver.propose(b"x", timeout_s=30)
        assert old.driver.role is not Role.LEADER


async def test_a_read_includes_what_was_acknowledged_before_it(tmp_path: Path) -> None:
    """Goal: linearizable reads. Method: write, then 100 reads at once; the smallest index counts."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        index, _ = await leader.driver.propose(b"x", timeout_s=5)
        reads = await asyncio.gather(*(leader.driver.read_index(timeout_s=5) for _ in range(100)))
        assert min(reads) >= index


async def test_reads_that_come_together_share_one_round(tmp_path: Path) -> None:
    """Goal: reads do not each cost a round of the cluster. Method: count rounds for 500 at once."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        await leader.driver.propose(b"x", timeout_s=5)
        before = leader.driver._reads._request
        await asyncio.gather(*(leader.driver.read_index(timeout_s=5) for _ in range(500)))
        assert leader.driver._reads._request - before <= 2


async def test_a_leader_without_a_quorum_confirms_no_read(tmp_path: Path) -> None:
    """Goal: a deposed leader that does not know it yet answers nothing stale.

    Method: cut it off, read there.
    """
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        group.network.cut_off = {leader.driver.id}
        with pytest.raises((NoLeader, NotLeader)):
            await leader.driver.read_index(timeout_s=1)


async def test_the_lease_read_is_off_while_the_driver_is_late(tmp_path: Path) -> None:
    """A process that was stopped must not believe in the lease it had before."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        await leader.driver.propose(b"x", timeout_s=5)
        await leader.driver.read_index(timeout_s=5)
        assert leader.driver.lease_read_index() is not None
        threading.Event().wait(0.6)  # the event loop stands still: that is what is tested
        assert leader.driver.lease_read_index() is None


async def test_a_pause_of_the_whole_process_does_not_make_a_follower_stand(tmp_path: Path) -> None:
    """All three stop for less than the leader's own limit and go on in the same term."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        await group.settled()
        term = leader.driver.term
        for _ in range(3):
            threading.Event().wait(0.25)  # the event loop stands still: that is what is tested
            await leader.driver.propose(b"x", timeout_s=5)
        assert (await group.leader()).driver.term == term
        assert leader.driver.counters.stalls >= 1


async def test_leadership_is_handed_over_without_losing_a_command(tmp_path: Path) -> None:
    """Goal: a planned change of leader keeps the log.

    Method: twenty commands, transfer, one more, count at the old leader.
    """
    async with running_group(tmp_path) as group:
        old = await group.leader()
        target = group.others(old)[0].driver.id
        await asyncio.gather(*(old.driver.propose(b"%d" % n, timeout_s=5) for n in range(20)))
        await old.driver.transfer_leadership(target, timeout_s=5)
        new = await group.leader()
        assert new.driver.id == target
        await new.driver.propose(b"after", timeout_s=5)
        await group.settled()
        assert len(old.machine.commands) == 21


async def test_a_member_that_was_away_too_long_gets_a_snapshot(tmp_path: Path) -> None:
    """Goal: compaction leaves nobody behind.

    Method: stop one past four snapshots' worth of entries, compare machines after.
    """
    settings = replace(FAST, snapshot_entries=50)
    async with running_group(tmp_path) as group:
        for member in group.members:
            await group.stop(member)
            group.start(member, settings=settings)
        leader = await group.leader()
        away = group.others(leader)[0].driver.id
        await group.stop(away)
        for _ in range(10):
            await asyncio.gather(*(leader.driver.propose(b"x" * 10, timeout_s=5) for _ in range(20)))
        assert leader.driver.counters.snapshots_taken >= 2
        back = group.start(away, settings=settings)
        await group.settled()
        assert back.machine.commands == leader.machine.commands
        assert back.driver.counters.snapshots_installed == 1


async def test_all_members_come_back_with_everything_acknowledged(tmp_path: Path) -> None:
    """Goal: acknowledged means on disk.

    Method: stop all three, start them on their own directories, compare.
    """
    settings = replace(FAST, snapshot_entries=30)
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        await asyncio.gather(*(leader.driver.propose(b"%d" % n, timeout_s=5) for n in range(70)))
        for member in group.members:
            await group.stop(member)
        for member in group.members:
            group.start(member, settings=settings)
        leader = await group.leader()
        await leader.driver.propose(b"last", timeout_s=5)
        await group.settled()
        expected = [*(b"%d" % n for n in range(70)), b"last"]
        assert all(part.machine.commands == expected for part in group.parts.values())


async def test_a_member_joins_as_learner_and_becomes_a_voter(tmp_path: Path) -> None:
    """Goal: growth without an outage.

    Method: learner, catch up, voter; check what the new member was told.
    """
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        await leader.driver.propose(b"before", timeout_s=5)
        joining = MemberId("host4.1")
        joined = group.start(joining)
        await leader.driver.change_membership(Membership.of(group.members, learners=[joining]), timeout_s=5)
        await joined.driver.wait_applied(leader.driver.applied, timeout_s=5)
        assert joined.machine.commands == [b"before"]
        target = Membership.of([*group.members, joining])
        await leader.driver.change_membership(target, timeout_s=5)
        assert leader.driver.status().membership == target
        await group.settled()
        assert joined.diary.memberships[-1] == target


async def test_stopping_answers_everybody(tmp_path: Path) -> None:
    """Goal: nobody hangs on a driver that is gone.

    Method: a proposal and a wait that cannot end, then stop.
    """
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        group.network.cut_off = {leader.driver.id}
        proposal = asyncio.create_task(leader.driver.propose(b"x", timeout_s=30))
        waiting = asyncio.create_task(leader.driver.wait_applied(Index(10**6), timeout_s=30))
        await asyncio.sleep(0)
        await group.stop(leader.driver.id)
        with pytest.raises(OutcomeUnknown):
            await proposal
        with pytest.raises(Draining):
            await waiting


# ---- the disk ---------------------------------------------------------------------


class FailingStore(SqliteLog):
    """Fails like a disk that has just died."""

    is_dead = False

    def save(self, ready: Ready) -> None:
        if self.is_dead:
            raise StorageFailed("disk I/O error")
        super().save(ready)


class HangingStore(SqliteLog):
    """A disk that takes no write until it is let go."""

    def prepare(self) -> "HangingStore":
        self.may_write = threading.Event()
        self.may_write.set()
        return self

    def save(self, ready: Ready) -> None:
        self.may_write.wait(10)
        super().save(ready)


async def test_a_failed_write_ends_the_driver_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    """Goal: no vote or entry that is not on disk.

    Method: a store that fails from one moment on; the others go on without it.
    """
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        victim = group.others(leader)[0].driver.id
        await group.stop(victim)
        store = FailingStore(tmp_path / victim, CLUSTER, victim, create=False)
        part = group.start(victim, store=store, expected=StorageFailed)
        await group.settled()
        store.is_dead = True
        await leader.driver.propose(b"x", timeout_s=5)
        async with asyncio.timeout(5):
            await part.running
        assert part.machine.commands == []
        del group.parts[victim], group.network.drivers[victim]
        await leader.driver.propose(b"y", timeout_s=5)


async def test_a_hanging_disk_does_not_stop_the_event_loop(tmp_path: Path) -> None:
    """The follower's writes hang; its loop, and the group, go on; it catches up afterwards."""
    async with running_group(tmp_path) as group:
        leader = await group.leader()
        victim = group.others(leader)[0].driver.id
        await group.stop(victim)
        store = HangingStore(tmp_path / victim, CLUSTER, victim, create=False).prepare()
        part = group.start(victim, store=store, settings=FAST)
        await group.settled()
        store.may_write.clear()
        loop = asyncio.get_running_loop()
        started = loop.time()
        for n in range(10):
            await leader.driver.propose(b"%d" % n, timeout_s=5)
        assert loop.time() - started < 2
        assert part.machine.commands == []
        store.may_write.set()
        await group.settled()
        assert len(part.machine.commands) == 10
