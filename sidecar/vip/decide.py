"""When to announce and renew the virtual IP. Times are nanoseconds of one clock."""

from dataclasses import dataclass
from typing import Final

_SECOND: Final = 1_000_000_000

#: The kernel drops the address after this; whole seconds only.
VALID_S: Final = 2
REFRESH_NS: Final = _SECOND // 2
#: Announcements after a claim or a link-up; the first ones get lost in busy switches.
ANNOUNCE_AFTER_NS: Final = (0, _SECOND // 10, _SECOND, 5 * _SECOND)
ANNOUNCE_EACH_NS: Final = 10 * _SECOND

PROBES: Final = 2
PROBE_S: Final = 0.03

assert 3 * REFRESH_NS < VALID_S * _SECOND


@dataclass(frozen=True, slots=True)
class Held:
    """The history of one claim that decides what is due.

    `announce_from` is the claim, or the newest link-up or defence after it.
    """

    announce_from: int
    refreshed_at: int
    announced_at: int | None = None


def next_announcement(held: Held) -> int:
    """When the next announcement is due, by the series that began at `announce_from`."""
    last = held.announced_at
    if last is None or last < held.announce_from:
        return held.announce_from
    for after in ANNOUNCE_AFTER_NS:
        if last < held.announce_from + after:
            return held.announce_from + after
    return last + ANNOUNCE_EACH_NS


def next_refresh(held: Held) -> int:
    """When the kernel's lifetime is renewed next."""
    return held.refreshed_at + REFRESH_NS


def next_due(held: Held) -> int:
    """The earlier of both."""
    return min(next_announcement(held), next_refresh(held))


def is_kept_by_kernel(held: Held, now: int) -> bool:
    """The kernel cannot have dropped the address yet."""
    return now < held.refreshed_at + VALID_S * _SECOND
