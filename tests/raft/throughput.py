"""How many proposals per second three cores in one process agree on: `python -m tests.raft.throughput`.

No disk, no network: this is what the core itself costs, for all three members together.
"""

import json
import time

from mesh.ids import MemberId
from mesh.raft import RaftSettings, RawNode
from tests.raft.machines import patience

BATCH = 64
BATCHES = 1000


def deliver(nodes: dict[MemberId, RawNode]) -> None:
    """Run to rest."""
    is_busy = True
    while is_busy:
        is_busy = False
        for node in nodes.values():
            while node.has_ready():
                is_busy = True
                ready = node.ready()
                for message in (*ready.messages, *ready.messages_after_durable):
                    nodes[message.to].step(message)
                node.advance(ready)


def measure(batches: int) -> float:
    """Proposals per second."""
    founders = [MemberId(each) for each in "abc"]
    first = RawNode.bootstrap(founders)
    nodes = {each: RawNode(RaftSettings(id=each), first, patience(each)) for each in founders}
    leader = nodes[founders[0]]
    leader.campaign()
    deliver(nodes)
    started = time.perf_counter()
    for _ in range(batches):
        for _ in range(BATCH):
            leader.propose(b"x" * 100)
        deliver(nodes)
    seconds = time.perf_counter() - started
    assert all(node.applied >= batches * BATCH for node in nodes.values())
    return batches * BATCH / seconds


if __name__ == "__main__":
    rates = sorted(measure(BATCHES) for _ in range(5))
    print(json.dumps({"proposals_per_s": {"median": rates[2], "min": rates[0], "max": rates[-1]}}))
