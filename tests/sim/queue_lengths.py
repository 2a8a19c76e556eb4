"""How full everything is that has a bound, in one life: for `Queues`, sampled.

Looks inside the real parts, since their lengths are of no use to anybody else.
"""

from typing import TYPE_CHECKING

from mesh import limits
from mesh.lease.holder import BEATS_REMEMBERED_MAX
from mesh.replica import LANES_MAX
from tests.sim.clock import NS
from tests.sim.trace import Queues

if TYPE_CHECKING:
    from tests.sim.host import Life

#: Between two samples of one life.
PERIOD_NS = 2 * NS
#: A write of entries, one of a snapshot, and one that closing adds.
WRITES_MAX = 3


def sample(life: "Life") -> Queues:
    """Everything now: (name, items, bound)."""
    world, driver, state = life.world, life.driver, life.replica.state
    raft = world.raft_settings(life.member)
    reads, far_reads = driver._reads, life.consensus._reads  # their own waiting lists
    sizes = [
        ("proposals", len(driver._proposals), limits.PROPOSALS_PENDING_MAX),
        ("reads", len(reads._next), limits.READS_PENDING_MAX),
        ("far-reads", len(far_reads._next), limits.READS_PENDING_MAX),
        ("lanes", LANES_MAX - life.replica._lanes.qsize(), LANES_MAX),
        ("writes", max((len(each._jobs) for each in life.writers), default=0), WRITES_MAX),
        ("beats", len(life.core.lease._sent), BEATS_REMEMBERED_MAX),
        ("sessions", len(state.sessions), limits.SESSIONS_MAX),
        ("events", len(state.events), limits.EVENTS_MAX),
        ("documents", len(state.documents) - len(state.tombstones), limits.DOCUMENTS_MAX),
        ("tombstones", len(state.tombstones), limits.TOMBSTONES_MAX),
    ]
    leading = driver._node._core.leadership
    if leading is not None:
        inflights = max((len(each.inflights) for each in leading.peers.values()), default=0)
        largest = limits.COMMAND_BYTES_MAX
        sizes += [
            ("inflights", inflights, raft.inflight_max),
            ("confirmations", len(leading._reads), raft.reads_max),
            ("rounds", len(leading._rounds._sent), raft.election_ticks_max + raft.heartbeat_ticks),
            ("uncommitted-bytes", leading._uncommitted_bytes, raft.uncommitted_bytes_max + largest),
        ]
    return Queues(world.now, life.host, life.member, tuple(sizes))


def follow(life: "Life") -> None:
    """Write down a sample now and then, as long as the life lasts."""
    life.world.emit(sample(life))
    life.loop.call_later(PERIOD_NS / NS, follow, life)
