"""The fencing term of an owner, in the metadata of its calls.

Both entries or neither. Whoever sends them is refused where it is not the owner any more,
at the moment that its change is applied (mesh.state.ownership.check_fence).
"""

import re
from collections.abc import Iterable
from typing import Final

from mesh.errors import InvalidRequest, Problem
from mesh.ids import FencingTerm, OwnedName
from mesh.limits import NAME_CHARS_MAX
from mesh.state.model import Fence

OWNED_NAME: Final = "trellis-owned-name"
FENCING_TERM: Final = "trellis-fencing-term"
#: A kind, "/", and a name.
_CHARS_MAX: Final = 2 * NAME_CHARS_MAX + 1
#: Above 0, below 2^63.
_TERM: Final = re.compile(r"[1-9][0-9]{0,17}")


def fencing_metadata(fence: Fence | None) -> tuple[tuple[str, str], ...]:
    """What an owner adds to its calls; nothing for others."""
    if fence is None:
        return ()
    return ((OWNED_NAME, fence.name), (FENCING_TERM, str(fence.fencing_term)))


def fence_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Fence | None:
    """For whom a call is made; None: for no owner.

    Fails: `InvalidRequest` for half of it and for what is no term: a typing error must not make it unguarded.
    """
    given = {key: str(value) for key, value in metadata or () if key in (OWNED_NAME, FENCING_TERM)}
    if not given:
        return None
    name, term = given.get(OWNED_NAME, ""), given.get(FENCING_TERM, "")
    problems = []
    if not 0 < len(name) <= _CHARS_MAX:
        problems.append(Problem(OWNED_NAME, "is not the name of something owned", "service/reconciler"))
    if not _TERM.fullmatch(term):
        problems.append(Problem(FENCING_TERM, "is not a fencing term", "7"))
    if problems:
        raise InvalidRequest("The owner in the call's metadata cannot be understood.", problems)
    return Fence(OwnedName(name), FencingTerm(int(term)))
