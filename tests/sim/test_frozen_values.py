"""What simulations make cheaply is what production makes."""

import copy
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from mesh.ids import Index, MemberId, Term
from mesh.raft.model import NOWHERE, Append, Envelope, Ready
from tests.sim.frozen_values import make_cheap, make_one_cheap


@dataclass(frozen=True, slots=True)
class Sample:
    """Fields of every kind that a value has."""

    first: int
    second: str
    third: tuple[int, ...] = ()
    fourth: dict[str, int] = field(default_factory=dict)
    fifth: int | None = None


@pytest.fixture
def cheap() -> Iterator[type[Sample]]:
    """The sample as simulations have it."""
    before = Sample.__init__
    make_one_cheap(Sample)
    yield Sample
    Sample.__init__ = before  # type: ignore[method-assign]


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1, "a"), {}),
    ((1, "a", (2,), {"b": 3}, 4), {}),
    ((1,), {"second": "a", "fifth": 5}),
]


@pytest.mark.parametrize(("given", "named"), CALLS)
def test_a_cheap_value_equals_the_dear_one(
    cheap: type[Sample], given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Goal: a simulation runs on the same values. Method: fields, text, copies; each way to call."""
    made = cheap(*given, **named)
    assert type(made) is Sample
    whole: dict[str, Any] = {"first": 1, "second": "a", "third": (), "fourth": {}, "fifth": None}
    whole |= {**dict(zip(whole, given, strict=False)), **named}
    assert {name: getattr(made, name) for name in whole} == whole
    assert repr(made) == f"Sample({', '.join(f'{name}={value!r}' for name, value in whole.items())})"
    assert copy.deepcopy(made) == copy.copy(made) == replace(made) == made
    assert replace(made, first=7) != made


def test_a_cheap_value_is_frozen_and_shares_no_default(cheap: type[Sample]) -> None:
    """Goal: nothing is allowed that production forbids. Method: set, delete, and call as one must not."""
    one, other = cheap(1, "a"), cheap(1, "a")
    assert one.fourth is not other.fourth
    with pytest.raises(FrozenInstanceError):
        one.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del one.first
    with pytest.raises(TypeError, match="second"):
        cheap(1)  # type: ignore[call-arg]
    assert not hasattr(one, "__dict__")


def test_what_production_makes_often_is_cheap_in_a_simulation() -> None:
    """Goal: it takes hold. Method: a message with a base class, and a value of many fields."""
    make_cheap()
    make_cheap()  # nothing is done twice
    assert hasattr(Ready.__init__, "is_cheap")
    assert hasattr(Append.__init__, "is_cheap")
    message = Append(
        sender=MemberId("a.1"),
        to=MemberId("b.1"),
        term=Term(1),
        previous=NOWHERE,
        entries=(),
        commit=Index(0),
    )
    assert isinstance(message, Envelope)
    assert hash(message) == hash(replace(message))
    with pytest.raises(FrozenInstanceError):
        message.commit = Index(1)  # type: ignore[misc]
