"""What `--json` prints: plain objects made from the contracts' messages.

The field names of a status are part of the stable surface; a field is added,
never renamed.
"""

import base64
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from trellis.cluster.v1 import cluster_pb2 as cluster
from trellis.config_sync.v1 import config_sync_pb2 as config_sync
from trellis.heartbeat.v1 import heartbeat_pb2 as heartbeat
from trellis.membership.v1 import membership_pb2 as membership
from trellis.supervisor.v1 import supervisor_pb2 as supervisor

from mesh.errors import InvariantBroken
from mesh.ids import PRIMARY

Shape = dict[str, object]


def milliseconds(duration: Duration) -> float:
    """A duration in milliseconds, to the microsecond."""
    return round(duration.ToNanoseconds() / 1e6, 3)


def moment(at: Timestamp) -> str:
    """A wall-clock time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(at.ToNanoseconds() / 1e9, UTC).isoformat(timespec="milliseconds")


def word(message: Message, field: str) -> str:
    """The value of an enum field as one word: "voter", "active-active"."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    if enum is None:
        raise InvariantBroken(f"{field} of {message.DESCRIPTOR.full_name} is not an enum")
    name = enum.values_by_number[getattr(message, field)].name
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name)[1:]
    return name.removeprefix(f"{prefix}_").lower().replace("_", "-")


def _database_shape(status: cluster.GetStatusResponse) -> Shape | None:
    """Who is the database's primary; None while no database is declared. `trellis db status` knows more."""
    found = next((owner for owner in status.owners if owner.name == PRIMARY), None)
    return None if found is None else {"primary": found.host or None, "fencing_term": found.fencing_term}


def status_shape(status: cluster.GetStatusResponse) -> Shape:
    """`trellis status --json`."""
    return {
        "cluster_id": status.cluster_id,
        "host_id": status.host_id,
        "incarnation": status.incarnation,
        "term": status.term,
        "leader": status.leader or None,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "role": status.role,
        "lease_ms_left": milliseconds(status.lease_left),
        "owners": {owner.name: ownership_shape(owner) for owner in status.owners},
        "postgres": _database_shape(status),
        "hosts": [host_shape(host) for host in status.hosts],
        "services": [service_shape(service) for service in status.services],
        "virtual_address": status.virtual_address or None,
        "northbound_addresses": dict(sorted(status.northbound_addresses.items())),
        "northbound_listening": status.northbound_listening,
        "northbound_problems": list(status.northbound_problems),
        "version": status.version,
        "state_hash": status.state_hash.hex(),
        "state_hash_index": status.state_hash_index,
        "fenced_reason": status.fenced_reason or None,
    }


def ownership_shape(owner: cluster.Ownership) -> Shape:
    """Who holds one exclusive thing."""
    shape: Shape = {"host": owner.host or None, "fencing_term": owner.fencing_term}
    if owner.successor:
        shape["successor"] = owner.successor
    return shape


def host_shape(host: membership.Host) -> Shape:
    """One host of the cluster."""
    known = host.HasField("last_beat_age")
    return {
        "host": host.host,
        "member": host.member,
        "role": word(host, "role"),
        "address": host.address,
        "status": word(host, "status"),
        "draining": host.draining,
        "leader": host.leader,
        "applied_index": host.applied_index or None,
        "last_beat_ms": milliseconds(host.last_beat_age) if known else None,
        "version": host.version,
    }


def service_shape(service: supervisor.Service) -> Shape:
    """One service with its instances."""
    spec = service.spec
    return {
        "name": spec.name,
        "mode": word(spec, "mode"),
        "version": service.version,
        "stopped": service.stopped,
        "degraded_reason": service.degraded_reason or None,
        "fencing_term": service.fencing_term,
        "instances_min": spec.instances_min,
        "instances_max": spec.instances_max,
        "command": list(spec.command),
        "routed": spec.routed,
        "grpc_services": list(spec.grpc_services),
        "instances": [instance_shape(report) for report in service.instances],
    }


def instance_shape(report: heartbeat.InstanceReport) -> Shape:
    """One running copy of a service."""
    return {
        "instance": report.instance,
        "host": report.instance.partition("@")[2].rpartition("#")[0],
        "state": word(report, "state"),
        "ready": report.ready,
        "generation": report.generation,
        "pid": report.pid or None,
        "restarts": report.restarts,
        "address": report.address or None,
        "reason": report.reason or None,
        "spec_version": report.spec_version,
    }


def document_shape(document: config_sync.Document, *, with_value: bool = True) -> Shape:
    """One version of a document; a value that is not UTF-8 comes as base64."""
    shape: Shape = {
        "name": document.name,
        "version": document.version,
        "revision": document.revision,
        "written": moment(document.written),
        "deleted": document.deleted,
        "size_bytes": document.size_bytes,
    }
    if with_value:
        try:
            shape["value"] = document.value.decode()
        except UnicodeDecodeError:
            shape["value_base64"] = base64.b64encode(document.value).decode()
    return shape


def event_shape(event: cluster.Event) -> Shape:
    """One thing that happened."""
    return {
        "index": event.index,
        "at": moment(event.at),
        "at_ns": event.at.ToNanoseconds(),
        "kind": event.kind,
        "subject": event.subject,
        "message": event.message,
        "attributes": dict(sorted(event.attributes.items())),
        "trace_id": event.trace_id or None,
    }
