"""Reads that gave up must not keep later ones from their answer."""

from pathlib import Path

import pytest

from mesh.errors import NoLeader
from tests.driver.test_consensus import cluster_in


async def test_reads_work_again_after_all_that_waited_without_a_quorum_gave_up(tmp_path: Path) -> None:
    """A host that was cut off, with readers that time out, answers as soon as it hears a leader again."""
    async with cluster_in(tmp_path) as cluster:
        followers = await cluster.followers()
        for follower in followers:
            await cluster.stop(follower.id)
        last = next(iter(cluster.members.values()))
        for _ in range(2):
            with pytest.raises(NoLeader):
                await last.consensus.read_barrier(timeout_s=0.3)
        await cluster.start(followers[0].id)
        assert await last.consensus.read_barrier(timeout_s=10)
