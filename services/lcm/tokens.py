"""Tokens of pages: where a list goes on, and for which selection.

A token is a text of the caller's: everything in it is looked at before the database sees it.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from mesh.errors import InvalidRequest, Problem
from mesh.ids import NAME_PATTERN

_PROBLEM: Final = (
    "is not a token of a page of this list: give what next_page_token said, with the same selection"
)
_REVISION_MAX: Final = (1 << 63) - 1


def write_token(revision: int, after: int | str, selected: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([1, revision, after, dict(selected)]).encode()).decode()


def read_name_token(token: str, selected: Mapping[str, str]) -> tuple[int, str]:
    """Revision before the first page, and the name after which the next begins. Fails: `InvalidRequest`."""
    revision, after = _read(token, selected)
    if not (isinstance(after, str) and NAME_PATTERN.fullmatch(after) and _is_revision(revision)):
        raise _refusal()
    return revision, after


def read_revision_token(token: str, selected: Mapping[str, str]) -> int:
    """The revision before which the next page begins. Fails: `InvalidRequest`."""
    _, after = _read(token, selected)
    if not _is_revision(after):
        raise _refusal()
    return int(after)


def _read(token: str, selected: Mapping[str, str]) -> tuple[Any, Any]:
    try:
        version, revision, after, before = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise _refusal() from error
    if (version, before) != (1, dict(selected)):
        raise _refusal()
    return revision, after


def _is_revision(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _REVISION_MAX


def _refusal() -> InvalidRequest:
    return InvalidRequest("The page cannot be read.", [Problem("page_token", _PROBLEM)])
