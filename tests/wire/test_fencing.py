"""The fencing term in a call's metadata."""

import pytest

from mesh.errors import InvalidRequest
from mesh.ids import FencingTerm, OwnedName
from mesh.state.model import Fence
from mesh.wire.fencing import FENCING_TERM, OWNED_NAME, fence_of, fencing_metadata

FENCE = Fence(OwnedName("service/reconciler"), FencingTerm(7))


def test_it_comes_back_as_it_was() -> None:
    """Goal: what the owner says is what the log is told. Method: there and back, among other entries."""
    assert fence_of((("user-agent", "x"), *fencing_metadata(FENCE))) == FENCE
    assert fence_of(fencing_metadata(None)) is None
    assert fence_of(None) is None


@pytest.mark.parametrize(
    "entries",
    [
        {OWNED_NAME: "service/reconciler"},
        {FENCING_TERM: "7"},
        {OWNED_NAME: "", FENCING_TERM: "7"},
        {OWNED_NAME: "x" * 200, FENCING_TERM: "7"},
        *({OWNED_NAME: "vip", FENCING_TERM: term} for term in ("0", "-1", "7.0", "", "9" * 19, "٧")),
    ],
)
def test_half_of_it_and_what_is_no_term_are_refused(entries: dict[str, str]) -> None:
    """Goal: a mistake does not make a change unguarded. Method: each entry alone, and values that are
    none."""
    with pytest.raises(InvalidRequest):
        fence_of(entries.items())
