"""The numbers of a sidecar, as Prometheus names them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mesh.adapters.clock import boottime_ns
from mesh.raft.model import Role
from mesh.telemetry.metrics import Sample

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar


def samples(sidecar: "Sidecar") -> Iterator[Sample]:
    """Everything worth watching, read now; called from the metrics thread, so it only reads."""
    yield from _consensus(sidecar)
    yield from _host(sidecar)


def _consensus(sidecar: "Sidecar") -> Iterator[Sample]:
    node, counters = sidecar.node, sidecar.consensus.driver.counters
    yield Sample("trellis_raft_term", "Raft term.", node.term)
    yield Sample("trellis_raft_is_leader", "1 on the leader.", node.role is Role.LEADER)
    yield Sample("trellis_raft_applied_index", "Index applied here.", node.applied)
    totals = {
        "proposals": "Commands appended by this leader.",
        "proposals_unknown": "Commands whose outcome this leader could not tell, as it was deposed.",
        "entries_applied": "Entries applied here.",
        "reads": "Reads confirmed by this leader.",
        "elections": "Times this member stood for election.",
        "leader_changes": "Times another leader was seen.",
        "crashes_proven": "Sidecars proven dead.",
        "stalls": "Long pauses of the event loop.",
        "messages_sent": "Raft messages sent.",
        "messages_received": "Raft messages received.",
        "snapshots_taken": "Snapshots taken.",
        "snapshots_installed": "Snapshots installed.",
    }
    for name, text in totals.items():
        yield Sample(f"trellis_raft_{name}", text, getattr(counters, name), counter=True)
    for reason, count in sorted(counters.dropped.items()):
        yield Sample(
            "trellis_raft_messages_dropped", "Messages dropped.", count, (("reason", reason),), counter=True
        )
    yield Sample("trellis_log_fsync_seconds", "Duration of the newest durable write.", counters.fsync_s)


def _host(sidecar: "Sidecar") -> Iterator[Sample]:
    left = sidecar.lease.ns_left(boottime_ns()) / 1e9
    yield Sample("trellis_lease_seconds_left", "What is left of the host's lease.", left)
    is_open = sidecar.routing.northbound_listening
    yield Sample("trellis_northbound_listening", "1 while Envoy listens on this host's own address.", is_open)
    shut = len(sidecar.routing.northbound_problems())
    yield Sample("trellis_northbound_problems", "Northbound listeners that should be open and are not.", shut)
    for status in sidecar.supervisor.statuses():
        labels = (("service", str(status.service)), ("instance", str(status.instance)))
        yield Sample("trellis_instance_ready", "1 while the instance takes traffic.", status.ready, labels)
        yield Sample(
            "trellis_instance_restarts", "Restarts after a failure.", status.restarts, labels, counter=True
        )
