"""Why a northbound listener that should be open is not, in words for an operator.

Pure: what should be open and what Envoy has said about it go in.
"""

from collections.abc import Container, Iterator

from sidecar.routing.model import NORTHBOUND, NORTHBOUND_VIP, RoutingSettings, RoutingView


def wanted_listeners(view: RoutingView, settings: RoutingSettings) -> Iterator[tuple[str, str, str]]:
    """Name, address and settings key of each northbound listener that should be open now."""
    if not view.northbound_open or view.draining:
        return
    yield NORTHBOUND, settings.northbound_address, "northbound.address"
    if view.owns_vip and settings.vip_address:
        yield NORTHBOUND_VIP, settings.vip_address, "virtual_ip.port"


def northbound_problems(
    view: RoutingView | None,
    settings: RoutingSettings,
    listening: Container[str],
    *,
    envoy_runs: bool,
    refusal: str,
) -> tuple[str, ...]:
    """One sentence for each listener that should be open and is not; empty while all is well.

    `refusal` is what Envoy said when it last refused a listener, empty when it refused none.
    """
    if view is None:
        return ()
    shut = [each for each in wanted_listeners(view, settings) if each[0] not in listening]
    if shut and not envoy_runs:
        return (f"Envoy is not running; it is started again (see {settings.run_dir}/envoy.log)",)
    return tuple(_sentence(*each, refusal) for each in shut)


def _sentence(name: str, address: str, key: str, refusal: str) -> str:
    if name not in refusal:
        return f"Envoy has not confirmed yet that it listens on {address}"
    said = _about(name, refusal)
    return (
        f"Envoy cannot listen on {address} ({said}): end the program that holds it (ss -ltnp),"
        f" or change {key} and restart this sidecar; until then it is tried again and again"
    )


def _about(name: str, refusal: str) -> str:
    """The part of Envoy's words that is about one listener."""
    lines = [line.strip() for line in refusal.splitlines() if name in line]
    said = (lines[0] if lines else refusal).partition(name)[2]
    return said.strip(" :,;") or refusal
