"""Two hosts that hold data, and a third that only votes."""

import json
from collections.abc import Iterator

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster, leads_itself
from tests.harness.host import Host
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


def listed(host: Host) -> dict[str, dict[str, object]]:
    """The hosts as one of them lists them."""
    done = host.trellis("hosts", "--json")
    assert done.returncode == 0, done
    return {row["host"]: row for row in json.loads(done.stdout)["hosts"]}


@pytest.fixture
def trio() -> Iterator[Cluster]:
    """host1 and host2 with data, host3 as a witness."""
    with Cluster(LoopbackNetwork()) as cluster:
        first, second, witness = cluster.hosts
        assert first.trellis("init").returncode == 0
        first.start()
        wait_for(lambda: leads_itself(first), "the founding host leads itself", 60)
        cluster.join(second, first)
        token = first.trellis("token", "--host", witness.name, "--witness")
        assert token.returncode == 0, token
        joined = witness.trellis("join", token.stdout.strip())
        assert joined.returncode == 0, joined
        witness.start()
        yield cluster


def test_a_witness_votes_and_two_hosts_survive_the_loss_of_one(trio: Cluster) -> None:
    """Goal: two machines with data and a small third one survive one loss. Method: the leader is killed; the
    other host leads by the witness's vote, has every acknowledged write, and takes new ones. The witness is
    started again with a log whose beginning is a snapshot, and goes on voting."""
    first, second, witness = trio.hosts
    wait_for(lambda: {row["role"] for row in listed(first).values()} == {"voter", "witness"}, "all vote", 30)
    for number in range(20):
        done = first.trellis("documents", "put", f"kept/{number}", str(number))
        assert done.returncode == 0, done
    for words in (
        ("documents", "get", "kept/1"),
        ("documents", "get", "kept/1", "--stale"),
        ("services", "list"),
    ):
        refused = witness.trellis(*words)
        assert (refused.returncode, "host3 is a witness" in refused.stderr) == (69, True), refused
    witness.terminate()
    assert witness.wait_exit() == 0
    witness.start()
    wait_for(lambda: listed(first)[witness.name]["status"] == "alive", "the witness is back", 30)
    first.kill()
    trio.wait_leader([second], within_s=15)
    for number in range(20):
        kept = second.trellis("documents", "get", f"kept/{number}")
        assert kept.stdout.strip() == str(number), kept
    done = second.trellis("documents", "put", "after", "x")
    assert done.returncode == 0, done
    assert witness.is_running()
