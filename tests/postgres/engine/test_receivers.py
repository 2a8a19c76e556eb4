"""Who may receive WAL, and whose word counts: certificates, names, the synchronous set."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import Conflict, DatabaseFailed, InvalidRequest
from mesh.identity.files import HostIdentity
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.ids import FencingTerm, MemberId
from sidecar.postgres.engine import tls
from sidecar.postgres.engine.config import REPLICATION_ROLE, REWIND_ROLE, connection_text
from sidecar.postgres.engine.hands import EngineHands
from sidecar.postgres.engine.local_data import Standing
from sidecar.postgres.engine.looking import Eyes
from sidecar.postgres.engine.tool import Tools
from sidecar.postgres.model import SyncNames
from tests.identity.cast import OTHER_CLUSTER, SEALING_KEY, authority, identity
from tests.postgres.engine.conftest import Cluster, Machine, until

pytestmark = pytest.mark.integration


def operator_called(machine: Machine, name: str) -> HostIdentity:
    """An operator's certificate of the same authority, with a host's name as its own."""
    key = new_key()
    issued = machine.authority.issue_operator(name, make_csr(key, "csr"), time.time_ns())
    return HostIdentity(
        machine.authority.cluster_id,
        MemberId("host2.1"),
        key_to_pem(key),
        issued.certificate_pem,
        machine.authority.certificate_pem,
        SEALING_KEY,
    )


async def receive_as(machine: Machine, source: Machine, into: Path, role: str = REPLICATION_ROLE) -> str:
    """What pg_receivewal says that calls itself host2 and shows the certificate now in *machine*'s files."""
    text = connection_text(machine.layout, machine.postgres.control.config, source.upstream, role)
    into.mkdir()
    os.chown(into, machine.layout.uid, -1)
    tools: Tools = machine.postgres.tools
    (tools.binaries.folder / "pg_receivewal").stat()
    try:
        return await tools.run("pg_receivewal", "-D", str(into), "-n", "-d", text, deadline_s=10.0)
    except DatabaseFailed as error:
        return error.metadata["said"]


async def end_strangers(machine: Machine, is_over: asyncio.Event) -> None:
    """As a primary's driver does."""
    while not is_over.is_set():
        await machine.postgres.control.end_strangers()
        await asyncio.sleep(0.05)


async def test_a_receiver_with_another_certificate_is_refused(cluster: Cluster, folder: Path) -> None:
    """Goal: nobody acknowledges in a host's name.

    Method: receivers that call themselves host2 show other proofs. Versions before 14 see common names only:
    who bears it is let in, and ended at the next look.
    """
    first, second, _ = cluster.machines
    await cluster.up(1)
    is_over = asyncio.Event()
    ending = asyncio.create_task(end_strangers(first, is_over))
    other_authority = authority(OTHER_CLUSTER)
    right, _ = identity(first.authority, "host2.1")
    strangers = {
        "not-a-member": identity(first.authority, "host9.1")[0],
        "earlier-incarnation": identity(first.authority, "host2.7")[0],
        "operator": operator_called(first, "host2"),
        "other-cluster": identity(other_authority, "host2.1")[0],
    }
    for name, shown in strangers.items():
        trusted = HostIdentity(
            shown.cluster_id, shown.member, shown.key_pem, shown.certificate_pem, right.ca_pem, b""
        )
        tls.install_identity(second.layout, trusted)
        said = await receive_as(second, first, folder / name)
        if first.postgres.binaries.major < 14 and name in ("earlier-incarnation", "operator"):
            assert "terminating connection" in said or "closed" in said, (name, said)
            continue
        assert "authentication failed" in said or "unknown ca" in said, (name, said)
    for name in ("host.key", "host.pem"):
        (second.layout.tls / "current" / name).unlink()
    said = await receive_as(second, first, folder / "no-certificate")
    assert "requires a valid client certificate" in said or "does not exist" in said, said
    is_over.set()
    await ending
    assert await first.postgres.control.receivers() == ()


