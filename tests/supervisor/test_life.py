"""Starting, ending and restarting real processes."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from mesh.state.service import InstanceState, Restart, RestartWhen
from sidecar.supervisor.driver import Supervisor
from tests.supervisor.conftest import SLEEP, Site, assigned, python, settings_in

FORKING_TREE = """
import os, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        open("{pids}", "a").write(f"{{os.getpid()}}\\n")
        while True: time.sleep(1)
    os._exit(0)
open("{pids}", "a").write(f"{{os.getpid()}}\\n")
while True: time.sleep(1)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_a_killed_instance_is_replaced_at_once(site: Site) -> None:
    """Goal: a crash costs milliseconds. Method: SIGKILL; time to another pid, and what was told."""
    site.supervisor.assign([assigned("echo")])
    await site.until_ready("echo")
    first = site.status("echo").pid
    began = time.perf_counter()
    os.kill(first, signal.SIGKILL)
    await site.until(lambda: site.status("echo").pid not in (0, first), every_s=0.0005)
    took_ms = (time.perf_counter() - began) * 1000
    assert took_ms < 50
    ended = next(s for s in site.told if s.state is InstanceState.STOPPING)
    assert ended.reason == "killed by signal 9 (SIGKILL)"
    assert not ended.ready
    await site.until_ready("echo", generation=2)
    assert site.status("echo").restarts == 1
    assert site.status("echo").reason == ""


async def test_an_instance_that_ignores_sigterm_is_killed_when_grace_is_over(site: Site) -> None:
    """Goal: the grace is given in full and bounds the stop. Method: a deaf process, timed."""
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = ignoring + "; print('up', flush=True); time.sleep(100)"
    site.supervisor.assign([assigned("deaf", python(code), grace_ms=400)])
    name = site.supervisor.statuses()[0].instance
    await site.until(lambda: site.supervisor.tail(name, 1) == ("up",))
    began = time.perf_counter()
    await site.supervisor.stop_all()
    took_ms = (time.perf_counter() - began) * 1000
    assert 400 <= took_ms < 500
    assert site.supervisor.statuses() == ()


async def test_a_stopped_process_hears_sigterm(site: Site) -> None:
    """Goal: a frozen process does not eat its whole grace.

    Method: SIGSTOP, then stop within a second of five.
    """
    site.supervisor.assign([assigned("echo", grace_ms=5000)])
    await site.until_ready("echo")
    os.kill(site.status("echo").pid, signal.SIGSTOP)
    began = time.perf_counter()
    await site.supervisor.stop_all()
    assert time.perf_counter() - began < 1


async def test_the_whole_tree_goes_even_what_left_the_session(site: Site, tmp_path: Path) -> None:
    """Goal: no grandchild keeps a port or a lock. Method: a tree that forks away by setsid twice."""
    pids = tmp_path / "pids"
    code = FORKING_TREE.format(pids=pids)
    site.supervisor.assign([assigned("tree", python(code), grace_ms=100)])
    await site.until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    members = [int(pid) for pid in pids.read_text().split()]
    assert all(is_alive(pid) for pid in members)
    await site.supervisor.stop_all()
    assert not any(is_alive(pid) for pid in members)


async def test_what_a_dead_instance_left_goes_before_its_replacement_starts(
    site: Site, tmp_path: Path
) -> None:
    """Goal: old and new never run side by side.

    Method: kill the root of such a tree; look when the next one starts.
    """
    pids = tmp_path / "pids"
    code = FORKING_TREE.format(pids=pids)
    site.supervisor.assign([assigned("tree", python(code), grace_ms=100)])
    await site.until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    members = [int(pid) for pid in pids.read_text().split()]
    os.kill(site.status("tree").pid, signal.SIGKILL)
    await site.until(lambda: site.status("tree").generation == 2)
    assert not any(is_alive(pid) for pid in members)


async def test_a_crash_loop_backs_off_and_never_ends(site: Site) -> None:
    """Goal: delays are really waited for. Method: /bin/false five times against the clock."""
    policy = Restart(delay_ms_min=50, delay_ms_max=200)
    began = time.perf_counter()
    site.supervisor.assign([assigned("crash", ("/bin/false",), restart=policy)])
    await site.until(lambda: site.status("crash").generation == 5)
    # Delays: 0, 50, 100, 200.
    assert 0.35 <= time.perf_counter() - began < 1
    await site.until_state("crash", InstanceState.BACKOFF)
    assert site.status("crash").reason == "exited with code 1"


async def test_an_exclusive_instance_does_not_start_again_after_the_lease(plain_site: Site) -> None:
    """Goal: back-off may outlast the lease. Method: one that ends, a lease that ends before the next start,
    and then holds again; beside it one that is not exclusive."""
    site = plain_site
    policy = Restart(delay_ms_min=50, delay_ms_max=50)
    exclusive = assigned("alone", ("/bin/false",), restart=policy, fencing_term=1)
    site.supervisor.assign([exclusive, assigned("many", ("/bin/false",), restart=policy)])
    await site.until(lambda: len(site.handles) >= 2)
    site.has_lease = False
    refused = "could not be started: the lease of this host has run out"
    await site.until(lambda: site.status("alone").reason == refused)
    before, beside = len(site.handles), site.status("many").generation
    await site.until(lambda: site.status("many").generation >= beside + 3)
    assert len(site.handles) == before
    site.has_lease = True
    await site.until(lambda: len(site.handles) > before)


