"""Lengths of time as people write them: "90s", "1h30m", "250ms"."""

import re
from typing import Final

from mesh.errors import InvalidRequest, Problem

_NS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def parse_duration_ns(text: str, *, field: str = "duration") -> int:
    """Nanoseconds of a text such as "1h30m".

    Fails: `InvalidRequest` when it is not numbers with units, or is zero.
    """
    parts = _PART.findall(text)
    total_ns = sum(round(float(number) * _NS[unit]) for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total_ns == 0:
        problem = Problem(field, f"{text!r} is not a length of time above zero", "90s, 30m, 1h30m, 250ms")
        raise InvalidRequest(f"{field} cannot be used.", [problem])
    return total_ns


def format_ms(value_ms: float) -> str:
    """A length of time with as many digits as matter: "42 ms", "1.38 s"."""
    return f"{value_ms:.0f} ms" if value_ms < 1000 else f"{value_ms / 1000:.2f} s"


def format_age(age_s: float) -> str:
    """How long ago, in its largest unit: "0.1 s", "12 min", "3 h"."""
    for limit, divisor, unit in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if age_s < limit:
            return f"{age_s / divisor:.{1 if limit == 10 else 0}f} {unit}"
    return f"{age_s / 86_400:.0f} d"
