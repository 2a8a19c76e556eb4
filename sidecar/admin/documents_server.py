"""ConfigSyncService: replicated documents."""

from collections.abc import AsyncIterator
from typing import Any

from trellis.config_sync.v1 import config_sync_pb2 as pb
from trellis.config_sync.v1 import config_sync_pb2_grpc

from mesh import failpoints
from mesh.adapters.clock import wall_ns
from mesh.adapters.deadline import remaining_s
from mesh.errors import InvalidRequest, NotFound, Problem
from mesh.ids import DOCUMENT_PATTERN, DocumentName, Index, SessionId
from mesh.limits import DOCUMENT_BYTES_MAX, DOCUMENT_NAME_CHARS_MAX
from mesh.replica import Replica
from mesh.state import commands
from mesh.state.commands import Applied
from mesh.state.model import Document
from mesh.wire.documents import document_to_wire, timestamp_of_ns
from mesh.wire.fencing import fence_of


def check_document_name(name: str) -> DocumentName:
    """A usable document name. Fails: InvalidRequest with the field and an example."""
    if not DOCUMENT_PATTERN.fullmatch(name) or len(name) > DOCUMENT_NAME_CHARS_MAX:
        problem = Problem(
            "name",
            f"{name!r} is not a document name: lower-case letters, digits, '.', '_' and '-',"
            f" in parts joined by '/', at most {DOCUMENT_NAME_CHARS_MAX} characters",
            "network/dns",
        )
        raise InvalidRequest("The document's name cannot be used.", [problem])
    return DocumentName(name)


def check_value(value: bytes) -> None:
    """The value fits. Fails: InvalidRequest."""
    if len(value) > DOCUMENT_BYTES_MAX:
        problem = Problem(
            "value",
            f"has {len(value)} bytes, at most {DOCUMENT_BYTES_MAX} fit; split it into several documents",
        )
        raise InvalidRequest("The document is too large.", [problem])


def check_session(session: str, sequence: int) -> SessionId | None:
    """Both or neither of session and sequence. Fails: InvalidRequest."""
    if bool(session) != bool(sequence):
        problem = Problem("session", "session and sequence go together: give both or neither", "a1b2, 1")
        raise InvalidRequest("The request cannot be told from a repetition.", [problem])
    return SessionId(session) if session else None


def _expected(request: pb.PutDocumentRequest | pb.DeleteDocumentRequest) -> int | None:
    return request.expected_version if request.HasField("expected_version") else None


class ConfigSyncServicer(config_sync_pb2_grpc.ConfigSyncServiceServicer):
    """Documents, on any host; writes go through the log, reads are linearizable unless stale_ok."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def PutDocument(self, request: pb.PutDocumentRequest, context: Any) -> pb.PutDocumentResponse:
        """See the contract."""
        name = check_document_name(request.name)
        check_value(request.value)
        written = await self._propose(
            commands.PutDocument(name, request.value, _expected(request)),
            request.session,
            request.sequence,
            context,
        )
        return pb.PutDocumentResponse(document=self._written(name, *written, size=len(request.value)))

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Any
    ) -> pb.DeleteDocumentResponse:
        """See the contract."""
        name = check_document_name(request.name)
        written = await self._propose(
            commands.DeleteDocument(name, _expected(request)), request.session, request.sequence, context
        )
        document = self._written(name, *written, size=0)
        document.deleted = True
        return pb.DeleteDocumentResponse(document=document)

    async def _propose(
        self,
        command: commands.PutDocument | commands.DeleteDocument,
        session: str,
        sequence: int,
        context: Any,
    ) -> tuple[Applied, int]:
        """The outcome and the wall-clock time that was proposed with the command."""
        at_ns = wall_ns()
        await failpoints.passing("documents.before-propose")
        applied = await self._replica.propose(
            command,
            session=check_session(session, sequence),
            sequence=sequence,
            at_ns=at_ns,
            timeout_s=remaining_s(context),
            fence=fence_of(context.invocation_metadata()),
        )
        await failpoints.passing("documents.proposed")
        return applied, at_ns

    def _written(self, name: DocumentName, applied: Applied, at_ns: int, *, size: int) -> pb.Document:
        # A repeated request counted at its first time; this host may have that version already.
        known = self._replica.state.document_version(name, applied.version)
        return pb.Document(
            name=name,
            version=applied.version,
            revision=applied.index,
            written=timestamp_of_ns(known.written_ns if known is not None else at_ns),
            size_bytes=size,
        )

    async def GetDocument(self, request: pb.GetDocumentRequest, context: Any) -> pb.GetDocumentResponse:
        """See the contract."""
        name = check_document_name(request.name)
        await self._barrier(request.stale_ok, context)
        state = self._replica.state
        document = (
            state.document_version(name, request.version) if request.version else state.documents.get(name)
        )
        if document is None or (document.deleted and not request.version):
            what = f"version {request.version} of {name}" if request.version else name
            raise NotFound(f"There is no document {what}; see trellis documents list.", name=name)
        return pb.GetDocumentResponse(document=document_to_wire(document))

    async def ListDocuments(self, request: pb.ListDocumentsRequest, context: Any) -> pb.ListDocumentsResponse:
        """See the contract."""
        await self._barrier(request.stale_ok, context)
        state = self._replica.state
        return pb.ListDocumentsResponse(
            documents=[
                document_to_wire(document, with_value=False)
                for document in state.documents.values()
                if document.name.startswith(request.prefix) and not document.deleted
            ],
            revision=state.applied,
        )

    async def GetDocumentHistory(
        self, request: pb.GetDocumentHistoryRequest, context: Any
    ) -> pb.GetDocumentHistoryResponse:
        """See the contract."""
        name = check_document_name(request.name)
        await self._barrier(request.stale_ok, context)
        versions = self._replica.state.document_history(name)
        if not versions:
            raise NotFound(f"There is no document {name}; see trellis documents list.", name=name)
        return pb.GetDocumentHistoryResponse(versions=[document_to_wire(version) for version in versions])

    async def WatchDocuments(
        self, request: pb.WatchDocumentsRequest, context: Any
    ) -> AsyncIterator[pb.WatchDocumentsResponse]:
        """See the contract."""
        self._replica.check_holds_state()
        state = self._replica.state
        after = Index(request.after_revision)
        first: tuple[Document, ...] = ()
        if not after:
            after = state.applied
            # In the order of their revisions: a reader whose stream breaks goes on after the last it got.
            present = (row for row in state.documents.values() if not row.deleted)
            first = tuple(sorted(present, key=lambda row: row.revision))
        async with self._replica.watch(after) as changes:
            for document in first:
                if document.name.startswith(request.prefix):
                    yield pb.WatchDocumentsResponse(document=document_to_wire(document))
            async for change in changes:
                for document in change.documents:
                    if document.name.startswith(request.prefix):
                        yield pb.WatchDocumentsResponse(document=document_to_wire(document))

    async def _barrier(self, stale_ok: bool, context: Any) -> None:
        self._replica.check_holds_state()
        if not stale_ok:
            await self._replica.barrier(timeout_s=remaining_s(context))
