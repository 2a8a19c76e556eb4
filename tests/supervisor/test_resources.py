"""Memory limits, failing forks, programs that are missing, launchers that are missing."""

import os
import resource
from pathlib import Path

import pytest

from mesh import limits
from mesh.adapters import child
from mesh.adapters.cgroup import Leaf, find_hierarchies
from mesh.state.service import InstanceState, Probe, ProbeKind, Probes, Restart, RestartWhen, ServiceSpec
from sidecar.supervisor.process import check_command
from tests.supervisor.conftest import SLEEP, Site, assigned, python, settings_in, supervised

ONCE = Restart(when=RestartWhen.NEVER)
GREEDY = python("import time\nkept = []\nwhile True: kept.append(b'x' * 1_000_000); time.sleep(0.001)")


async def test_want_of_memory_is_told_as_the_reason(tmp_path: Path) -> None:
    """Goal: the kernel's kill is named and hits nobody else.

    Method: a greedy program under a real cgroup limit, a neighbour beside it.
    """
    settings = settings_in(tmp_path)
    hierarchies = find_hierarchies("trial", settings.run_dir)
    leaf = Leaf(hierarchies, "trial")
    limited = leaf.make(64 * limits.MIB)
    leaf.remove()
    hierarchies.remove()
    if not limited:
        pytest.skip("this machine has no writable cgroup memory controller")
    async with supervised(settings) as site:
        greedy = assigned("greedy", GREEDY, restart=ONCE, memory_bytes_max=64 * limits.MIB)
        site.supervisor.assign([greedy, assigned("neighbour")])
        await site.until_state("greedy", InstanceState.EXITED)
        assert "out of memory, over its limit of 67108864 bytes" in site.status("greedy").reason
        assert site.status("neighbour").ready


async def test_without_cgroups_the_address_space_is_limited(tmp_path: Path) -> None:
    """Goal: a limit holds on every machine. Method: the same program without cgroups."""
    async with supervised(settings_in(tmp_path, cgroups=False)) as site:
        greedy = assigned("greedy", GREEDY, restart=ONCE, memory_bytes_max=64 * limits.MIB)
        site.supervisor.assign([greedy])
        await site.until_state("greedy", InstanceState.EXITED)
        assert site.status("greedy").reason == "exited with code 1"
        assert "MemoryError" in " ".join(site.supervisor.tail(greedy.instance, 5))


async def test_too_many_open_files_is_a_reason_and_the_supervisor_goes_on(plain_site: Site) -> None:
    """Goal: exhaustion is temporary. Method: lower the limit of this process, start, raise it again."""
    plain_site.supervisor.assign([assigned("first")])
    await plain_site.until_ready("first")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        policy = Restart(delay_ms_min=50, delay_ms_max=50)
        plain_site.supervisor.assign([assigned("first"), assigned("second", restart=policy)])
        await plain_site.until_state("second", InstanceState.BACKOFF)
        assert "Too many open files" in plain_site.status("second").reason
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await plain_site.until_ready("second", generation=2)


