"""The loop that keeps the virtual IP while this host may act for it."""

from collections.abc import Callable

import structlog

from sidecar.vip.port import VipDriver, VipUnavailable


async def keep_vip(vip: VipDriver, may_act: Callable[[], bool]) -> None:
    """Refresh while held and allowed, release when held and not allowed; runs until cancelled.

    Claiming is the app's, since it follows from the applied state. A refresh
    that fails is reported and tried again when due; meanwhile the kernel's
    lifetime runs out, which is the safe side.
    """
    log = structlog.get_logger("vip")
    while True:
        await vip.wait_due()
        try:
            if may_act():
                await vip.refresh()
            else:
                await vip.release()
        except VipUnavailable as error:
            log.warning("vip.refresh_failed", problem=error.message, **error.metadata)
