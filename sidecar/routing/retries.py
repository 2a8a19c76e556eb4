"""Which calls are tried again, and after how long.

Invariant: a method that is not idempotent reaches a service at most once. What
is tried again for such a method never left this host or was refused unprocessed
(RFC 9113 §8.7). See docs/decisions/0003-what-is-retried.md.
"""

from typing import Final

from mesh.state.service import MethodPolicy
from sidecar.routing.model import Retry

#: Certain not to have been processed by any instance.
NEVER_SENT: Final = ("connect-failure", "refused-stream", "reset-before-request")
#: Everything that another instance may answer better.
IDEMPOTENT: Final = (*NEVER_SENT, "reset", "unavailable")
ATTEMPTS_MAX: Final = 3
#: A second attempt starts beside the first after this share of the method's deadline,
HEDGE_SHARE: Final = 50
#: but not sooner than this,
HEDGE_MS_MIN: Final = 100
#: and not later, so that a frozen instance never costs more than this.
HEDGE_MS_MAX: Final = 2_000
#: Deadline of a unary method whose `.proto` states none.
TIMEOUT_MS_DEFAULT: Final = 30_000


def retry_of(policy: MethodPolicy | None) -> Retry:
    """How calls under this policy are retried; None: a method nothing is known of."""
    if policy is None or not policy.idempotent:
        return Retry(NEVER_SENT, ATTEMPTS_MAX)
    return Retry(IDEMPOTENT, ATTEMPTS_MAX, hedge_ms=hedge_ms(policy.timeout_ms))


def hedge_ms(timeout_ms: int) -> int:
    """How long the first attempt runs alone.

    A method's deadline is its author's word on how slow it may be, so a slow
    method is doubled later than a quick one; nothing is ever cut off.
    """
    share = (timeout_ms or TIMEOUT_MS_DEFAULT) // HEDGE_SHARE
    return min(max(share, HEDGE_MS_MIN), HEDGE_MS_MAX)
