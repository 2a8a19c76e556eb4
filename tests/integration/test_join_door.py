"""The port for joining hosts, which anybody may reach: crowded, and where the settings put it."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from mesh.identity.token import TokenText
from mesh.limits import JOIN_CONNECTIONS_MAX
from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster, leads_itself
from tests.harness.host import PORT, Host
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

JOIN_PORT = 7555
IDLE = 5 * JOIN_CONNECTIONS_MAX


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One host that runs and one that wants to join, with a join port of their own choice."""
    with Cluster(LoopbackNetwork(), hosts=2) as made:
        for host in made.hosts:
            text = host.settings_path.read_text()
            own = f'[mesh]\njoin_address = "{host.ip}:{JOIN_PORT}"\n'
            host.settings_path.write_text(text.replace("[mesh]\n", own))
        first = made.hosts[0]
        assert first.trellis("init").returncode == 0
        first.start()
        wait_for(lambda: leads_itself(first), "the founding host leads itself", 40.0)
        yield made


def in_token(cluster: Cluster, host: Host) -> dict[str, str]:
    """Where a token of a host says that one can join."""
    return {str(name): address for name, address in TokenText.decode(cluster.token(host)).addresses}


def test_idle_connections_keep_nobody_from_joining_where_the_settings_say(cluster: Cluster) -> None:
    """Goal: who never says hello takes no room, and the token leads to the port that is set.

    Method: five times as many silent connections as there may be, then a join; tokens of both hosts.
    """
    first, second = cluster.hosts
    assert in_token(cluster, first) == {first.name: f"{first.ip}:{JOIN_PORT}"}
    with contextlib.ExitStack() as idle:
        for _ in range(IDLE):
            idle.enter_context(socket.create_connection((first.ip, JOIN_PORT), timeout=5))
        cluster.join(second, first)
    wait_for(lambda: (seen := second.status()) and seen.leader == first.name, "the second one follows")
    both = {host.name: f"{host.ip}:{JOIN_PORT}" for host in cluster.hosts}
    for host in cluster.hosts:
        wait_for(lambda host=host: in_token(cluster, host) == both, "tokens name both ports")  # type: ignore[misc]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((first.ip, PORT + 1), timeout=5)
    assert not [line for line in first.log() if "raw" in line], "the gate ends its connections without noise"
