"""Events and ownerships as the contract cluster shows them."""

from trellis.cluster.v1 import cluster_pb2 as pb

from mesh.state.model import Event, Ownership
from mesh.wire.documents import timestamp_of_ns


def event_to_wire(event: Event) -> pb.Event:
    return pb.Event(
        index=event.index,
        at=timestamp_of_ns(event.at_ns),
        kind=event.kind,
        subject=event.subject,
        message=event.message,
        attributes=dict(event.attributes),
        trace_id=event.trace_id,
    )


def ownership_to_wire(owned: Ownership) -> pb.Ownership:
    return pb.Ownership(
        name=owned.name,
        host=owned.holder or "",
        fencing_term=owned.fencing_term,
        successor=owned.successor or "",
    )
