"""Route policies come from the `.proto` and from nowhere else."""

import pytest
from google.protobuf import descriptor_pb2
from trellis.echo.v1 import echo_pb2

from mesh.errors import InvalidRequest
from mesh.state.service import MethodPolicy
from mesh.wire.policy import policies_of, services_of

EXPECTED = (
    MethodPolicy("/trellis.echo.v1.EchoService/Count", timeout_ms=30_000),
    MethodPolicy("/trellis.echo.v1.EchoService/Echo", idempotent=True, timeout_ms=5_000),
    MethodPolicy("/trellis.echo.v1.EchoService/EchoStream"),
)


def test_every_method_of_a_module_has_a_policy() -> None:
    """A stated deadline is kept, a unary method gets the default, a stream gets none."""
    assert policies_of(echo_pb2) == EXPECTED
    assert services_of(echo_pb2) == ("trellis.echo.v1.EchoService",)


def test_a_descriptor_set_says_the_same_as_the_module() -> None:
    """Goal: services without Python stubs get the same routes. Method: the same file both ways."""
    file = descriptor_pb2.FileDescriptorProto()
    echo_pb2.DESCRIPTOR.CopyToProto(file)
    assert policies_of(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()) == EXPECTED


def test_other_bytes_are_refused_with_the_remedy() -> None:
    """Goal: a wrong file is told with how to make a right one. Method: two odd bytes."""
    with pytest.raises(InvalidRequest, match="buf build"):
        policies_of(b"\xff\xff")
