"""Documents as the contract config_sync shows them."""

from google.protobuf.timestamp_pb2 import Timestamp
from trellis.config_sync.v1 import config_sync_pb2 as pb

from mesh.state.model import Document


def timestamp_of_ns(value_ns: int) -> Timestamp:
    return Timestamp(seconds=value_ns // 1_000_000_000, nanos=value_ns % 1_000_000_000)


def document_to_wire(document: Document, *, with_value: bool = True) -> pb.Document:
    """One version; without its value in lists."""
    return pb.Document(
        name=document.name,
        version=document.version,
        value=document.value if with_value else b"",
        revision=document.revision,
        written=timestamp_of_ns(document.written_ns),
        deleted=document.deleted,
        size_bytes=len(document.value),
    )
