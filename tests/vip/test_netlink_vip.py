"""The virtual IP between real network namespaces: two hosts and a client on one bridge."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
V4 = "10.77.0.100"
V6 = "fd77::100"

#: Asks the address each ms for a second or two and prints who answered when.
CLIENT = """
import json, select, socket, sys, time
address, seconds = sys.argv[1], float(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
end, last = time.monotonic() + seconds, ""
while time.monotonic() < end:
    try:
        s.sendto(b"who", (address, 9000))
    except OSError:
        pass
    select.select([s], [], [], 0.001)
    try:
        answer = s.recv(64).decode()
    except OSError:
        continue
    if answer != last:
        last = answer
        print(json.dumps({"who": answer, "at": time.monotonic_ns()}), flush=True)
"""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@dataclass
class Host:
    """A namespace on the bridge, perhaps with a program of its own."""

    namespace: str
    interface: str
    program: "subprocess.Popen[str] | None" = None

    def start(self, *command: str) -> None:
        self.program = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )

    def read(self, within_s: float = 10.0) -> dict[str, Any]:
        assert self.program is not None
        assert self.program.stdout is not None
        assert select.select([self.program.stdout], [], [], within_s)[0], "no answer in time"
        return dict(json.loads(self.program.stdout.readline()))

    def tell(self, line: str) -> dict[str, Any]:
        assert self.program is not None
        assert self.program.stdin is not None
        self.program.stdin.write(line + "\n")
        return self.read()

    def has(self, address: str) -> bool:
        return f" {address}/" in ip("-n", self.namespace, "address", "show", "dev", self.interface)

    def stop(self) -> None:
        if self.program is not None:
            self.program.kill()
            self.program.communicate()


@dataclass
class Network:
    """host1 and host2 can claim; client asks."""

    host1: Host
    host2: Host
    client: Host
    bridge: str

    def start(self, address: str) -> None:
        for host in (self.host1, self.host2):
            host.start("-m", "tests.vip.host_program", host.interface, address)
        for host in (self.host1, self.host2):
            assert "ready" in host.read()


@pytest.fixture
def network() -> Iterator[Network]:
    tag = f"tr{os.getpid() % 100000}"
    names = [f"{tag}-{which}" for which in ("b", "h1", "h2", "c")]
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                ip("netns", "add", name)
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', error)}")
            stack.callback(ip, "netns", "delete", name)
        bridge = names[0]
        ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        hosts = []
        for number, name in enumerate(names[1:], 1):
            interface = f"net{number}"
            ip("-n", bridge, "link", "add", f"port{number}", "type", "veth", "peer", interface, "netns", name)
            ip("-n", bridge, "link", "set", f"port{number}", "master", "br0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", interface)
            ip("-n", name, "address", "add", f"fd77::{number}/64", "dev", interface, "nodad")
            hosts.append(Host(name, interface))
            stack.callback(hosts[-1].stop)
        yield Network(hosts[0], hosts[1], hosts[2], bridge)


def wait_until(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "condition not met in time"
        select.select([], [], [], 0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("address", [V4, V6])
def test_a_client_with_a_warm_cache_moves_within_milliseconds(network: Network, address: str) -> None:
    """The former owner's release is not waited for: it is gone when the new one claims."""
    network.start(address)
    assert network.host1.tell("claim noprobe")["held"]
    network.client.start("-c", CLIENT, address, "8")
    assert network.client.read()["who"] == "net1"
    network.host1.tell("release")
    claimed = network.host2.tell("claim noprobe")
    moved = network.client.read()
    assert moved["who"] == "net2"
    took_ms = (moved["at"] - claimed["began"]) / 1e6
    print(f"{address}: claim took {claimed['ms']:.1f} ms, the client moved after {took_ms:.1f} ms")
    assert took_ms < 500


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_kernel_drops_the_address_of_a_dead_or_frozen_owner(
    network: Network, address: str, number: signal.Signals
) -> None:
    """Goal: it goes even when no process can remove it.

    Method: SIGKILL and SIGSTOP, then watch the interface.
    """
    network.start(address)
    network.host1.tell("claim noprobe")
    assert network.host1.has(address)
    assert network.host1.program is not None
    # `ip netns exec` replaces itself by the program, so this is the owner.
    network.host1.program.send_signal(number)
    took_s = wait_until(lambda: not network.host1.has(address))
    print(f"{address} after {number.name}: dropped {took_s:.2f} s later")
    assert took_s < 3.5


def test_a_refreshed_address_outlives_its_lifetime(network: Network) -> None:
    """Goal: a living owner never loses it.

    Method: hold it for longer than the kernel's lifetime, then release.
    """
    network.start(V4)
    network.host1.tell("claim noprobe")
    until = time.monotonic() + 3.5
    wait_until(lambda: time.monotonic() > until or not network.host1.has(V4))
    assert network.host1.has(V4)
    network.host1.tell("release")
    assert not network.host1.has(V4)


@pytest.mark.parametrize("address", [V4, V6])
def test_an_address_that_a_stranger_has_is_refused(network: Network, address: str) -> None:
    """Goal: no duplicate on the network, and the holder is named. Method: the client has it already."""
    network.start(address)
    prefix = "/24" if address == V4 else "/64"
    flag = [] if address == V4 else ["nodad"]
    ip("-n", network.client.namespace, "address", "add", address + prefix, "dev", "net3", *flag)
    links = json.loads(ip("-j", "-n", network.client.namespace, "link", "show", "dev", "net3"))
    answer = network.host1.tell("claim probe")
    assert (answer["refused"], answer["holder"]) == ("VIP_DUPLICATE", links[0]["address"])
    assert not network.host1.has(address)


@pytest.mark.parametrize("address", [V4, V6])
def test_a_free_address_is_held_after_a_bounded_probe(network: Network, address: str) -> None:
    """Goal: asking first costs little, and really asks. Method: claim with a probe, timed."""
    network.start(address)
    claimed = network.host1.tell("claim probe")
    print(f"{address}: claim with probe took {claimed['ms']:.1f} ms")
    assert claimed["held"]
    assert claimed["ms"] > 50


def test_an_address_is_neither_added_nor_announced_after_the_lease(network: Network) -> None:
    """Goal: the address does not come up on a host that must let go, and neighbours are not led there.

    Method: a claim that is forbidden by then, while a client watches.
    """
    network.start(V4)
    assert network.host1.tell("claim noprobe")["held"]
    network.client.start("-c", CLIENT, V4, "1")
    assert network.client.read()["who"] == "net1"
    network.host2.tell("forbid")
    assert (
        network.host2.tell("claim noprobe")["why"]
        == f"{V4} was not taken: the lease ended before it was added."
    )
    assert not network.host2.has(V4)
    assert network.client.program is not None
    said, _ = network.client.program.communicate(timeout=10)
    assert said == "", "the client went elsewhere"


def test_a_conflict_while_held_is_reported_and_defended(network: Network) -> None:
    """Goal: two holders do not stay unnoticed.

    Method: both claim without asking; the second hears only the first's defence.
    """
    network.start(V4)
    network.host1.tell("claim noprobe")
    network.host2.tell("claim noprobe")
    assert network.host1.read()["conflict"]
    assert network.host2.read()["conflict"]


@pytest.mark.parametrize("address", [V4, V6])
def test_it_announces_again_when_the_link_comes_up(network: Network, address: str) -> None:
    """Seen from the client: its cache entry changes back without a question of its own."""
    network.start(address)
    network.host1.tell("claim noprobe")
    network.client.start("-c", CLIENT, address, "0.3")
    assert network.client.read()["who"] == "net1"
    wrong = "02:00:00:00:00:99"
    neighbour = ("neighbour", "replace", address, "lladdr", wrong, "dev", "net3", "nud", "stale")
    # Past the announcements of the claim itself, so that only the link-up is left.
    until = time.monotonic() + 5.2
    wait_until(lambda: time.monotonic() > until, 6)
    ip("-n", network.bridge, "link", "set", "port1", "down")
    ip("-n", network.client.namespace, *neighbour)
    ip("-n", network.bridge, "link", "set", "port1", "up")
    took_s = wait_until(lambda: wrong not in ip("-n", network.client.namespace, "neighbour", "show", address))
    print(f"{address}: announced {took_s * 1000:.0f} ms after the link came up")
