"""Which listeners Envoy certainly has open, from what it has acknowledged.

An acknowledged listener is open only once it has its routes, which come after it.

Invariant: a listener that Envoy refused, or whose routes it has not taken since
the northbound side was last opened, never counts as open.
"""

from sidecar.routing.model import NORTHBOUND_ROUTES
from sidecar.routing.stream import Accepted, Kind, Rejected, Report


class InForce:
    """What one Envoy has in force."""

    def __init__(self) -> None:
        self._listeners: frozenset[str] = frozenset()
        self._routes_serial = 0
        self._opened_serial = 0

    @property
    def listening(self) -> frozenset[str]:
        """Names of the listeners that take connections."""
        return self._listeners if self._routes_serial >= max(self._opened_serial, 1) else frozenset()

    def has_routes_of(self, serial: int) -> bool:
        """Envoy routes by the push *serial*, or a later one."""
        return self._routes_serial >= serial

    def on_opened(self, serial: int) -> None:
        """The push *serial* opens the northbound side, which was closed before."""
        self._opened_serial = serial

    def on_exit(self) -> None:
        """Envoy has ended; its successor starts with nothing."""
        self._listeners = frozenset()
        self._routes_serial = 0

    def on_report(self, report: Report) -> None:
        """Envoy has taken or refused a push."""
        if report.kind is Kind.LISTENER:
            reason = report.reason if isinstance(report, Rejected) else ""
            self._listeners = frozenset(name for name in report.names if name not in reason)
        elif isinstance(report, Accepted) and NORTHBOUND_ROUTES in report.names:
            self._routes_serial = report.version.serial
