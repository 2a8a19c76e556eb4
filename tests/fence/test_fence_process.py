"""The fence process against real processes, cgroups and signals.

Each test runs a stand-in sidecar: a Python process of its own that starts the
fence through the real client, so that it can be killed and frozen.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sidecar.fence.client import (
    PROGRAM,
    FenceClient,
    FenceRefused,
    FenceReport,
    FenceUnavailable,
    boottime_ns,
    start_time_of,
)

CGROUPS = (
    Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
)
FAR = 3600 * 10**9

SIDECAR = """
import asyncio, json, os, subprocess, sys
from sidecar.fence.client import FenceClient, boottime_ns, start_time_of

async def main():
    client = FenceClient(on_lost=print, on_fenced=lambda report: print("fenced", flush=True))
    await client.start()
    client.set_deadline(boottime_ns() + int(sys.argv[1]))
    child = subprocess.Popen(["/bin/sh", "-c", sys.argv[2]], start_new_session=True)
    await client.register_tree("child", child.pid, start_time_of(child.pid), None)
    print(json.dumps({"child": child.pid, "fence": client.pid}), flush=True)
    child.wait()
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def wait_until(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """Milliseconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "condition not met in time"
        select.select([], [], [], 0.0005)
    return (time.monotonic() - began) * 1000


async def wait_for(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor (Linux 5.6)."""
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return fd


def unexpected(report: FenceReport) -> None:
    raise AssertionError(report)


def members(session: int) -> list[int]:
    """Running processes of a session."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{name}/stat").read_text()
                fields = text[text.rindex(")") + 2 :].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(name))
    return found


@contextlib.contextmanager
def stand_in(deadline_ns: int, command: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A sidecar with one registered child: the process, the child's pid, the fence's pid."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", SIDECAR, str(deadline_ns), command], stdout=subprocess.PIPE, cwd=root
    ) as sidecar:
        assert sidecar.stdout is not None
        try:
            line = json.loads(sidecar.stdout.readline())
            yield sidecar, line["child"], line["fence"]
        finally:
            sidecar.kill()
            wait_until(lambda: not is_running(line["fence"]))


def test_a_killed_sidecars_child_is_killed_with_all_it_started() -> None:
    """Goal: nobody acts after the sidecar's end. Method: a tree deaf to SIGTERM, SIGKILL of the sidecar."""
    with stand_in(FAR, "sleep 3600 & (sleep 3600; true) & trap '' TERM; sleep 3600; true") as (
        sidecar,
        child,
        fence,
    ):
        wait_until(lambda: len(members(child)) >= 4)
        sidecar.kill()
        took = wait_until(lambda: not members(child))
        print(f"kill -9 of the sidecar to the last descendant gone: {took:.1f} ms")
        wait_until(lambda: not is_running(fence))


def test_a_frozen_sidecars_child_is_killed_when_the_deadline_passes() -> None:
    """Goal: a frozen host has stopped acting when its lease ends.

    Method: SIGSTOP, wait, SIGCONT; it learns of it.
    """
    with stand_in(700_000_000, "sleep 3600; true") as (sidecar, child, fence):
        sidecar.send_signal(signal.SIGSTOP)
        assert is_running(child)
        wait_until(lambda: not members(child))
        assert is_running(fence), "the fence waits for the sidecar to come back"
        sidecar.send_signal(signal.SIGCONT)
        assert sidecar.stdout is not None
        assert sidecar.stdout.readline() == b"fenced\n"


def test_a_frozen_child_and_signals_to_the_fence_change_nothing() -> None:
    """Goal: neither the child nor a stray kill escapes it.

    Method: TERM, INT, HUP at the fence, STOP at the child.
    """
    with stand_in(FAR, "sleep 3600; true") as (sidecar, child, fence):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(fence, number)
        os.kill(child, signal.SIGSTOP)
        sidecar.kill()
        wait_until(lambda: not members(child))


def test_a_child_that_never_stops_forking_is_cleared_without_a_cgroup() -> None:
    """Goal: the race with fork is won. Method: a shell that forks without end."""
    with stand_in(FAR, "while true; do sleep 30 & (sleep 0.01; sleep 30 &) & done") as (sidecar, child, _):
        wait_until(lambda: len(members(child)) >= 20)
        sidecar.kill()
        wait_until(lambda: not members(child))


def test_a_leaked_socket_does_not_keep_a_dead_sidecars_child_alive() -> None:
    """This test holds the sidecar's end open too, so only the end of the sidecar itself is seen."""
    with stand_in(FAR, "sleep 3600; true") as (sidecar, child, _):
        ends = [f"/proc/{sidecar.pid}/fd/{fd}" for fd in os.listdir(f"/proc/{sidecar.pid}/fd")]
        sockets = [end for end in ends if os.readlink(end).startswith("socket:")]
        pidfd = os.pidfd_open(sidecar.pid)
        held = [pidfd_getfd(pidfd, int(Path(end).name)) for end in sockets]
        sidecar.kill()
        wait_until(lambda: not members(child))
        for fd in [pidfd, *held]:
            os.close(fd)


@pytest.mark.integration
async def test_a_frozen_fence_process_is_replaced(
    client: FenceClient, reports: list[FenceReport], child: subprocess.Popen[bytes]
) -> None:
    """Goal: the guard is guarded. Method: SIGSTOP it; its successor still knows the child."""
    await client.register_tree("child", child.pid, start_time_of(child.pid), None)
    first = client.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    await wait_for(lambda: client.pid not in (None, first), 8)
    assert not is_running(first)
    client.set_deadline(boottime_ns() - 1)
    await wait_for(lambda: bool(reports))
    assert child.wait() == -signal.SIGKILL


@pytest.fixture
async def reports() -> list[FenceReport]:
    return []


@pytest.fixture
async def client(reports: list[FenceReport]) -> AsyncIterator[FenceClient]:
    fence = FenceClient(on_lost=lambda reason: pytest.fail(reason), on_fenced=reports.append)
    await fence.start()
    fence.set_deadline(boottime_ns() + FAR)
    yield fence
    await fence.close()


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with sleeping() as process:
        yield process


async def test_an_orderly_close_clears_nothing(child: subprocess.Popen[bytes]) -> None:
    """Goal: a sidecar that ends properly keeps its free services. Method: close, look at the child."""
    fence = FenceClient(on_lost=pytest.fail, on_fenced=unexpected)
    await fence.start()
    fence.set_deadline(boottime_ns() + FAR)
    await fence.register_tree("child", child.pid, start_time_of(child.pid), None)
    await fence.close()
    assert child.poll() is None


async def test_the_fence_arms_again_after_a_late_deadline(
    client: FenceClient, reports: list[FenceReport], child: subprocess.Popen[bytes]
) -> None:
    """Goal: one fencing is not the end of protection, and what was unregistered is spared.

    Method: expire twice.
    """
    await client.register_tree("first", child.pid, start_time_of(child.pid), None)
    client.set_deadline(boottime_ns() + 20_000_000)
    await wait_for(lambda: len(reports) == 1)
    assert reports[0].cleared == ("first",)
    assert child.wait() == -signal.SIGKILL
    client.set_deadline(boottime_ns() + FAR)
    with sleeping() as spared, sleeping() as late:
        await client.register_tree("spared", spared.pid, start_time_of(spared.pid), None)
        assert spared.poll() is None
        await client.unregister("spared")
        client.set_deadline(1)
        await client.register_tree("late", late.pid, start_time_of(late.pid), None)
        await wait_for(lambda: len(reports) == 2)
        assert reports[1].cleared == ("late",)
        assert spared.poll() is None


async def test_what_a_sleeper_registers_after_its_deadline_is_cleared_at_once(
    client: FenceClient, reports: list[FenceReport], child: subprocess.Popen[bytes]
) -> None:
    """Goal: a host that wakes late starts nothing. Method: register behind the deadline."""
    client.set_deadline(boottime_ns() - 1)
    await client.register_tree("late", child.pid, start_time_of(child.pid), None)
    await wait_for(lambda: bool(reports))
    assert child.wait() == -signal.SIGKILL


async def test_a_reused_process_id_is_never_hit(
    client: FenceClient, reports: list[FenceReport], child: subprocess.Popen[bytes]
) -> None:
    """The registered process had the same id, but started earlier."""
    await client.register_tree("former", child.pid, start_time_of(child.pid) - 1, None)
    client.set_deadline(boottime_ns() - 1)
    await wait_for(lambda: bool(reports))
    assert child.poll() is None


async def test_a_cgroup_is_killed_with_processes_of_other_sessions(
    client: FenceClient, reports: list[FenceReport]
) -> None:
    """A member that left session, group and parent behind is only found by its cgroup."""
    group = CGROUPS / f"fence-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v2 directory may be made here: {error}")
    try:
        script = f"echo $$ > {group}/cgroup.procs; setsid sleep 3600 & sleep 3600; true"
        with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as process:
            procs = group / "cgroup.procs"
            await wait_for(lambda: len(procs.read_text().split()) >= 3)
            await client.register_tree("db", process.pid, start_time_of(process.pid), str(group))
            client.set_deadline(boottime_ns() - 1)
            await wait_for(lambda: bool(reports))
            assert procs.read_text() == ""
            assert reports[0].left == ()
            print(f"cgroup of 3 processes cleared in {reports[0].took_ms} ms")
    finally:
        await wait_for(lambda: "populated 0" in (group / "cgroup.events").read_text())
        group.rmdir()


