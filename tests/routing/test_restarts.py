"""What goes on when a part of routing itself ends."""

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sidecar.routing import admin
from sidecar.routing.admin import calls_in_hand
from sidecar.routing.model import RoutingView
from tests.routing.harness import backend, client, echo_spec, load, ready, running, settings, until

pytestmark = pytest.mark.integration


async def test_calls_go_on_while_the_sidecar_is_replaced(tmp_path: Path) -> None:
    """The sidecar ends as if killed; Envoy keeps routing, is adopted, and follows the new sidecar."""
    chosen = settings(tmp_path)
    loop = asyncio.get_running_loop()
    async with backend("host1", 0) as a, backend("host1", 1) as b:
        async with running(chosen, leave_envoy=True) as first:
            first.publish(a.status(), b.status())
            await ready(first)
            handle = first.routing.envoy_handle()
        async with client(chosen.northbound_address) as caller, load(caller.echo) as result:
            await until(lambda: len(result.latencies_ms) > 50)
            async with running(chosen) as second:
                await until(lambda: "envoy-adopted" in second.names())
                assert second.routing.envoy_handle() == handle
                second.revision = first.revision
                began = loop.time()
                second.publish(b.status())
                await ready(second)
                print(f"followed {(loop.time() - began) * 1000:.0f} ms after the new sidecar published")
                assert {await caller.echo() for _ in range(10)} == {b.name}
                assert result.failures == []
                # the load ends before Envoy does
                await until(lambda: len(result.latencies_ms) > 100)
                result_so_far = list(result.failures)
        assert result_so_far == []


async def test_a_new_sidecar_that_is_behind_tells_envoy_nothing_yet(
    tmp_path: Path,
) -> None:
    """Goal: Envoy never loses endpoints to a replay. Method: the first sidecar published revision 2 with an
    instance, the second begins with revision 1, where there was none."""
    chosen = settings(tmp_path)
    async with backend("host1", 0) as a:
        async with running(chosen, leave_envoy=True) as first:
            first.publish()
            first.publish(a.status())
            await ready(first)
        async with running(chosen) as second, client(chosen.northbound_address) as caller:
            await until(lambda: "envoy-adopted" in second.names())
            second.publish()
            await until(lambda: "snapshot-held" in second.names())
            assert await caller.echo() == a.name
            second.publish(a.status())
            await ready(second)
            assert await caller.echo() == a.name


async def test_a_revision_alone_can_end_the_silence(tmp_path: Path) -> None:
    """What Envoy holds is of revision 3; the same view is published as 1, 2 and 3: then it is told."""
    chosen = settings(tmp_path)
    async with backend("host1", 0) as a:
        async with running(chosen, leave_envoy=True) as first:
            first.revision = 2
            first.publish(a.status())
            await ready(first)
        async with running(chosen) as second:
            for _ in range(2):
                second.publish(a.status())
            await until(lambda: "snapshot-held" in second.names())
            assert not second.routing.northbound_listening
            second.publish(a.status())
            await ready(second)


async def test_an_envoy_that_dies_is_started_again(tmp_path: Path) -> None:
    """Goal: a crash of the proxy heals without a person.

    Method: SIGKILL it, see the gate closed, then a call through the next one.
    """
    loop = asyncio.get_running_loop()
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish(a.status())
        await ready(host)
        before = host.routing.envoy_handle()
        assert before is not None
        began = loop.time()
        os.kill(before.pid, signal.SIGKILL)
        await until(lambda: "envoy-exited" in host.names())
        assert not host.routing.northbound_listening
        await ready(host)
        print(f"Envoy back after {(loop.time() - began) * 1000:.0f} ms")
        assert host.routing.envoy_handle() != before
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name