async def test_a_member_that_takes_anothers_name_is_found_and_ended(cluster: Cluster, folder: Path) -> None:
    """Goal: a name counts only with its certificate. Method: host3's certificate, application_name host2."""
    first, second, third = cluster.machines
    await cluster.up(1)
    config = second.postgres.control.config
    text = connection_text(third.layout, config, first.upstream, REPLICATION_ROLE)
    into = folder / "false"
    into.mkdir()
    os.chown(into, third.layout.uid, -1)
    run = third.postgres.tools.run("pg_receivewal", "-D", str(into), "-n", "-d", text, deadline_s=30.0)
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(_said(run))
        found = await until(first.postgres.control.end_strangers, "the stranger is seen")
        said = await receiving
    assert [(each.name, each.host, each.is_stranger) for each in found] == [("host2", "host3", True)]
    assert "disconnected" in said or "terminating connection" in said, said


async def test_a_standby_shows_as_which_member_it_receives(cluster: Cluster) -> None:
    """Goal: who is removed, or replaced by a later incarnation, is known among those whose sessions go on.

    Method: a real standby, judged by members with it, without it, and with its successor.
    """
    first, second = await cluster.up(2)
    (seen,) = await first.postgres.control.receivers()
    assert seen.member == second.member
    assert not seen.is_stranger_among((first.member, second.member))
    assert seen.is_stranger_among((first.member,))
    assert seen.is_stranger_among((first.member, MemberId("host2.2")))
    control = first.postgres.control
    await control.reload(replace(control.config, members=(first.member,)))
    assert [each.pid for each in await control.end_strangers()] == [seen.pid]
    await until(lambda: _nobody(first), "its session ends")


async def _nobody(machine: Machine) -> bool:
    return await machine.postgres.control.receivers() == ()


async def _said(run: "asyncio.Future[str] | object") -> str:
    try:
        return str(await run)  # type: ignore[misc]
    except DatabaseFailed as error:
        return error.metadata["said"]


async def test_a_commit_waits_until_one_standby_has_it(cluster: Cluster) -> None:
    """Goal: strict durability.

    Method: both standbys sealed, a commit hangs; one follows again, it returns.
    """
    first, second, third = await cluster.up()
    async with await first.client() as client:
        await client.execute("CREATE TABLE t (n int)")
        await second.postgres.control.seal()
        await client.execute("INSERT INTO t VALUES (1)")  # host3 has it
        await third.postgres.control.seal()
        async with asyncio.TaskGroup() as tasks:
            commit = tasks.create_task(client.execute("INSERT INTO t VALUES (2)"))
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            await until(lambda: first.postgres.control._query(waiting), "the commit waits")
            assert not commit.done()
            await second.postgres.control.follow(first.upstream)
            await asyncio.wait_for(commit, 5.0)
        seen = await first.postgres.control.receivers()
        assert [each.name for each in seen] == ["host2"]


async def test_names_are_in_force_in_every_walsender_even_when_a_standby_hangs(cluster: Cluster) -> None:
    """Goal: no walsender acts by old names. Method: a receiver is frozen; its walsender is ended."""
    first, second, third = await cluster.up()
    frozen = await until(lambda: _receiver_pid(third), "a receiver")
    os.kill(frozen, signal.SIGSTOP)
    try:
        before = {each.name: each.pid for each in await first.postgres.control.receivers()}
        barrier = await first.postgres.control.set_sync(SyncNames(1, (second.host,)))
        after = {each.name: each for each in await first.postgres.control.receivers()}
        assert after["host2"].flushed >= barrier
        assert "host3" not in after or after["host3"].pid != before["host3"]
    finally:
        os.kill(frozen, signal.SIGCONT)