@pytest.mark.parametrize("missing", ["_setpriv", "_shell"])
async def test_the_own_launcher_stands_in_where_a_program_is_missing(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: death with the parent does not depend on setpriv.

    Method: hide each program; the child reads its own death signal.
    """
    monkeypatch.setattr(child, missing, lambda: None)
    async with supervised(settings_in(tmp_path)) as site:
        show = python(
            "import ctypes, time; n = ctypes.c_int();"
            "ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value, flush=True); time.sleep(100)"
        )
        site.supervisor.assign([assigned("free", show), assigned("only", show, fencing_term=1)])
        await site.until_ready("free")
        await site.until_ready("only")
        free, only = (site.status(name).instance for name in ("free", "only"))
        await site.until(lambda: site.supervisor.tail(free, 1) == ("0",))
        await site.until(lambda: site.supervisor.tail(only, 1) == ("9",))
        handle = site.handles[-1][1]
        assert handle is not None
        if handle.cgroup:
            assert str(handle.pid) in Path(handle.cgroup, "cgroup.procs").read_text().split()


@pytest.mark.parametrize(
    ("changed", "path", "problem"),
    [
        ({"command": ("no-such-program",)}, "command", "'no-such-program' is not an executable file"),
        ({"command": ("/etc/passwd",)}, "command", "is not an executable file"),
        ({"directory": "/no/such"}, "directory", "is not a directory here"),
        ({"user": "no-such-user"}, "user", "no user 'no-such-user' on this host"),
    ],
)
def test_what_this_host_cannot_run_is_told_with_its_field(
    changed: dict[str, object], path: str, problem: str
) -> None:
    """Goal: the reason names what to mend. Method: table of missing programs, directories and users."""
    found = check_command(ServiceSpec(**{"name": "echo", "command": SLEEP, **changed}))  # type: ignore[arg-type]
    assert found is not None
    assert found.path == path
    assert problem in found.problem
    assert found.example


def test_a_text_without_an_interpreter_is_not_handed_to_a_shell(tmp_path: Path) -> None:
    """Goal: no accidental script runs. Method: an executable text with a dangerous line."""
    text = tmp_path / "text"
    text.write_text("rm -rf /\n")
    text.chmod(0o755)
    found = check_command(assigned("text", (str(text),)).spec)
    assert found is not None
    assert "neither a binary nor begins with #!" in found.problem


def test_a_command_that_is_there_is_no_problem() -> None:
    """Goal: the check refuses nothing sound. Method: an absolute path and one from PATH."""
    assert check_command(assigned("echo").spec) is None
    assert check_command(assigned("echo", ("sleep", "1")).spec) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process as another user")
async def test_an_instance_runs_as_its_user_without_the_sidecars_rights(plain_site: Site) -> None:
    """Goal: root's rights stop at the sidecar.

    Method: the child shows its user, capabilities and death signal.
    """
    code = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    death = assigned("death", python(code), user="nobody", fencing_term=1, restart=ONCE)
    command = ("/bin/sh", "-c", "id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status; touch f && pwd")
    declared = assigned("who", command, user="nobody", restart=ONCE)
    plain_site.supervisor.assign([declared, death])
    await plain_site.until_state("who", InstanceState.EXITED)
    await plain_site.until_state("death", InstanceState.EXITED)
    assert plain_site.supervisor.tail(death.instance, 1) == ("9",), "a change of user clears it"
    lines = plain_site.supervisor.tail(declared.instance, 10)
    assert lines[0] == "65534"
    assert {line.split()[-1] for line in lines[1:3]} == {"0000000000000000", "1"}


async def test_dependencies_start_first_and_stop_last(site: Site) -> None:
    """Goal: the order holds for real processes. Method: a chain of three, assigned in the wrong order."""
    database = assigned("db")
    cache = assigned("cache", depends_on=("db",))
    web = assigned("web", depends_on=("cache", "db"))
    site.supervisor.assign([web, cache, database])
    await site.until_ready("web")
    assert site.status("web").reason == ""
    await site.supervisor.stop_all()
    started = [s.service for s in site.told if s.state is InstanceState.STARTING and not s.pid]
    stopped = [s.service for s in site.told if s.state is InstanceState.STOPPED]
    assert started == ["db", "cache", "web"]
    assert stopped == ["web", "cache", "db"]


async def test_who_waits_for_a_dependency_says_so(plain_site: Site) -> None:
    """Goal: a service that does not start explains itself.

    Method: a dependency that never gets ready, then taken away.
    """
    unready = Probes(readiness=Probe(ProbeKind.TCP, interval_ms=100))
    web = assigned("web", depends_on=("db",))
    plain_site.supervisor.assign([web, assigned("db", probes=unready)])
    await plain_site.until_state("db", InstanceState.RUNNING)
    assert plain_site.status("web").state is InstanceState.STOPPED
    assert plain_site.status("web").reason == "waits for db"
    plain_site.supervisor.assign([web])
    await plain_site.until_ready("web")


def test_a_setpriv_that_does_not_answer_fails_the_start_and_not_the_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: on a machine that stands still, a start fails and is tried again; nothing is remembered of it.

    Method: a setpriv that sleeps stands first in the PATH, then is gone.
    """
    slow = tmp_path / "setpriv"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(child, "_TRIAL_S", 0.2)
    child._setpriv.cache_clear()
    try:
        with monkeypatch.context() as first:
            first.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            with pytest.raises(OSError, match="does not answer"):
                child.spawn(child.Launch(("/bin/true",), {}, "/", "", dies_with_parent=True))
        started = child.spawn(child.Launch(("/bin/true",), {}, "/", "", dies_with_parent=True))
        started.wait()
        assert started.ended().code == 0
        started.release()
    finally:
        child._setpriv.cache_clear()