async def test_a_frozen_envoy_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP: its port still accepts, nothing answers. Within seconds another one serves."""
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish(a.status())
        await ready(host)
        before = host.routing.envoy_handle()
        assert before is not None
        os.kill(before.pid, signal.SIGSTOP)
        await until(lambda: "envoy-exited" in host.names(), within_s=20)
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name


async def test_an_envoy_with_another_bootstrap_is_replaced(tmp_path: Path) -> None:
    """Goal: a changed setting does not stay without effect.

    Method: leave Envoy running, come back with another concurrency.
    """
    one = settings(tmp_path)
    async with running(one, leave_envoy=True) as first:
        first.publish()
        await ready(first)
    other = settings(tmp_path, concurrency=1, northbound_address=one.northbound_address)
    async with running(other) as second:
        second.revision = first.revision
        second.publish()
        await ready(second)
        assert "envoy-replaced" in second.names()


async def test_fencing_closes_the_northbound_listener_and_open_connections_get_unavailable(
    tmp_path: Path,
) -> None:
    """Goal: a fenced host answers nobody, new or connected.

    Method: an open channel and a fresh connection, then open again.
    """
    loop = asyncio.get_running_loop()
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish(a.status())
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name
            began = loop.time()
            await host.routing.close_northbound()
            print(f"closed within {(loop.time() - began) * 1000:.0f} ms")
            with pytest.raises(grpc.aio.AioRpcError) as closed:
                await caller.echo()
            assert closed.value.code() is grpc.StatusCode.UNAVAILABLE

            async def refused() -> bool:
                ip, _, port = host.settings.northbound_address.rpartition(":")
                try:
                    _, writer = await asyncio.open_connection(ip, int(port))
                except ConnectionRefusedError:
                    return True
                writer.close()
                return False

            await until(refused)
            host.publish(a.status())
            await ready(host)


async def test_stopping_finishes_the_calls_in_hand(tmp_path: Path) -> None:
    """A call that takes half a second is under way when routing is told to stop."""
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish(a.status())
        await ready(host)
        async with client(host.settings.northbound_address) as caller, asyncio.TaskGroup() as group:
            slow = group.create_task(caller.echo(delay=Duration(nanos=500_000_000)), name="slow")
            await until(lambda: calls_in_hand(host.settings))
            await host.routing.stop(grace_s=5)
            assert await slow == a.name
        await until(lambda: "envoy-exited" in host.names())


async def test_a_resource_that_envoy_refuses_leaves_the_rest_in_force(tmp_path: Path) -> None:
    """A virtual address that is not this machine's cannot be bound; calls are routed all the same."""
    async with backend("host1", 0) as a, running(settings(tmp_path, vip_address="192.0.2.1:1")) as host:
        host.publish(a.status(), owns_vip=True)
        await until(lambda: "xds-rejected" in host.names())
        await ready(host)
        assert not host.routing.vip_listening
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name
            facts = next(facts for name, facts in host.events if name == "xds-rejected")
            assert "northbound/vip" in str(facts["reason"])
            host.publish(a.status())
            assert await caller.echo() == a.name


async def test_freebind_takes_the_virtual_ip_before_the_address_is_there(tmp_path: Path) -> None:
    """Goal: the listener is ready when the address arrives. Method: an address this machine does not have."""
    chosen = settings(tmp_path, vip_address="192.0.2.1:7001", vip_freebind=True)
    async with running(chosen) as host:
        host.publish(owns_vip=True)
        await asyncio.wait_for(host.routing.wait_vip_listening(), 10)


async def test_an_older_view_is_refused(tmp_path: Path) -> None:
    """Goal: a late publisher takes no endpoint away. Method: publish revision 1 after 3."""
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish()
        host.publish(a.status())
        await ready(host)
        host.routing.publish(RoutingView(1, (echo_spec(),)))
        assert "view-refused" in host.names()
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name


async def test_envoy_keeps_only_the_statistics_that_are_read(tmp_path: Path) -> None:
    """Goal: memory does not grow with each cluster's hundred counters."""
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.publish(a.status())
        await ready(host)
        names = [line.partition(":")[0] for line in (await admin.get(host.settings, "/stats")).splitlines()]
        assert "cluster.echo.upstream_rq_total" in names
        assert len([name for name in names if name.startswith("cluster.echo.")]) < 20