async def test_names_that_a_hand_has_overridden_are_seen_and_taken_back(cluster: Cluster) -> None:
    """Goal: no commit is acknowledged by others than those that a promotion asks.

    Method: ALTER SYSTEM says that nobody is waited for; the engine looks, and sets its names again.
    """
    first, second = await cluster.up(2)
    control, names = first.postgres.control, SyncNames(1, (second.host,))
    eyes = Eyes(first.postgres, Standing(first.layout))

    async def is_odd() -> bool:
        return (await eyes.look("", "")).local.process.has_other_names

    assert not await is_odd()
    await control._query("ALTER SYSTEM SET synchronous_standby_names = ''")
    await control._query("SELECT pg_reload_conf()")
    await until(is_odd, "the override is seen")
    assert await control.set_sync(names) > 0
    assert not await is_odd()
    assert await control._query("SHOW synchronous_standby_names") == [('ANY 1 ("host2")',)]
    await control.set_sync(SyncNames(1, (second.host, cluster.names[2])))
    assert not await is_odd()


async def _receiver_pid(machine: Machine) -> int:
    text = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
    rows = await machine.postgres.control._query(text)
    return int(rows[0][0]) if rows else 0


async def test_parameters_that_the_server_refuses_change_nothing(cluster: Cluster) -> None:
    """Goal: a bad declaration harms nobody. Method: refused, not ours, needing a restart, and good ones."""
    (first,) = await cluster.up(1)
    control = first.postgres.control
    for bad in (
        ("no_such_parameter", "1"),
        ("work_mem", "many"),
        ("fsync", "off"),
        ("shared_buffers", "much"),
        ("trellis.revision", "1"),
    ):
        with pytest.raises(InvalidRequest):
            await control.set_parameters((bad,))
    assert await control.set_parameters((("work_mem", "8MB"), ("max_connections", "123"))) == {
        "max_connections": True,
        "shared_buffers": False,
    }
    assert await control._query("SHOW work_mem") == [("8MB",)]


@pytest.mark.parametrize("cluster", ["found", "wheel"], indirect=True)
async def test_what_is_declared_for_clients_does_not_rule_the_manager(cluster: Cluster) -> None:
    """Goal: a checkpoint, or a role that is made, is not broken off. Method: short limits, a longer query."""
    (first,) = await cluster.up(1)
    control = first.postgres.control
    limits = [
        ("statement_timeout", "20ms"),
        ("lock_timeout", "20ms"),
        ("default_transaction_read_only", "on"),
    ]
    if first.postgres.binaries.major >= 17:
        limits.append(("transaction_timeout", "20ms"))
    await control.set_parameters(tuple(limits))
    control.close()
    await control._query("SELECT pg_sleep(0.1)")
    await control._query("CREATE ROLE somebody")


async def test_the_rewind_role_reaches_only_what_a_rewind_needs(cluster: Cluster, folder: Path) -> None:
    """Goal: least rights. Method: the rewind role asks for replication, and is refused."""
    first, second, _ = cluster.machines
    await cluster.up(1)
    said = await receive_as(second, first, folder / "rewind", REWIND_ROLE)
    assert "rejects" in said or "no pg_hba.conf entry" in said, said


async def test_slots_follow_the_hosts(cluster: Cluster) -> None:
    """Goal: WAL is kept for members and for nobody else.

    Method: fewer hosts, one whose slot is in use, a slot of somebody else.
    """
    first, second = await cluster.up(2)
    control = first.postgres.control
    await control._query("SELECT pg_create_physical_replication_slot('of_somebody')")
    assert [slot.name for slot in await control.slots()] == ["of_somebody", "trellis_host2", "trellis_host3"]
    await control.set_slots((second.host,))
    assert [slot.name for slot in await control.slots()] == ["of_somebody", "trellis_host2"]
    with pytest.raises(Conflict, match="in use"):
        await control.set_slots(())
    await control.set_slots(cluster.names[1:])
    kept = {slot.name: slot for slot in await control.slots()}
    assert kept["trellis_host3"].keeps_from > 0
    assert not kept["trellis_host3"].is_active
    assert kept["trellis_host2"].is_active
    await first.postgres.postmaster.trim_log()


