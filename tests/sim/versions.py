"""A previous version on some hosts: messages that come from or go to them keep only what it knows.

The earlier schema is the released one (protos/released.binpb), in a pool of its own: what a sidecar of
that version parses and says again has lost every field that came later.
"""

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mesh.ids import ClusterId
from mesh.raft.model import Message
from mesh.wire.raft import decode, encode

RELEASED = Path(__file__).parents[2] / "protos" / "released.binpb"


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(RELEASED.read_bytes()).file:
        pool.Add(file)
    return pool


@cache
def _released(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


def through_released(message: Message, cluster: ClusterId) -> Message:
    """*message* as a host of the released version passes it on, or says it."""
    wire = encode(message, cluster)
    earlier = _released(wire.DESCRIPTOR.full_name).FromString(wire.SerializeToString())
    earlier.DiscardUnknownFields()
    return decode(type(wire).FromString(earlier.SerializeToString()))
