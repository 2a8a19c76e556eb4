"""The whole life of a database of three hosts, with real servers and certificates."""

import time

import pytest

from sidecar.postgres.engine.initdb import make_database
from sidecar.postgres.engine.local_data import Standing
from sidecar.postgres.engine.looking import Eyes
from sidecar.postgres.engine.origin import claim
from sidecar.postgres.model import SyncNames
from tests.harness.postgres import NAMED
from tests.identity.cast import CLUSTER, OTHER_CLUSTER
from tests.postgres.engine.conftest import Cluster

pytestmark = pytest.mark.integration

#: Of another database.
OTHER = "7000000000000000001"


@pytest.mark.parametrize("cluster", ["found"] if NAMED else ["13", "found", "wheel"], indirect=True)
async def test_a_database_is_made_cloned_sealed_promoted_and_followed(cluster: Cluster) -> None:
    """Goal: every step of a failover works. Method: the life up to a second primary."""
    first, second, third = await cluster.up()
    async with await first.client() as client:
        await client.execute("CREATE TABLE t (n int)")
        await client.execute("INSERT INTO t VALUES (1)")
        seen = await first.postgres.control.receivers()
        assert [(each.name, each.host, each.sync_state) for each in seen] == [
            ("host2", "host2", "quorum"),
            ("host3", "host3", "quorum"),
        ]
    await first.postgres.postmaster.kill_tree(5.0)
    times, flushed = {}, {}
    for standby in (second, third):
        began = time.monotonic()
        view = await standby.postgres.control.seal()
        times[f"seal {standby.host}"] = time.monotonic() - began
        assert not view.has_receiver
        flushed[standby.host] = view.flushed
    # One of them was enough for a commit: the other may not have it.
    chosen, other = sorted((second, third), key=lambda standby: flushed[standby.host], reverse=True)
    control = chosen.postgres.control
    await control.set_sync(SyncNames(1, (other.host,)))
    began = time.monotonic()
    view = await control.promote(10.0)
    times["promote"] = time.monotonic() - began
    assert (view.is_standby, view.timeline) == (False, 2)
    began = time.monotonic()
    await other.postgres.control.follow(chosen.upstream)
    await other.postgres.control.wait_streaming(5.0)
    times["follow"] = time.monotonic() - began
    await control.open()
    async with await chosen.client() as client:
        await client.execute("INSERT INTO t VALUES (2)")
        rows = await (await client.execute("SELECT n FROM t ORDER BY n")).fetchall()
        assert rows == [(1,), (2,)]
    print({name: f"{1000 * took:.0f} ms" for name, took in times.items()})


async def test_a_database_that_was_made_and_never_recorded_is_copied_over(cluster: Cluster) -> None:
    """Goal: a bootstrap that came too late is no dead end. Method: the cluster has another one."""
    (first, *_) = cluster.machines
    made = await make_database(first.postgres.tools)
    eyes = Eyes(first.postgres, Standing(first.layout))
    own = (await eyes.look("", "")).local.data
    assert (own.system_identifier, own.damaged) == (made.system_identifier, "")
    other = (await eyes.look(OTHER, "")).local.data
    assert other.system_identifier == ""
    assert "made on another host" in other.damaged


@pytest.mark.parametrize("was_recorded", [False, True])
async def test_a_database_that_was_made_for_another_cluster_is_not_touched(
    cluster: Cluster, was_recorded: bool
) -> None:
    """Goal: what a host brings along is never taken for a bootstrap that came too late.

    Method: data that were made here and recorded; data that were made here before it joined another cluster.
    """
    (first, *_) = cluster.machines
    claim(first.layout, CLUSTER)
    made = await make_database(first.postgres.tools)
    if was_recorded:
        eyes = Eyes(first.postgres, Standing(first.layout))
        assert (await eyes.look(made.system_identifier, "")).local.data.damaged == ""
    else:
        claim(first.layout, OTHER_CLUSTER)
    found = (await Eyes(first.postgres, Standing(first.layout)).look(OTHER, "")).local.data
    assert (found.system_identifier, found.damaged) == (made.system_identifier, "")