async def test_a_paused_standby_says_so_and_goes_on_once_it_is_sealed(cluster: Cluster) -> None:
    """Goal: people are told, and a failover can count on it. Method: replay is paused, WAL comes, a seal."""
    first, second = await cluster.up(2)
    control, shown = second.postgres.control, identity(second.authority, second.member)[0]
    hands = EngineHands(second.postgres, lambda: shown, lambda: None)
    await control._query("SELECT pg_wal_replay_pause()")
    barrier = await first.postgres.control.write_barrier()
    started = (await hands.look("")).started

    async def is_paused() -> bool:
        sight = await hands.look("")
        return "paused" in sight.problem and sight.is_catching_up and sight.behind > 0

    async def has_all() -> bool:
        sight = await hands.look("")
        return not sight.is_catching_up and sight.behind == 0

    await until(is_paused, "it says so")
    await hands.seal(FencingTerm(4), None)
    await until(has_all, "it replays what it has")
    sight = await hands.look("")
    assert (sight.problem, sight.local.sealed_under) == ("", 4)
    if second.postgres.binaries.major < 14 and not sight.started:
        return  # it looks up once a second there: too late for the seal, which ends it
    assert sight.started == started
    assert sight.local.process.flushed >= barrier


async def switch(machine: Machine, times: int) -> None:
    """End so many segments of WAL."""
    for _ in range(times):
        await machine.postgres.control.write_barrier()
        await machine.postgres.control._query("SELECT pg_switch_wal()")


async def test_slots_of_a_standby_go_along(cluster: Cluster) -> None:
    """Goal: a standby keeps some WAL for the others, and not all. Method: four segments, one to be kept."""
    first, second = await cluster.up(2)
    control = second.postgres.control
    before = {slot.name: slot.keeps_from for slot in await control.slots()}
    await switch(first, 4)
    barrier = await first.postgres.control.write_barrier()

    async def has_replayed() -> bool:
        return (await control.look()).replayed >= barrier

    await until(has_replayed, "the standby has it")
    await control.advance_slots(1 << 30)
    assert {slot.name: slot.keeps_from for slot in await control.slots()} == before
    await control.advance_slots(16 << 20)
    for slot in await control.slots():
        assert before[slot.name] + (32 << 20) < slot.keeps_from <= barrier - (16 << 20)


async def test_a_slot_that_lost_its_wal_is_made_anew(cluster: Cluster) -> None:
    """Goal: once its host was copied, WAL is kept for it again. Method: one keeps more than it may."""
    (first,) = await cluster.up(1)
    control, lost = first.postgres.control, cluster.names[2]
    eyes = Eyes(first.postgres, Standing(first.layout))
    eyes.hosts = cluster.names
    assert lost in (await eyes.look("", "")).local.slots
    await control.set_parameters((("max_slot_wal_keep_size", "16MB"), ("wal_keep_size", "0")))
    await switch(first, 4)
    await control.checkpoint(30.0)
    eyes.slots_changed()
    assert lost not in (await eyes.look("", "")).local.slots
    await control.set_slots(cluster.names[1:])
    eyes.slots_changed()
    assert lost in (await eyes.look("", "")).local.slots
    assert all(slot.keeps_from > 0 for slot in await control.slots())


async def test_a_standby_that_hangs_is_sealed_by_its_end(cluster: Cluster) -> None:
    """Goal: a failover never waits for a frozen standby. Method: freeze one, seal both, start it again."""
    first, second, third = await cluster.up()
    third.postgres.postmaster.signal(signal.SIGSTOP)
    view = await second.postgres.seal()
    assert view is not None
    began = time.monotonic()
    assert await third.postgres.seal(0.3) is None
    assert time.monotonic() - began < 2.0
    assert third.postgres.postmaster.is_gone()
    assert await third.start(as_standby=True) == "standby"
    again = await third.postgres.control.look()
    assert not again.has_receiver
    assert again.flushed >= view.flushed - 8192
    assert [each.name for each in await first.postgres.control.receivers()] == []
