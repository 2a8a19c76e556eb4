"""A decision that waits for a moment is taken at that moment, not at the next heartbeat.

Nothing wakes the leader here but its own waiting: no beats, no news, no pace.
"""

import asyncio
import contextlib
import time

import pytest

from mesh.ids import VIP, FencingTerm, Index, Term
from mesh.lease.model import ElectedBy, Election
from mesh.lease.timers import NS_PER_MS, LeaseTimers
from mesh.state import ClusterState
from mesh.state.commands import Applied, AssignOwner, SingleCommand
from sidecar.leadership.driver import LeaderDuty
from tests.state.model_state import A, B, Cluster, member


class OneVoter:
    """The replicated state, in which each proposal takes as long as it is told to."""

    def __init__(self, cluster: Cluster, takes_s: float) -> None:
        self._cluster = cluster
        self._takes_s = takes_s
        self.term = Term(2)
        self.assigned_at = 0

    @property
    def state(self) -> ClusterState:
        return self._cluster.state

    @property
    def applied(self) -> Index:
        return self._cluster.state.applied

    def quorum_confirmed_at(self) -> int | None:
        return None

    async def propose(self, command: SingleCommand, *, timeout_s: float) -> Applied:
        del timeout_s
        applied = self._cluster.do(command)
        if isinstance(command, AssignOwner):
            self.assigned_at = time.monotonic_ns()
        await asyncio.sleep(self._takes_s)
        return applied

    async def wait_applied(self, index: Index) -> None: ...


class OwnHost:
    """A leader's host on which nothing runs."""

    leaving = False

    def instances(self) -> tuple[()]:
        return ()

    def releases(self) -> tuple[()]:
        return ()


async def nothing() -> None: ...


@pytest.mark.parametrize("takes_ms", [0, 120], ids=["at once", "longer than the wait"])
async def test_what_a_dead_predecessor_owned_is_given_away_once_it_is_cleared(takes_ms: int) -> None:
    """Goal: 50 ms after a crash proof, also when the first proposals outlast them. Method: the real loop.

    The heartbeat is an hour, so that whoever waits for the next one never comes.
    """
    timers = LeaseTimers(heartbeat_ns=3600 * 1000 * NS_PER_MS)
    cluster = Cluster()
    cluster.do(AssignOwner(VIP, B, FencingTerm(0)))
    replicated = OneVoter(cluster, takes_ms / 1000)
    began = time.monotonic_ns()
    duty = LeaderDuty(
        host=A, member=member(A).member, timers=timers, replicated=replicated, own=OwnHost(),
        own_database=lambda: None,
        election=Election(began, ElectedBy.CRASH_PROOF, B, began), serve_from=Index(0),
        extra_commands=lambda *_: (), change_membership=nothing, boottime_ns=time.monotonic_ns,
    )  # fmt: skip
    duty.crash_proven(member(B).member, began)
    running = asyncio.create_task(duty.run(), name="duty")
    try:
        async with asyncio.timeout(5):
            while not replicated.assigned_at:
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    took_ms = (replicated.assigned_at - began) / NS_PER_MS
    print(f"assigned after {took_ms:.0f} ms")
    assert took_ms >= timers.crash_release_ns / NS_PER_MS
    assert cluster.state.owners[VIP].holder == A
