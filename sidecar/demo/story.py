"""What happens in a demo, in order: set up, serve, kill the leader, go on, bring it back."""

import asyncio
import time
from typing import Final

from mesh.errors import Unavailable
from sidecar.demo.board import Board
from sidecar.demo.client import northbound_load
from sidecar.demo.deployments import Deployer
from sidecar.demo.lookout import Lookout, wait_streaming, wait_until
from sidecar.demo.phases import MS, Failover
from sidecar.demo.plan import HostPlan
from sidecar.demo.report import Deployments, Outcome
from sidecar.demo.setting_up import set_up
from sidecar.demo.stage import Stage
from sidecar.demo.takeover import kill_the_leader
from sidecar.demo.writes import Writer

ANSWER_S: Final = 10.0
RETURN_S: Final = 15.0
#: A rewind, or a copy, on a machine that does everything else, too.
STREAMS_S: Final = 30.0
DEPLOYED_S: Final = 15.0


async def play(stage: Stage, board: Board, *, seconds: float, rate: float) -> Outcome:
    """The whole story, up to the check that nothing acknowledged was lost."""
    plan = stage.plan
    lookout = Lookout(board)
    async with asyncio.TaskGroup() as watching:
        looks = [
            watching.create_task(lookout.watch_host(host), name=f"look:{host.name}") for host in plan.hosts
        ]
        await set_up(stage, board)
        writer = Writer(board, plan.hosts)
        deployer = Deployer(board)
        async with northbound_load(board, rate) as client:
            looks.append(watching.create_task(writer.write_steadily(), name="writes"))
            if plan.database is not None:
                looks.append(watching.create_task(deployer.deploy_steadily(), name="deployments"))
                await deployer.wait_next(ANSWER_S)
            await serve_quietly(board, client, seconds)
            failover, took_over = await kill_the_leader(stage, board, lookout)
            await asyncio.sleep(1)
            if plan.database is not None:
                took_over = await see_deployments(board, deployer, failover) and took_over
            old = next(host for host in plan.hosts if host.name == failover.old_leader)
            returned_ms = await bring_back(stage, board, old)
            await asyncio.sleep(1)
        for task in looks:
            task.cancel()
    board.begin("checking every acknowledged write")
    survivor = next(host for host in plan.hosts if host.name != failover.old_leader)
    lost = await writer.count_lost(survivor)
    deployments = None
    if plan.database is not None:
        wait_ms = round(deployer.longest_wait_ns(failover.killed_ns) / MS, 1)
        deployments = Deployments(len(deployer.acknowledged), await deployer.count_lost(), wait_ms)
    gap = board.ledger.largest_gap(failover.killed_ns, failover.seen_ns["answered"])
    return Outcome(
        failover, board.ledger, gap, len(writer.acknowledged), lost, took_over, returned_ms, deployments
    )


async def see_deployments(board: Board, deployer: Deployer, failover: Failover) -> bool:
    """Whether deployments are acknowledged again, by the database's next primary."""
    if not await deployer.wait_next(DEPLOYED_S):
        return False
    first_ns = next(at for at in deployer.acknowledged_ns if at > failover.killed_ns)
    ended = [at for at in deployer.acknowledged_ns if at > failover.killed_ns]
    waits = zip([failover.killed_ns, *ended], ended, strict=False)
    again_ns = max(waits, key=lambda pair: pair[1] - pair[0], default=(0, first_ns))[1]
    failover.note_step("deployed", again_ns)
    board.say(f"+{failover.step_ms('deployed'):.0f} ms  deployments are acknowledged again")
    return True


async def serve_quietly(board: Board, client: "asyncio.Task[None]", seconds: float) -> None:
    """Let calls run before anything breaks.

    Fails: `Unavailable` when no call is answered within ten seconds.
    """
    board.begin(f"northbound calls to {board.virtual_address}")
    await wait_until(lambda: bool(board.ledger.answered_ns) or client.done(), ANSWER_S)
    if not board.ledger.answered_ns:
        codes = ", ".join(f"{count} × {code}" for code, count in board.ledger.codes.items())
        raise Unavailable(f"No northbound call was answered: {codes or 'none has ended'}.")
    board.say(f"first answer; everything is quiet for {seconds:.0f} s")
    await asyncio.sleep(seconds)


async def bring_back(stage: Stage, board: Board, host: HostPlan) -> float | None:
    """Start the killed sidecar again; milliseconds until it follows and serves, `None`: not in time.

    Of a host with a database also until that streams from its successor, and counts.
    """
    board.begin(f"{host.name} comes back")
    started_ns = time.monotonic_ns()
    board.pids[host.name] = await stage.start_sidecar(host)
    board.killed.discard(host.name)
    board.mark(started_ns, "↑")

    def is_back() -> bool:
        sight = board.sights.get(host.name)
        return (
            sight is not None
            and sight.leader not in ("", host.name)
            and sight.lease_ms > 0
            and host.name in board.ready("echo")
        )

    if not await wait_until(is_back, RETURN_S):
        return None
    took_ms = round((time.monotonic_ns() - started_ns) / MS, 1)
    board.say(f"{host.name} follows {board.sights[host.name].leader} and serves again")
    if stage.plan.database is None:
        return took_ms
    if not await wait_streaming(host, STREAMS_S):
        return None
    board.say(f"the database of {host.name} streams from its successor")
    return round((time.monotonic_ns() - started_ns) / MS, 1)
