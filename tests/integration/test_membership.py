"""Hosts that are removed, rejoin, come back with an empty disk, and tokens that are used twice."""

import json
import shutil
import time

import pytest

from tests.harness.calls import Calls
from tests.harness.cluster import Cluster
from tests.harness.host import Host
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


def member_of(cluster: Cluster, host: Host) -> str:
    """The member, with its incarnation, as the leader has it; empty when there is none."""
    status = cluster.hosts[0].status()
    assert status is not None
    return next((row.member for row in status.hosts if row.host == host.name), "")


def host_status(seen_by: Host, host: Host) -> str:
    """What is thought of a host."""
    listed = seen_by.trellis("hosts", "--json")
    assert listed.returncode == 0, listed
    return next((row["status"] for row in json.loads(listed.stdout)["hosts"] if row["host"] == host.name), "")


@pytest.fixture
def last(cluster: Cluster) -> Host:
    """The third host, which does not lead."""
    leader = cluster.wait_whole()
    if leader is cluster.hosts[2]:
        assert leader.trellis("leader", "transfer", "host1").returncode == 0
        cluster.wait_whole()
    return cluster.hosts[2]


def test_a_follower_shows_how_far_each_host_is_and_when_it_beat(cluster: Cluster, last: Host) -> None:
    """Goal: what only the leader knows is shown everywhere. Method: a follower, then its own view."""
    leader = cluster.wait_whole()

    def listed(*words: str) -> dict[str, dict[str, object]]:
        done = last.trellis("hosts", "--json", *words)
        assert done.returncode == 0, done
        return {row["host"]: row for row in json.loads(done.stdout)["hosts"]}

    rows = listed()
    assert all(row["applied_index"] for row in rows.values()), rows
    assert all(rows[host.name]["last_beat_ms"] is not None for host in cluster.others(leader)), rows
    assert {row["last_beat_ms"] for row in listed("--stale").values()} == {None}


def test_a_removed_host_ends_and_rejoins_as_a_new_incarnation(cluster: Cluster, last: Host) -> None:
    """Goal: removal is final for what was there, and the machine is welcome again as a new one."""
    before = member_of(cluster, last)
    with Load(cluster.hosts[:2]) as load, Calls(cluster) as calls, Sight(cluster):
        removed = cluster.hosts[0].trellis("host", "remove", last.name, "--yes", "--force")
        assert removed.returncode == 0, removed
        wait_for(lambda: member_of(cluster, last) == "", "it is no member any more")
        load.wait_progress()
        cut_off = last.trellis("documents", "put", "removed", "x", "--timeout", "2")
        assert cut_off.returncode in (1, 69, 75, 77), cut_off
        if last.is_running():
            last.terminate()
        last.wait_exit()
        last.close()
        again = last.trellis("join", cluster.token(cluster.hosts[0], last.name), "--json")
        assert "Traceback" not in again.stderr, again
        assert member_of(cluster, last) == "", "its old identity is no way back"
        shutil.rmtree(last.data_dir)
        cluster.join(last, cluster.hosts[0])
        cluster.wait_whole()
    after = member_of(cluster, last)
    assert after != before, "it came back as the incarnation that was removed"
    assert calls.failed(idempotent=True) == []
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_a_host_with_a_new_disk_joins_as_a_new_incarnation(cluster: Cluster, last: Host) -> None:
    """Goal: a host that has forgotten its votes never votes as the one that gave them."""
    before = member_of(cluster, last)
    token = cluster.token(cluster.hosts[0], last.name)
    in_use = last.trellis("join", token, "--json")
    assert '"unchanged": true' in in_use.stdout, "joining again changes nothing"
    with Load(cluster.hosts[:2]) as load, Sight(cluster):
        last.power_off()
        shutil.rmtree(last.data_dir)
        started = last.trellis("run")
        assert started.returncode == 1, started
        assert "belongs to no cluster" in started.stderr + started.stdout
        wait_for(lambda: host_status(cluster.hosts[0], last) == "lost", "it is known to be lost")
        cluster.join(last, cluster.hosts[0])
        cluster.wait_whole()
    assert member_of(cluster, last) != before
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_a_name_that_is_in_use_cannot_be_joined_by_another_machine(cluster: Cluster, last: Host) -> None:
    """Goal: two machines never have one name. Method: a second machine with the settings of the third."""
    double = cluster.add_host(9, "double")
    text = double.settings_path.read_text().replace('name = "double"', f'name = "{last.name}"')
    double.settings_path.write_text(text)
    refused = double.trellis("join", cluster.token(cluster.hosts[0]), "--json")
    assert refused.returncode == 1, refused
    assert "two machines must not have one name" in refused.stderr
    assert not (double.data_dir / "identity" / "cluster.json").exists()
    cluster.wait_whole()


def test_a_token_is_good_for_one_host(cluster: Cluster, last: Host) -> None:
    """Goal: a copied token admits nobody. Method: two new machines with one token."""
    token = cluster.token(cluster.hosts[0])
    first, second = cluster.add_host(7, "first"), cluster.add_host(8, "second")
    try:
        assert first.trellis("join", token).returncode == 0
        again = second.trellis("join", token, "--json", "--timeout", "5")
        assert again.returncode == 77, again
    finally:
        removed = cluster.hosts[0].trellis("host", "remove", "first", "--yes", "--force")
        assert removed.returncode == 0, removed
    cluster.wait_whole()


def test_a_drained_host_gives_away_what_it_owns_and_takes_it_back(cluster: Cluster) -> None:
    """Goal: `trellis host drain` moves work in order, before a host is taken down."""
    leader = cluster.wait_whole()
    acting = cluster.resource.last()
    assert acting is not None
    owner = cluster.host(acting.host)
    began = time.monotonic_ns()
    with Calls(cluster) as calls:
        assert leader.trellis("host", "drain", owner.name).returncode == 0
        moved = wait_for(
            lambda: next(
                (a for a in cluster.resource.acts() if a.at_ns > began and a.host != owner.name), None
            ),
            "another host acts",
        )
        assert leader.trellis("host", "undrain", owner.name).returncode == 0
        cluster.wait_whole()
        wait_for(lambda: calls.answered(moved.at_ns), "calls go on")
    assert calls.failed(idempotent=True) == []
    cluster.resource.check_one_owner()
