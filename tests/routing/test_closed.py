"""Why the northbound side is shut, as operators are told."""

import socket
from pathlib import Path

import pytest

from sidecar.routing.closed import northbound_problems
from sidecar.routing.model import NORTHBOUND, NORTHBOUND_VIP, RoutingView
from tests.routing.harness import running, settings, until

REFUSAL = """Error adding/updating listener(s) northbound/host: cannot bind '10.0.0.1:8080': Address in use
northbound/vip: cannot bind '10.0.0.9:8080': Cannot assign requested address
"""


def test_each_listener_that_was_refused_has_a_sentence_with_its_own_reason(tmp_path: Path) -> None:
    """Goal: address, Envoy's reason and a remedy for each. Method: a refusal that names both listeners."""
    chosen = settings(tmp_path, northbound_address="10.0.0.1:8080", vip_address="10.0.0.9:8080")
    view = RoutingView(1, owns_vip=True)
    own, vip = northbound_problems(view, chosen, (), envoy_runs=True, refusal=REFUSAL)
    assert "10.0.0.1:8080" in own
    assert "Address in use" in own
    assert "northbound.address" in own
    assert "10.0.0.9:8080" in vip
    assert "Cannot assign" in vip
    assert "virtual_ip.port" in vip


@pytest.mark.parametrize("closed", [{"northbound_open": False}, {"draining": True}])
def test_what_is_closed_on_purpose_is_no_problem(tmp_path: Path, closed: dict[str, bool]) -> None:
    """Goal: a host that is fenced or stopping does not complain of its own doing."""
    view = RoutingView(1, **closed)  # type: ignore[arg-type]  # one flag by name
    assert northbound_problems(view, settings(tmp_path), (), envoy_runs=False, refusal=REFUSAL) == ()
    assert northbound_problems(None, settings(tmp_path), (), envoy_runs=False, refusal="") == ()


def test_an_envoy_that_is_missing_is_told_once_for_all_listeners(tmp_path: Path) -> None:
    """Goal: one sentence that names the cause. Method: both listeners wanted, no Envoy."""
    chosen = settings(tmp_path, vip_address="10.0.0.9:8080")
    view = RoutingView(1, owns_vip=True)
    (problem,) = northbound_problems(view, chosen, (), envoy_runs=False, refusal="")
    assert "Envoy is not running" in problem
    open_both = (NORTHBOUND, NORTHBOUND_VIP)
    assert northbound_problems(view, chosen, open_both, envoy_runs=True, refusal="") == ()
    (pending,) = northbound_problems(view, chosen, (NORTHBOUND,), envoy_runs=True, refusal="")
    assert "not confirmed" in pending


@pytest.mark.integration
async def test_a_northbound_port_that_is_taken_is_told_and_opened_once_it_is_free(tmp_path: Path) -> None:
    """Goal: reason and remedy while another program holds the port; nothing once it has let go."""
    chosen = settings(tmp_path)
    ip, _, port = chosen.northbound_address.rpartition(":")
    with socket.create_server((ip, int(port))) as taken:
        async with running(chosen) as host:
            host.publish()
            await until(lambda: "cannot bind" in "".join(host.routing.northbound_problems()))
            (problem,) = host.routing.northbound_problems()
            assert chosen.northbound_address in problem
            assert "in use" in problem
            assert not host.routing.northbound_listening
            taken.close()
            await until(lambda: host.routing.northbound_listening)
            assert host.routing.northbound_problems() == ()
