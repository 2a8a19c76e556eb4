"""A leader whose disk is full or fails: it must give everything up, say why, and end; another leads."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.host import Host
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

#: More than the sidecar asks for, and little enough to be filled at once.
DISK_MIB = 48


@pytest.fixture(scope="module")
def small_disks() -> Iterator[Cluster]:
    """Three hosts, the first with a data directory of its own small file system."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with Cluster(LoopbackNetwork()) as made:
        data = made.hosts[0].data_dir
        data.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "trellis-test", str(data)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode != 0:
            pytest.skip(f"mounting a small file system is not permitted here: {mounted.stderr.strip()}")
        try:
            made.found()
            yield made
        finally:
            # Lazily: its sidecar is ended later, with the cluster.
            subprocess.run(["umount", "--lazy", str(data)], check=True)


@pytest.fixture
def cluster(small_disks: Cluster) -> Cluster:
    """The cluster, with its first host leading."""
    small_disks.heal()
    first = small_disks.hosts[0]
    if small_disks.wait_whole() is not first:
        done = first.trellis("leader", "transfer", first.name)
        assert done.returncode == 0, done.stderr
        small_disks.wait_whole()
    return small_disks


def check_ended_with_a_reason(host: Host) -> None:
    """The sidecar ends with a code and says that its disk failed."""
    assert host.wait_exit() == 1
    ended = host.logged("sidecar-ended")
    assert ended, host.log()[-5:]
    assert ended[-1]["reason"] == "STORAGE_FAILED", ended[-1]


def check_another_leads(cluster: Cluster, failed: Host, load: Load) -> None:
    """The others go on."""
    others = cluster.others(failed)
    new = cluster.wait_leader(others, but=failed)
    cluster.wait_owner(new)
    load.wait_progress()
    wait_for(lambda: (act := cluster.resource.last()) is not None and act.host == new.name, "it acts")


def test_a_leader_with_a_full_disk_gives_way(cluster: Cluster) -> None:
    """Goal: no write is acknowledged that is not stored. Method: fill its file system under load."""
    leader = cluster.hosts[0]
    ballast = leader.data_dir / "ballast"
    with Load(cluster.hosts) as load, Sight(cluster):
        fill(ballast)
        check_ended_with_a_reason(leader)
        check_another_leads(cluster, leader, load)
        ballast.unlink()
        leader.start()
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_a_leader_whose_disk_fails_gives_way(cluster: Cluster) -> None:
    """Goal: an error of fsync is fatal at once. Method: strace makes the system calls fail from now on."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    leader = cluster.hosts[0]
    calls = "fsync,fdatasync"
    log = cluster.directory / "strace.log"
    with Load(cluster.hosts) as load, Sight(cluster):
        cluster.processes.start(
            [
                *("strace", "-f", "-p", str(leader.pid), "-o", str(log)),
                *("-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"),
            ],
            cluster.directory / "strace.out",
        )
        check_ended_with_a_reason(leader)
        check_another_leads(cluster, leader, load)
        leader.start()
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
        try:
            while file.write(bytes(64)):
                pass
        except OSError:
            return
