"""A host whose disk loses power, turns bits, stalls or refuses, in a running cluster.

It recovers from its peers, or refuses to start and says what to do; what operators do then
(docs/operating.md) is done here as well. Nothing acknowledged is lost, nothing is owned twice.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from tests.disks.powered import PoweredDisk
from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.host import Host
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def powered() -> Iterator[tuple[Cluster, PoweredDisk]]:
    """Three hosts; the data directory of the first is on a disk that can lose power."""
    with Cluster(LoopbackNetwork()) as made, PoweredDisk(made.hosts[0].data_dir) as disk:
        made.found()
        try:
            yield made, disk
        finally:
            if made.hosts[0].is_running():
                made.hosts[0].kill()


@pytest.fixture
def cluster(powered: tuple[Cluster, PoweredDisk]) -> Cluster:
    """The cluster, with every host running."""
    powered[0].heal()
    return powered[0]


@pytest.fixture
def disk(powered: tuple[Cluster, PoweredDisk]) -> PoweredDisk:
    """The first host's."""
    return powered[1]


def lead(cluster: Cluster, host: Host) -> None:
    """Have a host lead a whole cluster."""
    if cluster.wait_whole() is not host:
        done = host.trellis("leader", "transfer", host.name)
        assert done.returncode == 0, done.stderr
        assert cluster.wait_whole() is host


@pytest.mark.parametrize("leads", [True, False])
def test_a_host_that_loses_power_comes_back_with_what_it_promised(
    cluster: Cluster, disk: PoweredDisk, leads: bool
) -> None:
    """Goal: un-synced data may go, promises stay. Method: power off under load, three times."""
    first, second, _ = cluster.hosts
    lead(cluster, first if leads else second)
    with Load(cluster.hosts) as load, Sight(cluster):
        for seed in range(3):
            first.power_off()
            disk.cut_power(seed)
            cluster.wait_leader(cluster.others(first), but=first)
            load.wait_progress()
            first.start()
            cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_all_hosts_lose_power_at_once(cluster: Cluster, disk: PoweredDisk) -> None:
    """Goal: what a majority stored outlives everything. Method: all off under load, then all on."""
    cluster.wait_whole()
    with Load(cluster.hosts) as load:
        for host in cluster.hosts:
            host.kill()
        disk.cut_power(99)
        for host in cluster.hosts:
            host.start()
        cluster.wait_whole(60.0)
        load.wait_progress(20.0)
    load.check()
    cluster.check_same_state()


@pytest.mark.parametrize("part", ["log.sqlite", "watermark", "log.sqlite, log.sqlite-wal"])
def test_a_host_with_a_damaged_log_refuses_and_is_rebuilt_from_its_peers(cluster: Cluster, part: str) -> None:
    """Goal: never a vote with a damaged log. Method: damage it, start, do as docs/operating.md says."""
    cluster.wait_whole()
    last = cluster.hosts[2]
    with Load(cluster.others(last)) as load, Sight(cluster):
        last.kill()
        for name in part.split(", "):
            damage(last, name)
        before = last.log()
        last.start()
        assert last.wait_exit() == 1
        ended = [entry for entry in last.log()[len(before) :] if entry.get("event") == "sidecar-ended"]
        assert ended[-1]["reason"] == "CORRUPTION", last.log()[-3:]
        assert "trellis join with an empty data directory" in str(ended[-1]["error"])
        load.wait_progress()
        shutil.rmtree(last.data_dir)
        wait_for(lambda: is_lost(cluster, last), "the others know that it is gone")
        cluster.join(last, cluster.hosts[1])
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_a_host_whose_log_vanished_does_not_begin_another(cluster: Cluster) -> None:
    """Goal: no second vote under the same name. Method: only the log is gone; then the same repair."""
    cluster.wait_whole()
    last = cluster.hosts[2]
    last.kill()
    shutil.rmtree(last.data_dir / "raft")
    (last.data_dir / "seeds.json").write_text("{}")
    last.start()
    assert last.wait_exit() == 1
    assert "remove the host and join it again" in str(last.logged("sidecar-ended")[-1]["error"])
    shutil.rmtree(last.data_dir)
    wait_for(lambda: is_lost(cluster, last), "the others know that it is gone")
    cluster.join(last, cluster.hosts[1])
    cluster.wait_whole()
    cluster.check_same_state()


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_one_failed_fsync_ends_the_sidecar_and_a_start_mends_it(
    cluster: Cluster, disk: PoweredDisk, error: str
) -> None:
    """Goal: nothing is believed that the disk never got. Method: one fsync fails (and loses its data,
    or the disk is full); the sidecar ends, is started again, and then the power is cut."""
    first = cluster.hosts[0]
    lead(cluster, first)
    with Load(cluster.hosts) as load, Sight(cluster):
        if error == "EIO":
            disk.fail_syncs(1)
        else:
            disk.limit(1 << 16)
        assert first.wait_exit() == 1
        assert first.logged("sidecar-ended")[-1]["reason"] == "STORAGE_FAILED"
        disk.limit(256 << 20)
        cluster.wait_leader(cluster.others(first), but=first)
        load.wait_progress()
        first.start()
        cluster.wait_whole()
        first.power_off()
        disk.cut_power(7)
        first.start()
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_a_leader_whose_disk_stands_still_costs_time_and_nothing_else(
    cluster: Cluster, disk: PoweredDisk
) -> None:
    """Goal: a stall of seconds is no loss. Method: the file system is frozen under load, then goes on."""
    first = cluster.hosts[0]
    lead(cluster, first)
    with Load(cluster.hosts) as load, Sight(cluster):
        os.kill(disk.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 3.0, "three seconds have passed")
        finally:
            os.kill(disk.pid, signal.SIGCONT)
        cluster.wait_whole()
        load.wait_progress()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def damage(host: Host, name: str) -> None:
    """Change a file of a stopped host's log; the write-ahead log is lost whole."""
    path = host.data_dir / "raft" / name
    if name.endswith("-wal"):
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data), 512):
        data[at] ^= 0x10
    path.write_bytes(data)


def is_lost(cluster: Cluster, host: Host) -> bool:
    """The others think so."""
    listed = cluster.hosts[1].trellis("hosts", "--json")
    rows = json.loads(listed.stdout)["hosts"] if listed.returncode == 0 else []
    return any(row["host"] == host.name and row["status"] == "lost" for row in rows)
