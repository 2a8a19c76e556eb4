"""Errors over a real gRPC call: the same class, reason, metadata and text on the other side."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from mesh import errors
from mesh.errors import Corruption, InvalidRequest, Problem, SettingsError, TrellisError
from mesh.wire.errors import DOMAIN, TABLE, code_of, from_rpc_error, to_status

PROBLEMS = (Problem("instances_min", "is 0", "1"), Problem("name", "is empty"))


def example(kind: type[TrellisError]) -> TrellisError:
    if issubclass(kind, InvalidRequest | SettingsError):
        return kind("cannot be used", PROBLEMS)
    if issubclass(kind, Corruption):
        return kind("the log", "record 5 has another checksum")
    return kind("cannot be done; do something else", leader="host2", term=5)


def every_kind(kind: type[TrellisError] = TrellisError) -> Iterator[type[TrellisError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from every_kind(each)


def test_the_table_names_every_error_and_every_reason_once() -> None:
    """Goal: no error leaves as UNKNOWN. Method: walk the classes."""
    kinds = {kind for kind in every_kind() if kind.__module__ == errors.__name__}
    assert kinds == {kind for kind, _ in TABLE}
    assert len({kind.reason for kind in kinds}) == len(kinds)


def test_a_subclass_stands_before_what_it_is_made_from() -> None:
    """Goal: an error is not taken for its parent. Method: every pair of the table."""
    order = [kind for kind, _ in TABLE]
    for place, kind in enumerate(order):
        assert not any(issubclass(later, kind) for later in order[place + 1 :])


@pytest.mark.parametrize(("kind", "code"), TABLE)
def test_a_status_has_exactly_one_error_info(kind: type[TrellisError], code: grpc.StatusCode) -> None:
    """Goal: AIP-193. Method: every row, its trailer unpacked."""
    error = example(kind)
    assert code_of(error) is code
    status = to_status(error)
    assert status.code is code
    (trailer,) = status.trailing_metadata
    rich = status_pb2.Status.FromString(trailer[1])
    infos = [each for each in rich.details if each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (kind.reason, DOMAIN, error.metadata)


class Raising:
    """A server that ends each call with the status put here."""

    status: Any = None

    async def answer(self, request: bytes, context: Any) -> bytes:
        if self.status is None:
            await context.abort(grpc.StatusCode.INTERNAL, "no details")
        await context.abort_with_status(self.status)
        return b""


@pytest.fixture
async def raising() -> AsyncIterator[tuple[Raising, str]]:
    servicer = Raising()
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(servicer.answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


async def failure_of(address: str) -> grpc.RpcError:
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/test.Test/Call")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=10)
        return caught.value


async def test_every_error_comes_out_of_a_call_as_it_went_in(raising: tuple[Raising, str]) -> None:
    """Goal: a remote refusal can be caught like a local one. Method: every row over a real call."""
    servicer, address = raising
    for kind, code in TABLE:
        error = example(kind)
        servicer.status = to_status(error)
        failure = await failure_of(address)
        assert failure.code() is code
        found = from_rpc_error(failure)
        assert type(found) is kind
        assert (found.message, found.metadata) == (error.message, error.metadata)
        assert str(found) == str(error), "problems and examples included"
        if isinstance(found, InvalidRequest | SettingsError):
            assert found.problems == PROBLEMS, "each with its example apart"


async def test_an_error_of_a_later_version_is_taken_by_its_code(raising: tuple[Raising, str]) -> None:
    """Goal: an old client still knows whether to repeat. Method: a class it has not."""

    class Novel(errors.Conflict):
        reason = "NOVEL"

    servicer, address = raising
    servicer.status = to_status(Novel("not now", fact=1))
    found = from_rpc_error(await failure_of(address))
    assert type(found) is errors.Conflict
    assert found.metadata == {"fact": "1", "reason": "NOVEL"}


async def test_a_failure_without_details_is_never_taken_for_a_refusal(raising: tuple[Raising, str]) -> None:
    """Goal: no write is called undone that may have been done. Method: INTERNAL without details."""
    _, address = raising
    found = from_rpc_error(await failure_of(address))
    assert isinstance(found, errors.OutcomeUnknown), "the call may have been carried out"


async def test_a_peer_that_does_not_listen_is_unreachable() -> None:
    """Goal: a dead peer is told from one that refuses. Method: a port where nobody listens."""
    found = from_rpc_error(await failure_of("127.0.0.1:1"))
    assert isinstance(found, errors.PeerUnreachable)
    assert "UNAVAILABLE" in found.message


class Broken(grpc.RpcError):
    """A failure whose details are not what they should be."""

    def __init__(self, trailer: bytes) -> None:
        self._trailer = trailer

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "cut off"

    def trailing_metadata(self) -> Any:
        return (("other", "x"), ("grpc-status-details-bin", self._trailer))


def test_details_that_are_broken_or_of_somebody_else_count_as_none() -> None:
    """Goal: a proxy's trailers cannot pose as our reasons. Method: garbage and another domain."""
    foreign = status_pb2.Status(message="no")
    foreign.details.add().Pack(error_details_pb2.RetryInfo())
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="NOT_LEADER", domain="elsewhere"))
    for trailer in (b"\xff", foreign.SerializeToString()):
        found = from_rpc_error(Broken(trailer))
        assert isinstance(found, errors.PeerUnreachable)
        assert found.message == "UNAVAILABLE: cut off"
