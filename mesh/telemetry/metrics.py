"""Metrics: read from the running parts at the moment somebody asks.

Nothing is counted twice: parts keep plain integers, and a scrape turns them
into Prometheus samples. A sidecar that nobody scrapes pays nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mesh.errors import SettingsError
from mesh.settings.ports import why_not
from mesh.settings.values import Endpoint


@dataclass(frozen=True, slots=True)
class Sample:
    """One number with its labels; `counter` numbers only rise while the sidecar runs."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    counter: bool = False


class Closable(Protocol):
    """What a running endpoint can be told."""

    def shutdown(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Collector:
    read: Callable[[], Iterable[Sample]]

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for sample in self.read():
            family = families.get(sample.name)
            if family is None:
                kind = CounterMetricFamily if sample.counter else GaugeMetricFamily
                family = kind(sample.name, sample.help, labels=[name for name, _ in sample.labels])
                families[sample.name] = family
            family.add_metric([value for _, value in sample.labels], sample.value)  # type: ignore[attr-defined]
        yield from families.values()


def serve_metrics(address: str, port: int, read: Callable[[], Iterable[Sample]]) -> Closable:
    """Answer GET /metrics on `address:port` from a thread of its own.

    `read` is called in that thread: it may only read plain numbers.
    Fails: SettingsError when it cannot be listened on.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(read))
    try:
        server, _thread = start_http_server(port, address, registry)
    except OSError as error:
        problem = why_not("telemetry.prometheus", str(Endpoint(address, port)))
        raise SettingsError("Metrics cannot be served.", [problem]) from error
    return server
