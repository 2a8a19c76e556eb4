"""Route policies of methods, read from the options in their `.proto`."""

from collections.abc import Iterable
from types import ModuleType
from typing import Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from trellis.common.v1 import policy_pb2

from mesh.errors import InvalidRequest
from mesh.state.service import MethodPolicy

#: Deadline of a unary method that states none; a stream has none.
TIMEOUT_MS_DEFAULT: Final = 30_000


def policies_of(source: bytes | ModuleType) -> tuple[MethodPolicy, ...]:
    """The policy of every method in a serialised FileDescriptorSet or in a `_pb2` module, by path.

    A unary method without a deadline gets the default; a streaming one gets none.
    Fails: InvalidRequest when the bytes are not a FileDescriptorSet.
    """
    found = [
        _policy(f"/{_full_name(file, service)}/{method.name}", method)
        for file in _files(source)
        for service in file.service
        for method in service.method
    ]
    return tuple(sorted(found, key=lambda policy: policy.path))


def services_of(source: bytes | ModuleType) -> tuple[str, ...]:
    """Full names of the gRPC services in *source*: "trellis.echo.v1.EchoService"."""
    names = [_full_name(file, service) for file in _files(source) for service in file.service]
    return tuple(sorted(names))


def _files(source: bytes | ModuleType) -> Iterable[descriptor_pb2.FileDescriptorProto]:
    if isinstance(source, ModuleType):
        file = descriptor_pb2.FileDescriptorProto()
        source.DESCRIPTOR.CopyToProto(file)
        return [file]
    try:
        return descriptor_pb2.FileDescriptorSet.FromString(source).file
    except DecodeError as error:
        raise InvalidRequest(
            "The descriptors cannot be read; make them with `buf build -o descriptors.binpb`."
        ) from error


def _full_name(
    file: descriptor_pb2.FileDescriptorProto, service: descriptor_pb2.ServiceDescriptorProto
) -> str:
    return f"{file.package}.{service.name}" if file.package else service.name


def _policy(path: str, method: descriptor_pb2.MethodDescriptorProto) -> MethodPolicy:
    option = method.options.Extensions[policy_pb2.policy]
    timeout_ms = option.timeout.ToMilliseconds()
    is_stream = method.client_streaming or method.server_streaming
    return MethodPolicy(
        path=path,
        idempotent=option.idempotent,
        timeout_ms=timeout_ms or (0 if is_stream else TIMEOUT_MS_DEFAULT),
        roles=tuple(option.roles),
        leader_required=option.leader_required,
    )
