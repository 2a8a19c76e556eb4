"""A real gRPC client that resolves `xds:///echo` at the sidecar and calls instances itself."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import SettingsError
from sidecar.routing.bootstrap import write_bootstrap
from sidecar.routing.model import RoutingSettings
from tests.routing.harness import Authority, backend, free_port, ready, running, settings, until

pytestmark = pytest.mark.integration
PROGRAM = Path(__file__).with_name("xds_client.py")


class XdsClient:
    """The client program; each `round` makes its calls and says who answered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def round(self) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"go\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), 15)
        return json.loads(line)["answered"]


@contextlib.asynccontextmanager
async def xds_client(chosen: RoutingSettings, target: str = "xds:///echo") -> AsyncIterator[XdsClient]:
    path = Path(chosen.run_dir) / "xds-bootstrap.json"
    write_bootstrap(path, chosen)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), target, "20"),
        env=os.environ | {"GRPC_XDS_BOOTSTRAP": str(path)},
        stdin=pipe,
        stdout=pipe,
    )
    try:
        yield XdsClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_a_proxyless_client_calls_every_instance_directly(tmp_path: Path) -> None:
    """All hosts on one machine: round robin over all, and a removed instance gets no more calls."""
    chosen = settings(tmp_path, xds_address=f"127.0.0.1:{free_port()}", proxyless_direct=True)
    async with backend("host1", 0) as a, backend("host2", 0) as b, running(chosen) as host:
        host.publish(a.status(), b.status())
        await ready(host)
        async with xds_client(chosen) as caller:

            async def both() -> bool:
                return set(await caller.round()) == {a.name, b.name}

            await until(both)
            host.publish(a.status(ready=False), b.status())

            async def only_b() -> bool:
                return set(await caller.round()) == {b.name}

            await until(only_b)


async def test_a_proxyless_client_prefers_its_host_and_reaches_others_by_mtls(tmp_path: Path) -> None:
    """The instance of this host answers; when it is gone, the one behind the other host's ingress does."""
    authority = Authority(tmp_path / "ca")
    xds_address = f"127.0.0.1:{free_port()}"
    one = settings(tmp_path, "host1", identity=authority.issue("host1"), xds_address=xds_address)
    two = settings(tmp_path, "host2", identity=authority.issue("host2"))
    async with (
        backend("host1", 0, ingress=True) as near,
        backend("host2", 0, ingress=True) as far,
        running(one) as host1,
        running(two) as host2,
    ):
        for host in (host1, host2):
            host.publish(near.status(), far.status())
        await asyncio.gather(ready(host1), ready(host2))
        async with xds_client(one) as caller:
            assert set(await caller.round()) == {near.name}
            host1.publish(near.status(ready=False), far.status())

            async def only_far() -> bool:
                return set(await caller.round()) == {far.name}

            await until(only_far)
            host1.publish(near.status(), far.status())

            async def only_near() -> bool:
                return set(await caller.round()) == {near.name}

            await until(only_near)


async def test_no_bootstrap_is_written_when_no_proxyless_client_is_served(tmp_path: Path) -> None:
    """Goal: a client is not sent to a port where nobody listens. Method: settings without the address."""
    with pytest.raises(SettingsError, match="xds_address"):
        write_bootstrap(tmp_path / "bootstrap.json", settings(tmp_path))
