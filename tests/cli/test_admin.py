"""How a command repeats its request: against a real gRPC server whose answers are written down."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from trellis.config_sync.v1 import config_sync_pb2 as pb
from trellis.config_sync.v1 import config_sync_pb2_grpc

from mesh.errors import Denied, NoLeader, NotFound, OutcomeUnknown, TrellisError, Unavailable, VersionConflict
from mesh.wire.errors import to_status
from sidecar.cli.admin import Admin

SETTINGS = """
[host]
name = "host1"
run_dir = "{run_dir}"
[mesh]
address = "127.0.0.1:7400"
"""


class Scripted(config_sync_pb2_grpc.ConfigSyncServiceServicer):
    """Answers with the errors it was given, one after the other, and then well."""

    def __init__(self) -> None:
        self.errors: list[TrellisError] = []
        self.asked: list[Any] = []

    def PutDocument(self, request: Any, context: Any) -> pb.PutDocumentResponse:  # noqa: N802 named by the contract
        self._answer(request, context)
        return pb.PutDocumentResponse(document=pb.Document(name=request.name, version=len(self.asked)))

    def GetDocument(self, request: Any, context: Any) -> pb.GetDocumentResponse:  # noqa: N802 named by the contract
        self._answer(request, context)
        return pb.GetDocumentResponse(document=pb.Document(name=request.name))

    def WatchDocuments(self, request: Any, context: Any) -> Iterator[pb.WatchDocumentsResponse]:  # noqa: N802 named by the contract
        self.asked.append(request)
        for revision in range(request.after_revision + 1, request.after_revision + 3):
            yield pb.WatchDocumentsResponse(document=pb.Document(revision=revision))
        if len(self.asked) < 3:
            context.abort_with_status(to_status(Unavailable("the stream broke")))

    def _answer(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.errors:
            context.abort_with_status(to_status(self.errors.pop(0)))


@pytest.fixture
def script() -> Scripted:
    return Scripted()  # type: ignore[abstract]  # the other methods are not asked


@pytest.fixture
def settings(tmp_path: Path, script: Scripted) -> Iterator[Path]:
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS.format(run_dir=tmp_path))
    server = grpc.server(ThreadPoolExecutor(2))
    config_sync_pb2_grpc.add_ConfigSyncServiceServicer_to_server(script, server)
    server.add_insecure_port(f"unix:{tmp_path}/admin.sock")
    server.start()
    yield path
    server.stop(None).wait()


def put(settings: Path, timeout_s: float = 5) -> pb.Document:
    with Admin(settings, timeout_s) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        request = pb.PutDocumentRequest(name="a", session="s", sequence=1)
        return admin.write(stub.PutDocument, request).document


def test_a_write_is_repeated_with_the_same_session_until_a_leader_takes_it(
    script: Scripted, settings: Path
) -> None:
    """Goal: an election costs an operator nothing and no double write.

    Method: three failures, then compare all requests.
    """
    script.errors = [NoLeader("none yet"), OutcomeUnknown("may be"), NoLeader("none yet")]
    assert put(settings).version == 4
    assert {(request.session, request.sequence) for request in script.asked} == {("s", 1)}


@pytest.mark.parametrize("final", [VersionConflict("no"), Denied("no"), NotFound("no")])
def test_a_refusal_is_final(script: Scripted, settings: Path, final: TrellisError) -> None:
    """Goal: a certain no is told at once. Method: each kind of refusal; one request is counted."""
    script.errors = [final]
    with pytest.raises(type(final)):
        put(settings)
    assert len(script.asked) == 1


def test_when_time_is_over_a_write_that_may_have_happened_says_so(script: Scripted, settings: Path) -> None:
    """Goal: an unknown outcome is not forgotten over later certain failures.

    Method: unknown once, then none for ever.
    """
    script.errors = [OutcomeUnknown("may be"), *[NoLeader("none")] * 100]
    with pytest.raises(OutcomeUnknown):
        put(settings, timeout_s=0.5)


def test_when_time_is_over_a_write_that_never_happened_says_so(script: Scripted, settings: Path) -> None:
    """Goal: a script may safely repeat it. Method: no leader for ever."""
    script.errors = [NoLeader("none")] * 100
    with pytest.raises(NoLeader):
        put(settings, timeout_s=0.5)


def test_a_read_without_an_answer_is_unavailable_not_unknown(script: Scripted, settings: Path) -> None:
    """Goal: a read cannot have changed anything, so nobody must check. Method: unknown outcomes for ever."""
    script.errors = [OutcomeUnknown("late")] * 100
    with Admin(settings, 0.5) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        with pytest.raises(Unavailable):
            admin.read(stub.GetDocument, pb.GetDocumentRequest(name="a"))


def test_a_request_that_may_not_be_repeated_is_sent_once(script: Scripted, settings: Path) -> None:
    """Goal: no second token or transfer by a retry. Method: one failure, count requests."""
    script.errors = [NoLeader("none")]
    with Admin(settings, 5) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        with pytest.raises(NoLeader):
            admin.write(stub.PutDocument, pb.PutDocumentRequest(name="a"), repeatable=False)
    assert len(script.asked) == 1


def test_a_broken_stream_goes_on_where_it_broke(script: Scripted, settings: Path) -> None:
    """Goal: a follower misses and doubles nothing.

    Method: a server that breaks off after each two answers.
    """
    seen = [0]
    with Admin(settings, 5) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        for answer in admin.follow(
            stub.WatchDocuments, lambda: pb.WatchDocumentsRequest(after_revision=seen[-1])
        ):
            seen.append(answer.document.revision)  # noqa: PERF401 the next request needs it
    assert seen == [0, 1, 2, 3, 4, 5, 6]


def test_without_a_sidecar_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    """Goal: the next step is in the message. Method: no socket."""
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS.format(run_dir=tmp_path))
    with pytest.raises(Unavailable, match="trellis run --settings"):
        Admin(path, 1)


def test_a_socket_that_a_killed_sidecar_left_behind_counts_as_none(tmp_path: Path) -> None:
    """Goal: no hanging on a dead socket file. Method: bind one and close it."""
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS.format(run_dir=tmp_path))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "admin.sock"))
    with pytest.raises(Unavailable, match="No sidecar runs here"):
        Admin(path, 1)
