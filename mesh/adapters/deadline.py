"""How long a servicer may take."""

from typing import Any, Final

DEFAULT_S: Final = 5.0
MAX_S: Final = 60.0


def remaining_s(context: Any, default: float = DEFAULT_S) -> float:
    """How long the caller still waits, less a little for the answer's way.

    An answer that comes too late leaves the caller in doubt, where a refusal would have been certain.
    """
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return default
    return max(0.05, min(remaining * 0.95, max(remaining - 0.25, remaining * 0.8), MAX_S))
