"""Active-standby instances: told to the fence, killed at once, never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mesh.state.service import InstanceState
from tests.supervisor.conftest import SLEEP, Site, assigned, settings_in, supervised
from tests.supervisor.test_life import is_alive

SIDECAR = """
import asyncio, sys
from pathlib import Path
from tests.supervisor.conftest import SLEEP, assigned, settings_in, supervised

async def main(folder):
    async with supervised(settings_in(Path(folder), cgroups=sys.argv[2] == "cgroups")) as site:
        site.supervisor.assign([assigned("free"), assigned("only", fencing_term=1)])
        await site.until_ready("free")
        await site.until_ready("only")
        print(site.status("free").pid, site.status("only").pid, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main(sys.argv[1]))
"""


def dead_sidecar(folder: Path, mode: str) -> tuple[int, int]:
    """Run a sidecar of its own, kill it, and return what it had started: free, exclusive."""
    command = [sys.executable, "-c", SIDECAR, str(folder), mode]
    sidecar = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sidecar.stdout is not None
    with sidecar, sidecar.stdout as told:
        free, only = map(int, told.readline().split())
        sidecar.kill()
    return free, only


async def wait_until_dead(pid: int) -> None:
    end = time.monotonic() + 2
    while is_alive(pid):
        assert time.monotonic() < end, f"{pid} lives"
        await asyncio.sleep(0.001)


async def test_the_fence_is_told_whom_to_kill_and_when_it_is_gone(site: Site) -> None:
    """Goal: the fence never kills a stranger with a reused pid.

    Method: compare pid, start time and cgroup with the kernel's.
    """
    site.supervisor.assign([assigned("only", fencing_term=1)])
    await site.until_ready("only")
    status = site.status("only")
    name, handle = site.handles[-1]
    assert name == status.instance
    assert handle is not None
    assert handle.pid == status.pid
    stat = Path(f"/proc/{handle.pid}/stat").read_text()
    assert handle.start_time_ticks == int(stat.rpartition(")")[2].split()[19])
    if handle.cgroup:
        await site.until(lambda: Path(handle.cgroup, "cgroup.procs").read_text().split() == [str(handle.pid)])
    await site.supervisor.stop_all()
    assert site.handles[-1] == (name, None)


async def test_kill_exclusive_returns_when_all_is_gone_and_spares_the_others(site: Site) -> None:
    """Goal: when it returns, nobody acts.

    Method: a process deaf to SIGTERM with a minute of grace; 0.2 s allowed.
    """
    deaf = ("/bin/sh", "-c", "trap '' TERM; while true; do sleep 1; done")
    site.supervisor.assign([assigned("only", deaf, fencing_term=1, grace_ms=60_000), assigned("free")])
    await site.until_ready("only")
    await site.until_ready("free")
    pid, free = site.status("only").pid, site.status("free")
    began = time.perf_counter()
    await site.supervisor.kill_exclusive()
    assert time.perf_counter() - began < 0.2
    assert not is_alive(pid)
    assert site.supervisor.statuses() == (free,)
    site.supervisor.assign([assigned("only", deaf, fencing_term=2, grace_ms=0), assigned("free")])
    await site.until_ready("only")


async def test_a_new_fencing_term_kills_at_once_and_starts_anew(site: Site) -> None:
    """Goal: no instance acts under an old term.

    Method: a deaf instance gets term 2; its output shows both.
    """
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo term $TRELLIS_FENCING_TERM; while true; do sleep 1; done")
    first = assigned("only", deaf, fencing_term=1, grace_ms=60_000)
    site.supervisor.assign([first])
    await site.until(lambda: site.supervisor.tail(first.instance, 5) == ("term 1",))
    site.supervisor.assign([assigned("only", deaf, fencing_term=2, grace_ms=0)])
    await site.until(lambda: site.supervisor.tail(first.instance, 5) == ("term 1", "term 2"), within_s=2)


async def test_exclusive_instances_die_with_the_sidecar_and_others_are_adopted(tmp_path: Path) -> None:
    """Goal: a crash of the sidecar ends exclusive acts only.

    Method: SIGKILL a sidecar process, start another on its directory.
    """
    free, only = dead_sidecar(tmp_path, "cgroups")
    await wait_until_dead(only)
    assert is_alive(free)
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([assigned("free")])
        await site.until_ready("free")
        status = site.status("free")
        assert (status.pid, status.generation, status.restarts) == (free, 1, 0)
        os.kill(free, signal.SIGKILL)
        await site.until_ready("free", generation=2)
        ended = next(s for s in site.told if s.state is InstanceState.STOPPING)
        # The second only where this process is the one that orphans come to.
        told = ("ended; its exit code went to an earlier sidecar", "killed by signal 9 (SIGKILL)")
        assert ended.reason in told


async def test_without_cgroups_too_nothing_runs_twice(tmp_path: Path) -> None:
    """Goal: the same on a machine without cgroups.

    Method: as above, with a newer declaration that must replace, not join.
    """
    free, only = dead_sidecar(tmp_path, "none")
    await wait_until_dead(only)
    async with supervised(settings_in(tmp_path, cgroups=False)) as site:
        site.supervisor.assign([assigned("free", version=2)])
        await site.until_ready("free", generation=2)
        assert not is_alive(free)
        assert site.status("free").spec_version == 2


async def test_what_is_not_assigned_any_more_is_stopped_after_a_restart(tmp_path: Path) -> None:
    """Goal: no process without a declaration. Method: kill the sidecar; its successor is assigned nothing."""
    free, _ = dead_sidecar(tmp_path, "cgroups")
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([])
        await site.until(lambda: not is_alive(free))
        await site.until(lambda: site.supervisor.statuses() == ())


async def test_a_sidecar_that_keeps_running_instances_leaves_only_the_free_ones(tmp_path: Path) -> None:
    """Goal: an upgrade interrupts no free service. Method: end with `keep_running`, look, adopt."""
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([assigned("free", SLEEP), assigned("only", fencing_term=1)])
        await site.until_ready("free")
        await site.until_ready("only")
        free, only = site.status("free").pid, site.status("only").pid
        site.supervisor.keep_running = True
    assert is_alive(free)
    assert not is_alive(only)
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([assigned("free", SLEEP)])
        await site.until_ready("free")
        assert site.status("free").pid == free
