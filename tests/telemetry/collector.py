"""A collector that keeps the spans it is sent: the receiving end of OTLP over gRPC."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """What the tests look at."""

    service: str
    name: str
    trace: str
    parent: str
    attributes: dict[str, str]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span, in order of arrival."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        for resource in request.resource_spans:
            facts = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {each.key: each.value.string_value for each in span.attributes}
                    self.spans.append(
                        Span(
                            facts.get("service.name", ""),
                            span.name,
                            span.trace_id.hex(),
                            span.parent_span_id.hex(),
                            attributes,
                        )
                    )
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        """Spans of one name."""
        return [span for span in list(self.spans) if span.name == name]


@contextmanager
def collecting(address: str) -> Iterator[tuple[Collector, str]]:
    """A running collector and its "ip:port"."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # comes without types
    register(collector, server)
    port = server.add_insecure_port(f"{address}:0")
    server.start()
    try:
        yield collector, f"{address}:{port}"
    finally:
        server.stop(0).wait()