async def test_a_cgroup_outside_of_the_hierarchy_is_refused(client: FenceClient, tmp_path: Path) -> None:
    """Goal: a wrong path never kills the machine. Method: roots and foreign directories."""
    for path in (str(tmp_path), "/sys/fs/cgroup", str(CGROUPS), "/nowhere"):
        with pytest.raises(FenceRefused):
            await client.register_tree("wrong", os.getpid(), start_time_of(os.getpid()), path)


async def test_a_killed_fence_process_is_replaced_and_knows_everything(
    client: FenceClient, reports: list[FenceReport], child: subprocess.Popen[bytes]
) -> None:
    """Goal: no gap in protection. Method: SIGKILL it, then let the deadline pass."""
    await client.register_tree("child", child.pid, start_time_of(child.pid), None)
    first = client.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await wait_for(lambda: client.pid not in (None, first))
    client.set_deadline(boottime_ns() - 1)
    await wait_for(lambda: bool(reports))
    assert reports[0].cleared == ("child",)
    assert child.wait() == -signal.SIGKILL


async def test_a_fence_process_that_cannot_be_replaced_is_reported(tmp_path: Path) -> None:
    """Goal: the sidecar does not go on unguarded. Method: break its program, then kill it."""
    lost: list[str] = []
    program = tmp_path / PROGRAM.name
    for file in (PROGRAM, PROGRAM.with_name("guarded.py")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    fence = FenceClient(on_lost=lost.append, on_fenced=unexpected, program=program)
    await fence.start()
    program.write_text("raise SystemExit(1)")
    assert fence.pid is not None
    os.kill(fence.pid, signal.SIGKILL)
    await wait_for(lambda: bool(lost))
    with pytest.raises(FenceUnavailable):
        await fence.register_tree("child", os.getpid(), 0, None)
    await fence.close()


async def test_setting_the_deadline_is_cheap(client: FenceClient) -> None:
    """Median of many, since the machine is shared."""
    costs = []
    for _ in range(200):
        deadline = boottime_ns() + FAR
        began = time.perf_counter_ns()
        client.set_deadline(deadline)
        costs.append(time.perf_counter_ns() - began)
        await asyncio.sleep(0)
    median_us = sorted(costs)[100] / 1000
    status = Path(f"/proc/{client.pid}/status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"set_deadline: {median_us:.1f} us median; fence process {rss}")
    assert median_us < 50


async def test_a_close_that_clears_ends_what_is_still_registered(child: subprocess.Popen[bytes]) -> None:
    """A sidecar that could not give everything up in order leaves it to the fence."""
    fence = FenceClient(on_lost=pytest.fail, on_fenced=unexpected)
    await fence.start()
    fence.set_deadline(boottime_ns() + FAR)
    await fence.register_tree("child", child.pid, start_time_of(child.pid), None)
    await fence.close(clear=True)
    assert child.wait() == -signal.SIGKILL
