"""Calls between hosts: mTLS to the other host's Envoy, which hands over the bytes at layer 4."""

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest

from sidecar.routing import admin
from tests.routing.harness import (
    CLUSTER,
    Authority,
    backend,
    client,
    free_port,
    ready,
    running,
    settings,
    until,
)

pytestmark = pytest.mark.integration


async def test_a_remote_instance_is_called_through_the_other_hosts_ingress(tmp_path: Path) -> None:
    """Two hosts; the only instance is on the second; the first answers calls with it."""
    authority = Authority(tmp_path / "ca")
    one = settings(tmp_path, "host1", identity=authority.issue("host1"))
    two = settings(tmp_path, "host2", identity=authority.issue("host2"))
    async with backend("host2", 0, ingress=True) as remote, running(one) as host1, running(two) as host2:
        host1.publish(remote.status())
        host2.publish(remote.status())
        await asyncio.gather(ready(host1), ready(host2))
        async with client(one.northbound_address) as caller:
            assert await caller.echo() == remote.name

        async def is_healthy() -> bool:
            """Envoy's own gRPC health check passes through the ingress too."""
            return f"echo::{remote.ingress}::health_flags::healthy" in await admin.get(one, "/clusters")

        await until(is_healthy)


async def test_a_caller_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """A certificate of the same CA for another trust domain, one of another CA, and none at all."""
    authority = Authority(tmp_path / "ca")
    chosen = settings(tmp_path, "host2", identity=authority.issue("host2"))
    other_ca = Authority(tmp_path / "other")
    async with backend("host2", 0, ingress=True) as target, running(chosen) as host:
        host.publish(target.status())
        await ready(host)
        good = authority.issue("host3")
        assert await handshake(target.ingress, authority.path, good.certificate, good.key)
        foreign = authority.issue("host4", cluster="feed")
        assert not await handshake(target.ingress, authority.path, foreign.certificate, foreign.key)
        stranger = other_ca.issue("host1", cluster=CLUSTER)
        assert not await handshake(target.ingress, authority.path, stranger.certificate, stranger.key)
        assert not await handshake(target.ingress, authority.path)


async def handshake(address: str, trusted: Path, certificate: str = "", key: str = "") -> bool:
    """Whether the server lets this client speak (TLS 1.3 refuses after the handshake)."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(certificate, key)
    ip, _, port = address.rpartition(":")
    writer = None
    try:
        reader, writer = await asyncio.open_connection(ip, int(port), ssl=context)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return bool(await asyncio.wait_for(reader.read(9), 5))
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def test_a_host_that_shows_another_hosts_certificate_is_not_called(tmp_path: Path) -> None:
    """host2's ingress answers as host3: the identity must be the host the endpoint is on."""
    authority = Authority(tmp_path / "ca")
    one = settings(tmp_path, "host1", identity=authority.issue("host1"))
    two = settings(tmp_path, "host2", identity=authority.issue("host3"))
    async with backend("host2", 0, ingress=True) as remote, running(one) as host1, running(two) as host2:
        host1.publish(remote.status())
        host2.publish(remote.status())
        await asyncio.gather(ready(host1), ready(host2))
        async with client(one.northbound_address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await caller.echo()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_rotated_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    """The CA stays, key and certificate are renamed into place; a new connection shows the new one."""
    authority = Authority(tmp_path / "ca")
    chosen = settings(tmp_path, "host2", identity=authority.issue("host2"))
    caller = authority.issue("host1")

    async def shown() -> bytes | None:
        context = ssl.create_default_context(cafile=str(authority.path))
        context.check_hostname = False
        context.load_cert_chain(caller.certificate, caller.key)
        ip, _, port = target.ingress.rpartition(":")
        _, writer = await asyncio.open_connection(ip, int(port), ssl=context)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return bytes(found)

    async with backend("host2", 0, ingress=True) as target, running(chosen) as host:
        host.publish(target.status())
        await ready(host)
        before = await shown()
        authority.issue("host2")

        async def changed() -> bool:
            return await shown() != before

        await until(changed)
        assert host.names().count("envoy-started") == 1


async def test_the_virtual_ip_is_taken_as_soon_as_the_other_envoy_lets_go(tmp_path: Path) -> None:
    """On loopback both hosts share one address: the second waits until the first has closed it."""
    vip = f"127.0.0.100:{free_port('127.0.0.100')}"
    one = settings(tmp_path, "host1", vip_address=vip)
    two = settings(tmp_path, "host2", vip_address=vip)
    loop = asyncio.get_running_loop()
    async with backend("host1", 0) as a, backend("host2", 0) as b, running(one) as h1, running(two) as h2:
        h1.publish(a.status(), owns_vip=True)
        await h1.routing.wait_vip_listening()
        h2.publish(b.status(), owns_vip=True)
        await until(lambda: "xds-rejected" in h2.names())
        await ready(h2)
        assert not h2.routing.vip_listening
        async with client(vip) as caller:
            assert await caller.echo() == a.name
        began = loop.time()
        h1.publish(a.status(), owns_vip=False)
        await h2.routing.wait_vip_listening()
        print(f"virtual IP moved within {(loop.time() - began) * 1000:.0f} ms")
        async with client(vip) as caller:
            assert await caller.echo() == b.name
