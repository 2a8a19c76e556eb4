"""Lengths of time as people write and read them."""

import pytest

from mesh.errors import InvalidRequest
from sidecar.cli.durations import format_age, format_ms, parse_duration_ns

S = 10**9


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [("90s", 90 * S), ("1h30m", 5400 * S), ("250ms", S // 4), ("2d", 172_800 * S), ("0.5s", S // 2)],
)
def test_a_duration_is_numbers_with_units(text: str, expected_ns: int) -> None:
    """Goal: what people write means what they mean. Method: table."""
    assert parse_duration_ns(text) == expected_ns


@pytest.mark.parametrize("text", ["", "90", "s", "-5s", "1h 30m", "5 s", "1y", "0s", "1e9s"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """Goal: no bare number is guessed to be seconds. Method: table of near misses, with the option named."""
    with pytest.raises(InvalidRequest) as refused:
        parse_duration_ns(text, field="--lifetime")
    assert refused.value.problems[0].path == "--lifetime"
    assert refused.value.problems[0].example


def test_a_length_of_time_is_shown_with_the_digits_that_matter() -> None:
    """Goal: no figure more exact than it is. Method: values around one second."""
    assert [format_ms(value) for value in (0.4, 42, 999, 1380)] == ["0 ms", "42 ms", "999 ms", "1.38 s"]


def test_an_age_is_shown_in_its_largest_unit() -> None:
    """Goal: an age can be read at a glance. Method: one value per unit."""
    ages = [format_age(value) for value in (0.12, 45, 720, 10_800, 259_200)]
    assert ages == ["0.1 s", "45 s", "12 min", "3 h", "3 d"]
