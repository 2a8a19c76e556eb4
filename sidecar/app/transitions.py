"""The steps of a change of leadership, as spans of one trace across the hosts.

Each host records what it saw itself, under the trace of the term (see
mesh.telemetry.traces): who was proven dead, who leads, when ownerships were
applied, and when the virtual IP was listened on. Costs a few calls per change.
"""

from collections.abc import Callable, Iterable

from mesh.ids import VIP, HostId, MemberId, Term
from mesh.raft.model import SoftState
from mesh.state.model import Ownership
from mesh.telemetry.traces import Traces

#: A crash proof that is older has nothing to do with the change that is seen now.
RELATED_NS = 10_000_000_000


class Transitions:
    """One host's part in the traces of leadership changes."""

    def __init__(self, *, traces: Traces, host: HostId, wall_ns: Callable[[], int]) -> None:
        self._traces = traces
        self._host = host
        self._now = wall_ns
        self._crashed_at = 0
        self._term = Term(0)
        self._began_at = 0
        self._owned_at = 0
        self._owners: dict[str, int] = {}

    def crash_proven(self, member: MemberId) -> None:
        """A sidecar is dead; the change that follows began here."""
        del member
        self._crashed_at = self._now()

    def role_changed(self, soft: SoftState) -> None:
        """A leader is known for a new term."""
        if soft.leader is None or soft.term == self._term:
            return
        now = self._now()
        self._term = soft.term
        self._began_at = self._crashed_at if now - self._crashed_at < RELATED_NS else now
        name = "elected" if soft.role.value == "leader" else "follows"
        self._record(name, self._began_at, now, leader=soft.leader, role=soft.role.value)

    def ownerships_applied(self, owners: Iterable[Ownership]) -> None:
        """The applied state has these ownerships now."""
        now = self._now()
        for row in owners:
            if self._owners.get(row.name) == row.fencing_term:
                continue
            self._owners[row.name] = row.fencing_term
            if row.name == VIP:
                self._owned_at = now
            self._record(
                "ownership-applied",
                self._began_at or now,
                now,
                owned=row.name,
                holder=row.holder or "",
                fencing_term=int(row.fencing_term),
            )

    def vip_listening(self, listening: bool) -> None:
        """This host's Envoy listens on the virtual IP, or no longer does."""
        now = self._now()
        if listening:
            self._record("vip-listening", self._owned_at or now, now)
        else:
            self._record("vip-closed", now, now)

    def _record(self, name: str, start_ns: int, end_ns: int, **attributes: str | int) -> None:
        self._traces.record(
            name,
            term=self._term,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes={"trellis.host": str(self._host), **attributes},
        )
