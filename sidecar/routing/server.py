"""The ADS servicer: one stream per Envoy or proxyless client of this host.

What a stream is owed is decided in stream.py; here it is read and written. Before
the first `push` nothing is sent to anybody.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from mesh import failpoints
from mesh.errors import Problem, SettingsError
from mesh.settings.ports import why_not
from sidecar.routing import bootstrap
from sidecar.routing.model import Resource, RoutingSettings, Snapshots
from sidecar.routing.resources import KINDS, TYPE_URLS, Encoder
from sidecar.routing.stream import AdsStream, Kind, Report, Request, Response, Version, index

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
STREAMS_MAX: Final = 2_000

#: Called with a stream's node id and what the client said of a response.
OnReport = Callable[[str, Report], None]
#: Called with a stream's node id when it already holds something newer than what there is.
OnHeld = Callable[[str, Version], None]
Resources = Mapping[Kind, Mapping[str, Resource]]


@dataclass(slots=True, eq=False)
class _Client:
    """One open stream."""

    node: str = ""
    stream: AdsStream = field(default_factory=AdsStream)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_envoy(self) -> bool:
        return self.node.startswith(bootstrap.ENVOY_NODE_PREFIX)


class AdsServer:
    """Serves the newest snapshots to every stream."""

    def __init__(self, settings: RoutingSettings, on_report: OnReport, on_held: OnHeld) -> None:
        self._settings = settings
        self._on_report = on_report
        self._on_held = on_held
        self._encoder = Encoder(settings)
        self._clients: list[_Client] = []
        self._version: Version | None = None
        self._envoy: Resources = {}
        self._proxyless: Resources = {}

    def push(self, snapshots: Snapshots, version: Version) -> None:
        """Makes these the newest; every stream is told what differs for it."""
        self._version = version
        self._envoy = index(snapshots.envoy)
        self._proxyless = index(snapshots.proxyless)
        for client in self._clients:
            client.wake.set()

    def advance(self, version: Version) -> None:
        """The newest snapshots are also those of a later revision."""
        for client in self._clients:
            if self._version is not None and client.stream.is_held(self._version):
                client.wake.set()
        self._version = version

    def resend_to_envoy(self, kind: Kind) -> None:
        """Pushes a kind again that Envoy has refused for a reason that may pass."""
        for client in self._clients:
            if client.is_envoy:
                client.stream.resend(kind)
                client.wake.set()

    def bind(self) -> grpc.aio.Server:
        """A server that listens once `run` starts it.

        Fails: SettingsError when an address cannot be bound.
        """
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=STREAMS_MAX)
        server.add_generic_rpc_handlers((self._handlers(),))
        self._bind_socket(server)
        if self._settings.xds_address:
            try:
                server.add_insecure_port(self._settings.xds_address)
            except RuntimeError as error:
                raise _refused(why_not("xds.address", self._settings.xds_address)) from error
        return server

    async def run(self, server: grpc.aio.Server) -> None:
        """Serves until cancelled."""
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(grace=None)

    def _bind_socket(self, server: grpc.aio.Server) -> None:
        """Binds under another name first: gRPC, when it ends, removes the name it bound.

        A predecessor that ends late would take its successor's socket away.
        """
        path = Path(bootstrap.xds_socket(self._settings))
        fresh = path.with_suffix(".new")
        try:
            server.add_insecure_port(f"unix:{fresh}")
        except RuntimeError as error:
            problem = Problem("host.run_dir", f"no socket can be made at {fresh}; choose another directory")
            raise _refused(problem) from error
        fresh.replace(path)

    def _handlers(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAggregatedResources": handler})

    async def _stream(self, requests: Any, context: Any) -> None:
        """One stream from its first request to its end."""
        client = _Client()
        self._clients.append(client)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(client, context), name="ads-write")
                async for request in requests:
                    self._on_request(client, request)
                writer.cancel()
        finally:
            self._clients.remove(client)

    def _on_request(self, client: _Client, message: Any) -> None:
        client.node = client.node or message.node.id
        kind = KINDS.get(message.type_url)
        if kind is None:
            return
        request = Request(
            kind,
            tuple(message.resource_names),
            message.version_info,
            message.response_nonce,
            message.error_detail.message if message.HasField("error_detail") else "",
        )
        report = client.stream.on_request(request)
        client.wake.set()
        if report is not None:
            self._on_report(client.node, report)

    async def _write(self, client: _Client, context: Any) -> None:
        while True:
            await client.wake.wait()
            client.wake.clear()
            if self._version is None:
                continue
            if client.stream.is_held(self._version):
                self._on_held(client.node, self._version)
                continue
            resources = self._envoy if client.is_envoy else self._proxyless
            for response in client.stream.take(resources, self._version):
                await failpoints.passing("xds.before-write")
                await context.write(self._encode(response))

    def _encode(self, response: Response) -> discovery_pb2.DiscoveryResponse:
        return discovery_pb2.DiscoveryResponse(
            version_info=str(response.version),
            nonce=response.nonce,
            type_url=TYPE_URLS[response.kind],
            resources=[self._encoder.encode(each) for each in response.resources],
        )


def _refused(problem: Problem) -> SettingsError:
    return SettingsError("xDS cannot be served.", [problem])
