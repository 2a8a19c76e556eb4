"""The catalogue and the code name the same places, and each says what it is."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from mesh.failpoints import FAILPOINTS, Raises
from mesh.failpoints.catalogue import Failpoint

ROOT = Path(__file__).resolve().parents[2]
#: A promise to whoever simulates: so many places, at least.
PLACES_MIN = 45


def places() -> Counter[tuple[str, str]]:
    """Every call of `failpoints.hit` and `failpoints.passing` in the production code: name and kind."""
    found: Counter[tuple[str, str]] = Counter()
    for package in ("mesh", "sidecar"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="failpoints"), attr="hit" | "passing" as kind),
                        args=[ast.Constant(value=str(name))],
                    ):
                        found[name, kind] += 1
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="failpoints"))):
                        raise AssertionError(f"{path}:{node.lineno}: a failpoint is named by one text")
    return found


PLACES = places()


def test_every_name_stands_at_one_place_in_the_code() -> None:
    """Goal: a name means one moment. Method: every call in the source, compared with the catalogue."""
    names = Counter(name for name, _ in PLACES.elements())
    assert sorted(names) == sorted(FAILPOINTS)
    assert {name: count for name, count in names.items() if count > 1} == {}
    assert len(names) >= PLACES_MIN


def test_a_place_awaits_exactly_when_the_catalogue_says_so() -> None:
    """Goal: a stall is what the place could really do. Method: hit or passing, against `awaits`."""
    said = {(each.name, "passing" if each.awaits else "hit") for each in FAILPOINTS.values()}
    assert set(PLACES) == said


@pytest.mark.parametrize("failpoint", FAILPOINTS.values(), ids=lambda each: each.name)
def test_every_failpoint_has_a_sentence_of_its_own(failpoint: Failpoint) -> None:
    """Goal: a list that helps. Method: a dotted name in small letters; one sentence, nobody else's."""
    assert all(part.replace("-", "").isalpha() and part.islower() for part in failpoint.name.split("."))
    assert "." in failpoint.name
    assert failpoint.text[0].isupper()
    assert failpoint.text.endswith(".")
    assert [each.name for each in FAILPOINTS.values() if each.text == failpoint.text] == [failpoint.name]


def test_errors_of_every_kind_are_used() -> None:
    """Goal: no kind without a place. Method: the kinds of the catalogue."""
    assert {each.raises for each in FAILPOINTS.values()} == set(Raises)
