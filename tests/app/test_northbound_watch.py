"""The journal learns that a host takes no northbound calls, once, and that it does again."""

import asyncio
import contextlib

from mesh.ids import HostId, MemberId
from mesh.replica import Replica
from sidecar.app.northbound_watch import NorthboundWatch
from tests.app.test_replica_lanes import OneMember
from tests.routing.harness import until

LOOK_S = 0.02
TAKEN = ("Envoy cannot listen on 10.0.0.1:8080 (in use): end the program that holds it",)


def kinds(replica: Replica) -> list[str]:
    """What the journal has, oldest first."""
    return [event.kind for event in replica.state.events.values()]


async def test_a_port_that_stays_shut_is_told_once_and_again_when_it_opens() -> None:
    """Goal: two rows for one outage, none for a passing one. Method: looks at a changing value."""
    replica = Replica(MemberId("host1.1"))
    replica.attach(OneMember(replica))
    looks: list[tuple[str, ...]] = []
    now: tuple[str, ...] = ()

    def problems() -> tuple[str, ...]:
        looks.append(now)
        return now

    async def look(times: int) -> None:
        enough = len(looks) + times
        await until(lambda: len(looks) >= enough)

    watch = NorthboundWatch(host=HostId("host1"), replica=replica, problems=problems, look_s=LOOK_S)
    running = asyncio.create_task(watch.run(), name="watch")
    try:
        await look(2)
        now = TAKEN
        await look(1)
        now = ()
        await look(4)
        assert kinds(replica) == []
        now = TAKEN
        await until(lambda: kinds(replica) == ["northbound-closed"])
        await look(3)
        now = ()
        await until(lambda: kinds(replica) == ["northbound-closed", "northbound-open"])
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    first = next(iter(replica.state.events.values()))
    assert first.subject == "host1"
    assert "10.0.0.1:8080" in first.message
