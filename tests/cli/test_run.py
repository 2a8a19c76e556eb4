"""A sidecar that cannot listen where its settings say so ends, and names the setting."""

import socket
from collections.abc import Iterator

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.host import Host

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host that has a cluster and does not run."""
    with Cluster(LoopbackNetwork(), hosts=1) as cluster:
        assert cluster.hosts[0].trellis("init").returncode == 0
        yield cluster.hosts[0]


@pytest.mark.parametrize(
    ("key", "port"),
    [
        ("mesh.address", 7400),
        ("mesh.join_address", 7401),
        ("xds.address", 18000),
        ("telemetry.prometheus", 9464),
    ],
)
def test_an_address_that_is_taken_is_named_with_its_key(host: Host, key: str, port: int) -> None:
    """Goal: an operator knows who is in the way and what to change, without a traceback.

    Method: somebody else listens there when it starts.
    """
    with socket.create_server((host.ip, port)):
        ran = host.trellis("run")
    assert ran.returncode == 64, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert f"{key}: {host.ip}:{port} is taken by " in last
    assert "stop it or choose another port" in last
    assert "Traceback" not in ran.stderr


def test_a_directory_that_cannot_be_had_is_named_with_its_key(host: Host) -> None:
    """Goal: as above, for directories. Method: a log directory that not even root can make."""
    text = host.settings_path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("log_dir")]
    lines.insert(lines.index("[host]") + 1, 'log_dir = "/proc/trellis"')
    host.settings_path.write_text("\n".join(lines))
    try:
        ran = host.trellis("run")
    finally:
        host.settings_path.write_text(text)
    assert ran.returncode == 64, ran.stderr
    assert "host.log_dir: /proc/trellis cannot be made" in ran.stderr
    assert "Traceback" not in ran.stderr
