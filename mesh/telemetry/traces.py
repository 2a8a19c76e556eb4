"""Traces: spans of calls between hosts and of failovers, sent by OTLP when asked for.

Without an endpoint nothing of the SDK is imported and every span is a no-op.

A failover is one trace across hosts although nobody passes a context along: its
trace id is derived from the cluster and the Raft term, so each host can put its
own steps into it. `trace_id_of_term` is that derivation.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from mesh.errors import Problem, SettingsError
from mesh.ids import ClusterId, Term

#: Services whose every call is a stream as long as the sidecar lives.
ENDLESS_STREAMS: Final = (
    "trellis.election.v1.ElectionService",
    "trellis.heartbeat.v1.HeartbeatService",
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "grpc.health.v1.Health",
)
WATCHES: Final = ("Append", "InstallSnapshot", "Propose", "WatchDocuments", "WatchEvents")


@lru_cache(maxsize=64)
def trace_id_of_term(cluster: ClusterId, term: Term) -> str:
    """The W3C trace id (32 hex digits) of the transition that `term` is."""
    return hashlib.sha256(f"trellis/transition/{cluster}/{term}".encode()).hexdigest()[:32]


class Traces:
    """A sidecar's way to record spans.

    Bound: spans wait in the SDK's batch queue (2,048); more are dropped, never waited for.
    """

    def __init__(self, tracer: Tracer, cluster: ClusterId, shutdown: object = None) -> None:
        self._tracer = tracer
        self._cluster = cluster
        self._shutdown = shutdown

    def context_of_term(self, term: Term) -> Context:
        """The parent under which every host records its steps of one transition."""
        trace_id = trace_id_of_term(self._cluster, term)
        parent = SpanContext(
            trace_id=int(trace_id, 16),
            span_id=int(trace_id[:16], 16) or 1,
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        return set_span_in_context(NonRecordingSpan(parent))

    def record(
        self,
        name: str,
        *,
        term: Term,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Record one finished step of the transition of `term`; times are wall clock ns."""
        span = self._tracer.start_span(
            name,
            context=self.context_of_term(term),
            kind=SpanKind.INTERNAL,
            start_time=start_ns,
            attributes=dict(attributes or {}),
        )
        span.end(end_time=end_ns)

    def close(self) -> None:
        """Send what is queued, for at most a few seconds, and stop."""
        if callable(self._shutdown):
            self._shutdown()


def _instrument_grpc() -> None:
    """Record calls between hosts and by operators, but not the streams that never end.

    Order: before the first channel and server are made.
    """
    from opentelemetry.instrumentation.grpc import (
        GrpcAioInstrumentorClient,
        GrpcAioInstrumentorServer,
        filters,
    )

    endless = [filters.service_name(name) for name in ENDLESS_STREAMS]
    wanted = filters.negate(filters.any_of(*endless, *(filters.method_name(name) for name in WATCHES)))
    GrpcAioInstrumentorClient(filter_=wanted).instrument()
    GrpcAioInstrumentorServer(filter_=wanted).instrument()


def configure_traces(*, endpoint: str, host: str, cluster: ClusterId, version: str) -> Traces:
    """Make the sidecar's tracer; instruments gRPC clients and servers when an endpoint is set.

    Fails: SettingsError when the OTLP exporter cannot be imported.
    """
    if not endpoint:
        return Traces(trace.NoOpTracer(), cluster)
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        problem = Problem(
            "telemetry.otlp_endpoint",
            f"the exporter cannot be loaded ({error}); reinstall the package opentelemetry-proto",
        )
        raise SettingsError("Traces cannot be sent.", [problem]) from error
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "trellis-sidecar",
                "service.version": version,
                "service.instance.id": host,
                "trellis.cluster": cluster,
            }
        )
    )
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https")))
    )
    trace.set_tracer_provider(provider)
    _instrument_grpc()
    return Traces(provider.get_tracer("trellis"), cluster, provider.shutdown)
