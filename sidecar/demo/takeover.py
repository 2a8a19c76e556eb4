"""Kills the leader and measures, from outside, when each step of the failover happened."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from trellis.cluster.v1 import cluster_pb2

from sidecar.demo.board import Board
from sidecar.demo.deployments import NAMED
from sidecar.demo.lookout import CALM_S, CLOSE_S, Lookout, wait_until, watch_address
from sidecar.demo.phases import MS, STEPS, Failover, Sight
from sidecar.demo.stage import Stage

FAILOVER_S: Final = 15.0
#: Calls must be answered this long without a gap before the failover counts as over.
STEADY_NS: Final = 500 * MS
#: Steps that may lie in the dark: the address may never have stopped accepting.
OPTIONAL: Final = ("vip_listening", "answered", "database_owned", "deployed")


async def kill_the_leader(stage: Stage, board: Board, lookout: Lookout) -> tuple[Failover, bool]:
    """SIGKILL the leader's sidecar and measure what follows; whether all of it did."""
    leader = board.leader()
    before = board.sights[leader]
    survivors = [host for host in stage.plan.hosts if host.name != leader]
    failover = Failover(0, leader, before.term, {name: term for name, (_, term) in before.owners.items()})
    lookout.pause_s = CLOSE_S
    await asyncio.sleep(CALM_S)
    async with asyncio.TaskGroup() as watching:
        tasks = [
            watching.create_task(
                watch_address(board.virtual_address, _note_address(failover)), name="address"
            ),
            watching.create_task(
                lookout.watch_events(survivors[0], _tell_event(board, failover)), name="events"
            ),
        ]
        board.begin(f"{leader} leads: kill -9 {board.pids[leader]}")
        failover.killed_ns = await stage.kill_sidecar(leader)
        lookout.on_sight = _note_sight(board, failover)
        board.killed.add(leader)
        board.mark(failover.killed_ns, "✗")
        took_over = await wait_until(lambda: _is_over(board, failover), FAILOVER_S)
        for task in tasks:
            task.cancel()
    lookout.on_sight = lambda _sight: None
    lookout.pause_s = CALM_S
    _from, to = board.ledger.largest_gap(failover.killed_ns, time.monotonic_ns())
    failover.note_step("answered", to)
    board.mark(to, "✓")
    return failover, took_over


def _is_over(board: Board, failover: Failover) -> bool:
    if not failover.is_complete(tuple(step for step in STEPS if step not in OPTIONAL)):
        return False
    now_ns = time.monotonic_ns()
    since_ns = failover.seen_ns["vip_owned"]
    if now_ns - since_ns < STEADY_NS:
        return False
    gap_from, gap_to = board.ledger.largest_gap(now_ns - STEADY_NS, now_ns)
    return gap_to - gap_from < STEADY_NS // 2


def _note_sight(board: Board, failover: Failover) -> Callable[[Sight], None]:
    def note(sight: Sight) -> None:
        if sight.host == failover.old_leader or failover.killed_ns == 0:
            return
        for step in failover.note(sight):
            who = f": {failover.new_leader}" if step == "leader_elected" else ""
            board.say(f"+{failover.step_ms(step):.0f} ms  {STEPS[step]}{who}")

    return note


def _note_address(failover: Failover) -> Callable[[bool, int], None]:
    def note(accepts: bool, at_ns: int) -> None:
        if accepts and failover.killed_ns:
            failover.note_step("vip_listening", at_ns)

    return note


def _tell_event(board: Board, failover: Failover) -> Callable[[cluster_pb2.Event], None]:
    def tell(event: cluster_pb2.Event) -> None:
        if event.subject.removeprefix("service/").startswith(f"{NAMED}-"):
            return  # of which there are many
        since_ms = (time.monotonic_ns() - failover.killed_ns) / MS if failover.killed_ns else 0.0
        board.say(f"+{since_ms:.0f} ms  journal: {event.kind} {event.subject}: {event.message}")

    return tell
