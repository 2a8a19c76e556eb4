"""A real supervisor on temporary folders, run for the length of one test."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mesh.ids import HostId, InstanceId, ServiceName, instance_id
from mesh.state.service import (
    InstanceState,
    InstanceStatus,
    Probes,
    Restart,
    ServiceMode,
    ServiceSpec,
)
from sidecar.supervisor.driver import Supervisor
from sidecar.supervisor.model import Assignment, ExclusiveHandle, SupervisorSettings

HOST = HostId("host1")
PYTHON = sys.executable
SLEEP = ("/bin/sleep", "1000")
_port_blocks = itertools.count(21_000, 500)


def python(code: str) -> tuple[str, ...]:
    """A command that runs *code* in a bare interpreter."""
    return (PYTHON, "-IS", "-c", code)


@dataclass
class Site:
    """A running supervisor and what it told."""

    supervisor: Supervisor
    settings: SupervisorSettings
    told: list[InstanceStatus] = field(default_factory=list)
    handles: list[tuple[InstanceId, ExclusiveHandle | None]] = field(default_factory=list)
    #: When each of `told` was told, by time.perf_counter.
    told_at: list[float] = field(default_factory=list)
    #: What the supervisor is told when it asks whether the host may act.
    has_lease: bool = True

    def status(self, name: str) -> InstanceStatus:
        """The one instance of a service."""
        return next(s for s in self.supervisor.statuses() if s.service == name)

    async def until(
        self, condition: Callable[[], bool], *, within_s: float = 10.0, every_s: float = 0.002
    ) -> None:
        """Wait until something holds; fail with what was last seen."""
        end = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {within_s} s: {self.supervisor.statuses()}")
            await asyncio.sleep(every_s)

    async def until_ready(self, name: str, *, generation: int = 1, within_s: float = 10.0) -> None:
        """Wait until the service's instance is ready, and started so often."""

        def is_ready() -> bool:
            return any(
                s.service == name and s.ready and s.generation >= generation
                for s in self.supervisor.statuses()
            )

        await self.until(is_ready, within_s=within_s)

    async def until_state(self, name: str, state: InstanceState, *, within_s: float = 10) -> None:
        """Wait until the service's instance is in a state."""
        await self.until(
            lambda: any(s.service == name and s.state is state for s in self.supervisor.statuses()),
            within_s=within_s,
        )


def assigned(
    name: str,
    command: tuple[str, ...] = SLEEP,
    *,
    probes: Probes | None = None,
    restart: Restart | None = None,
    fencing_term: int | None = None,
    version: int = 1,
    ordinal: int = 0,
    **declared: object,
) -> Assignment:
    """An assignment of one instance; with a fencing term it is active-standby."""
    mode = ServiceMode.ACTIVE_ACTIVE if fencing_term is None else ServiceMode.ACTIVE_STANDBY
    spec = ServiceSpec(
        name=ServiceName(name),
        command=command,
        mode=mode,
        probes=probes or Probes(),
        restart=restart or Restart(),
    )
    spec = replace(spec, **declared)  # type: ignore[arg-type] # fields by name, as the test says
    instance = instance_id(spec.name, HOST, ordinal)
    return Assignment(instance, spec, version, ordinal, fencing_term)


def settings_in(folder: Path, *, cgroups: bool = True) -> SupervisorSettings:
    """Settings of a supervisor that keeps everything below *folder*."""
    first = next(_port_blocks)
    return SupervisorSettings(
        host=HOST,
        cluster="test",
        run_dir=str(folder / "run"),
        state_dir=str(folder / "state"),
        log_dir=str(folder / "log"),
        listen_address="127.0.0.1",
        port_min=first,
        port_max=first + 499,
        socket_path=str(folder / "sidecar.sock"),
        cgroups=cgroups,
    )


@contextlib.asynccontextmanager
async def supervised(settings: SupervisorSettings) -> AsyncIterator[Site]:
    """Run a supervisor for the length of the block; everything is stopped at its end."""
    told: list[InstanceStatus] = []
    handles: list[tuple[InstanceId, ExclusiveHandle | None]] = []
    told_at: list[float] = []

    def tell(status: InstanceStatus) -> None:
        told.append(status)
        told_at.append(time.perf_counter())

    supervisor = Supervisor(
        settings=settings,
        on_change=tell,
        on_exclusive=lambda name, handle: handles.append((name, handle)),
        may_act=lambda: present.has_lease,
        jitter=lambda: 0.0,
    )
    present = Site(supervisor, settings, told, handles, told_at)
    running = asyncio.ensure_future(supervisor.run())
    try:
        yield present
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture(params=["cgroups", "groups-only"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A supervisor, once with cgroups (where the machine has them) and once without."""
    async with supervised(settings_in(tmp_path, cgroups=request.param == "cgroups")) as running:
        yield running


@pytest.fixture
async def plain_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A supervisor with whatever the machine has."""
    async with supervised(settings_in(tmp_path)) as running:
        yield running
