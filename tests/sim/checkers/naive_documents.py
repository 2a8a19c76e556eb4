"""The documents as they must be if every committed request counts once: a naive twin of mesh.state.

Not a checker; `exactly_once` asks it. It remembers every request for ever, and every version of every
document. Where the state machine may forget (a session that was not used for long), it says that it
does not know, instead of knowing better.
"""

from bisect import bisect_right
from typing import NamedTuple

from mesh.ids import DOCUMENT_PATTERN, SessionId
from mesh.limits import DOCUMENT_BYTES_MAX, DOCUMENT_NAME_CHARS_MAX, SESSION_OUTCOMES_MAX, SESSIONS_MAX
from mesh.state.commands import Batch, DeleteDocument, PutDocument, Request


class Written(NamedTuple):
    """One version of a document; `value` None: this version is its deletion."""

    at_index: int
    version: int
    value: bytes | None


NEVER_WRITTEN = Written(0, 0, None)


class NaiveDocuments:
    """Order: requests come in the order of the log."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Written]] = {}
        #: Documents that this twin cannot speak for any more.
        self.doubtful: set[str] = set()
        self._counted: dict[SessionId, set[int]] = {}

    def apply(self, index: int, request: Request) -> Written | None:
        """Count one request; what it wrote, if anything."""
        command = request.command
        if request.session and not self._counts(request):
            return None
        if isinstance(command, Batch):
            self.doubtful |= {
                each.name for each in command.commands if isinstance(each, PutDocument | DeleteDocument)
            }
        elif isinstance(command, PutDocument | DeleteDocument):
            return self._write(index, command)
        return None

    def _counts(self, request: Request) -> bool:
        """Whether this is the first time. Old sequences may be forgotten: then nobody knows."""
        counted = self._counted.setdefault(request.session, set())
        if request.sequence in counted or request.sequence < 1:
            return False
        is_old = request.sequence <= max(counted, default=0) - SESSION_OUTCOMES_MAX
        is_forgotten = len(self._counted) > SESSIONS_MAX and request.sequence > SESSION_OUTCOMES_MAX
        if (is_old or is_forgotten) and isinstance(request.command, PutDocument | DeleteDocument):
            self.doubtful.add(request.command.name)
        counted.add(request.sequence)
        return True

    def _write(self, index: int, command: PutDocument | DeleteDocument) -> Written | None:
        versions = self.versions.setdefault(command.name, [])
        last = versions[-1] if versions else NEVER_WRITTEN
        present = last.version if last.value is not None else 0
        value = command.value if isinstance(command, PutDocument) else None
        if command.expected_version not in (None, present) or (value is None and last.value is None):
            return None
        if value is not None and not _is_acceptable(command.name, value):
            return None
        versions.append(Written(index, last.version + 1, value))
        return versions[-1]

    def made(self, name: str, version: int) -> Written | None:
        """A version of a document: they rise by one."""
        versions = self.versions.get(name, [])
        return versions[version - 1] if 0 < version <= len(versions) else None

    def at(self, name: str, index: int) -> Written:
        """The document after the entry at *index*."""
        versions = self.versions.get(name, [])
        place = bisect_right(versions, index, key=lambda each: each.at_index)
        return versions[place - 1] if place else NEVER_WRITTEN

    def present(self, prefix: str, index: int) -> list[tuple[str, int]]:
        """Names and versions of all documents whose names begin so, after the entry at *index*."""
        names = sorted(name for name in self.versions if name.startswith(prefix))
        found = [(name, self.at(name, index)) for name in names]
        return [(name, written.version) for name, written in found if written.value is not None]


def _is_acceptable(name: str, value: bytes) -> bool:
    is_name = len(name) <= DOCUMENT_NAME_CHARS_MAX and DOCUMENT_PATTERN.fullmatch(name) is not None
    return is_name and len(value) <= DOCUMENT_BYTES_MAX