@pytest.mark.parametrize(
    ("when", "code", "state"),
    [
        (RestartWhen.NEVER, 1, InstanceState.EXITED),
        (RestartWhen.NEVER, 0, InstanceState.EXITED),
        (RestartWhen.ON_FAILURE, 0, InstanceState.EXITED),
        (RestartWhen.ON_FAILURE, 3, InstanceState.BACKOFF),
        (RestartWhen.ALWAYS, 0, InstanceState.BACKOFF),
    ],
)
async def test_the_restart_policy_rules(
    plain_site: Site, when: RestartWhen, code: int, state: InstanceState
) -> None:
    """Goal: the table holds for real exit codes.

    Method: a shell that ends with each code under each policy.
    """
    policy = Restart(when=when, delay_ms_min=60_000, delay_ms_max=60_000)
    command = ("/bin/sh", "-c", f"exit {code}")
    plain_site.supervisor.assign([assigned("job", command, restart=policy)])
    await plain_site.until_state("job", state)
    assert plain_site.status("job").reason == f"exited with code {code}"


async def test_a_missing_command_is_told_and_tried_again(plain_site: Site, tmp_path: Path) -> None:
    """Goal: a file that comes later needs no person. Method: write the program after the first failure."""
    program = tmp_path / "later"
    policy = Restart(delay_ms_min=20, delay_ms_max=20)
    plain_site.supervisor.assign([assigned("late", (str(program),), restart=policy)])
    await plain_site.until_state("late", InstanceState.BACKOFF)
    assert "is not an executable file on this host" in plain_site.status("late").reason
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    await plain_site.until_ready("late")


async def test_a_new_declaration_restarts_after_a_stop(site: Site) -> None:
    """Goal: a change takes effect, on the same address, never beside the old one.

    Method: version 2 of a running service.
    """
    site.supervisor.assign([assigned("echo")])
    await site.until_ready("echo")
    first = site.status("echo")
    site.supervisor.assign([assigned("echo", version=2)])
    await site.until_ready("echo", generation=2)
    second = site.status("echo")
    assert (second.spec_version, second.address) == (2, first.address)
    assert not is_alive(first.pid)


async def test_an_unchanged_assignment_changes_nothing(site: Site) -> None:
    """Goal: repeated decisions do not restart anything.

    Method: assign the same five times; a later addition shows that it was read.
    """
    site.supervisor.assign([assigned("echo")])
    await site.until_ready("echo")
    before = site.status("echo")
    for _ in range(5):
        site.supervisor.assign([assigned("echo")])
    site.supervisor.assign([assigned("echo"), assigned("later")])
    await site.until_ready("later")
    assert site.status("echo") == before


async def test_an_instance_gets_the_documented_environment_and_nothing_else(
    plain_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no secret of the sidecar leaks. Method: `env` as the program, compared as a set."""
    monkeypatch.setenv("SECRET_OF_THE_SIDECAR", "1")
    declared = assigned("env", ("/usr/bin/env",), environment=(("MINE", "2"),), fencing_term=7)
    plain_site.supervisor.assign([declared])
    await plain_site.until(lambda: plain_site.status("env").generation > 1)
    lines = plain_site.supervisor.tail(declared.instance, 100)
    seen = dict(line.split("=", 1) for line in lines)
    assert "SECRET_OF_THE_SIDECAR" not in seen
    assert seen["MINE"] == "2"
    assert seen["TRELLIS_FENCING_TERM"] == "7"
    assert seen["TRELLIS_LISTEN"] == f"127.0.0.1:{seen['TRELLIS_PORT']}"
    assert set(seen) - {"PATH", "LANG", "TZ", "MINE"} == {
        "TRELLIS_SERVICE",
        "TRELLIS_INSTANCE",
        "TRELLIS_HOST",
        "TRELLIS_CLUSTER",
        "TRELLIS_LISTEN",
        "TRELLIS_PORT",
        "TRELLIS_SOCKET",
        "TRELLIS_GENERATION",
        "TRELLIS_STATE_DIR",
        "TRELLIS_FENCING_TERM",
    }


async def test_no_descriptor_of_the_sidecar_reaches_an_instance(plain_site: Site) -> None:
    """Goal: no socket or file outlives the sidecar in a child.

    Method: an inheritable pipe, then list the child's own.
    """
    read, write = os.pipe()
    os.set_inheritable(write, True)
    listing = python("import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))")
    declared = assigned("fds", listing, restart=Restart(when=RestartWhen.NEVER))
    plain_site.supervisor.assign([declared])
    await plain_site.until_state("fds", InstanceState.EXITED)
    os.close(read)
    os.close(write)
    assert plain_site.supervisor.tail(declared.instance, 1) == ("[0, 1, 2, 3]",)


async def test_restart_on_request_returns_when_the_new_process_runs(site: Site) -> None:
    """Goal: the caller need not poll. Method: restart, then look at once."""
    site.supervisor.assign([assigned("echo", SLEEP)])
    await site.until_ready("echo")
    await site.supervisor.restart(site.status("echo").instance)
    assert site.status("echo").generation == 2


async def test_a_second_cancellation_does_not_leave_a_process_behind(tmp_path: Path) -> None:
    """Goal: impatience orphans nothing. Method: cancel five times while a deaf process has its grace."""
    deaf = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(100)"
    )
    supervisor = Supervisor(
        settings=settings_in(tmp_path),
        on_change=lambda _: None,
        on_exclusive=lambda _, __: None,
        may_act=lambda: True,
        jitter=lambda: 0.0,
    )
    declared = assigned("deaf", deaf, grace_ms=300)
    supervisor.assign([declared])
    running = asyncio.ensure_future(supervisor.run())
    async with asyncio.timeout(5):
        while supervisor.tail(declared.instance, 1) != ("up",):
            await asyncio.sleep(0.005)
    pid = supervisor.statuses()[0].pid
    for _ in range(5):
        running.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(pid)
