"""Commands on documents: write, delete, and what is kept of earlier versions.

Bound: a document has up to `limits.DOCUMENT_BYTES_MAX` bytes, all present ones
together `limits.DOCUMENTS_BYTES_MAX`. Up to `limits.DOCUMENT_HISTORY_MAX`
versions of each are kept; when all history together would pass
`limits.HISTORY_BYTES_MAX`, the document being written loses its oldest first.
"""

from mesh.errors import NotFound, QueueFull
from mesh.ids import DOCUMENT_PATTERN, DocumentName
from mesh.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_HISTORY_MAX,
    DOCUMENT_NAME_CHARS_MAX,
    DOCUMENTS_BYTES_MAX,
    DOCUMENTS_MAX,
    HISTORY_BYTES_MAX,
    TOMBSTONES_MAX,
)
from mesh.state.applying import Applying, check_version, invalid
from mesh.state.commands import Applied, DeleteDocument, PutDocument
from mesh.state.model import ChangeKind, Document
from mesh.state.tables import ClusterState

#: Counter of the highest version among forgotten tombstones: new names go on from there.
VERSION_FLOOR = "document-version-floor"


def put_document(at: Applying, command: PutDocument) -> Applied:
    state, name, value = at.state, command.name, command.value
    present = state.documents.rows.get(name)
    if present is None:
        _check_name(name)
    exists = present is not None and not present.deleted
    check_version(
        f'document "{name}"', present.version if present and exists else 0, command.expected_version
    )
    size_before = len(present.value) if present else 0
    _check_room(state, len(value), size_before, exists)
    version = _next_version(state, present)
    _replace(at, present, Document(name, version, value, at.index, at.at_ns))
    return Applied(at.index, version=version)


def delete_document(at: Applying, command: DeleteDocument) -> Applied:
    present = at.state.documents.get(command.name)
    if present is None or present.deleted:
        raise NotFound(f'no document "{command.name}"', name=command.name)
    check_version(f'document "{command.name}"', present.version, command.expected_version)
    version = present.version + 1
    _replace(at, present, Document(command.name, version, b"", at.index, at.at_ns, deleted=True))
    return Applied(at.index, version=version)


def forget_tombstones(at: Applying) -> None:
    """Bounds the deleted documents; called once a command has taken effect."""
    state = at.state
    for document in at.documents:
        state.tombstones.pop(document.name, None)
        if document.deleted:
            state.tombstones[document.name] = None
    while len(state.tombstones) > TOMBSTONES_MAX:
        name = next(iter(state.tombstones))
        del state.tombstones[name]
        version = state.documents[name].version
        state.documents.drop(name)
        state.versions.drop((name, version))
        for earlier in state.history.pop(name, ()):
            state.history_bytes -= len(state.versions[name, earlier].value)
            state.versions.drop((name, earlier))
        if version > state.counters.get(VERSION_FLOOR, 0):
            state.counters.put(VERSION_FLOOR, version)


def _replace(at: Applying, present: Document | None, document: Document) -> None:
    """Makes `document` the newest version and the present one history."""
    state, name = at.state, document.name
    if present is not None:
        _into_history(state, present)
    state.documents.put(name, document)
    state.versions.put((name, document.version), document)
    state.document_bytes += len(document.value)
    at.documents.append(document)
    at.changed(ChangeKind.DOCUMENT, name)


def _into_history(state: ClusterState, document: Document) -> None:
    """Counts a version as history of its name, and drops the oldest beyond the bounds."""
    name, versions, size = document.name, state.versions, len(document.value)
    before = state.history.get(name)
    kept = (*(before or ()), document.version)
    state.document_bytes -= size
    state.history_bytes += size
    while kept and (len(kept) >= DOCUMENT_HISTORY_MAX or state.history_bytes > HISTORY_BYTES_MAX):
        state.history_bytes -= len(versions.rows[name, kept[0]].value)
        versions.drop((name, kept[0]))
        kept = kept[1:]
    state.ledger.undo.append((state.history, name, before))
    state.history[name] = kept


def _next_version(state: ClusterState, present: Document | None) -> int:
    if present is not None:
        return present.version + 1
    return state.counters.get(VERSION_FLOOR, 0) + 1


def _check_name(name: DocumentName) -> None:
    if len(name) > DOCUMENT_NAME_CHARS_MAX or not DOCUMENT_PATTERN.fullmatch(name):
        raise invalid(
            "name",
            f'"{name[:80]}" is not a document name: lower-case words separated by "/", up to 255 characters',
            "network/dns",
        )


def _check_room(state: ClusterState, size: int, size_before: int, exists: bool) -> None:
    if size > DOCUMENT_BYTES_MAX:
        raise invalid("value", f"has {size} bytes; a document has at most {DOCUMENT_BYTES_MAX}")
    if not exists and len(state.documents) - len(state.tombstones) >= DOCUMENTS_MAX:
        raise QueueFull(f"there are {DOCUMENTS_MAX} documents; delete some first", documents=DOCUMENTS_MAX)
    if state.document_bytes - size_before + size > DOCUMENTS_BYTES_MAX:
        raise QueueFull(
            f"all documents together may have {DOCUMENTS_BYTES_MAX} bytes; delete some first",
            bytes=state.document_bytes,
        )
