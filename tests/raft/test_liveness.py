"""How long things may take: elections, catching up, coming back."""

import random

from mesh.raft import Message, RaftSettings, RawNode, Role
from tests.raft.chaos import Chaos
from tests.raft.group import THREE
from tests.raft.stage import Stage

ELECTIONS = 400


def rounds_to_elect(seed: int) -> int:
    """Cold start of three with one tick of delay per message; terms that were needed."""
    dice = random.Random(seed)
    first = RawNode.bootstrap(THREE)
    settings = {"heartbeat_ticks": 1, "election_ticks_min": 15, "election_ticks_max": 25}
    nodes = {each: RawNode(RaftSettings(id=each, **settings), first, dice.randint) for each in THREE}
    travelling: list[Message] = []
    for _ in range(500):
        arrived, travelling = travelling, []
        for message in arrived:
            nodes[message.to].step(message)
        for node in nodes.values():
            node.tick()
            while node.has_ready():
                ready = node.ready()
                travelling += [*ready.messages, *ready.messages_after_durable]
                node.advance(ready)
            if node.role is Role.LEADER:
                return node.term - 1
    raise AssertionError(f"seed {seed}: nobody leads after 500 ticks")


def test_split_votes_end_soon() -> None:
    """Goal: a leader within 5 rounds. Method: many cold starts; a message takes a tick."""
    rounds = sorted(rounds_to_elect(seed) for seed in range(ELECTIONS))
    assert rounds[-1] <= 5
    assert rounds[ELECTIONS * 9 // 10] <= 2


def test_a_follower_far_behind_catches_up_with_few_snapshots() -> None:
    """Goal: no endless loop of snapshots. Method: writes and compactions go on during the transfer."""
    stage = Stage()
    stage.run("voters a b c chunk_bytes=8 trailing_entries=20 append_bytes_max=200")
    stage.run("campaign a")
    stage.run("deliver")
    stage.run("crash c")
    for number in range(40):
        stage.run(f"propose a before{number}")
    stage.run("deliver")
    stage.run("compact a")
    for number in range(60):
        stage.run(f"propose a while{number}")
    stage.run("deliver")
    stage.run("compact a")
    stage.run("restart c")
    installed = 0
    for number in range(30):
        installed += sum("installs snapshot" in line for line in stage.run("run n=1"))
        stage.run(f"propose a more{number}")
        if number % 3 == 0:
            stage.run("compact a")
    stage.run("run n=4")
    machines = stage.machines
    assert 1 <= installed <= 2
    assert machines["c"].state.digest == machines["a"].state.digest
    assert machines["c"].state.index == machines["a"].state.index


def test_a_flapping_link_does_not_unseat_the_leader() -> None:
    """Goal: one bad host costs nothing. Method: cut and heal one follower at many periods."""
    for period in (1, 3, 7, 9, 11, 15, 25):
        stage = Stage()
        stage.run("voters a b c")
        stage.run("campaign a")
        stage.run("deliver")
        for number in range(200 // period):
            stage.run("heal" if number % 2 else "isolate c")
            stage.run(f"run n={period}")
        stage.run("heal")
        stage.run("run n=25")
        assert stage.run("leaders") == ["a leads in term 2"], f"period {period}"


def test_a_storm_ends_within_a_few_timeouts() -> None:
    """Goal: recovery is bounded and needs nobody. Method: ticks until one member leads, after each storm."""
    ticks = []
    for seed in range(2000, 2040):
        chaos = Chaos(seed)
        chaos.run(300)
        chaos.calm()
        chaos.drain()
        ticks.append(chaos.wait_for_leader(ticks_max=60))
    assert sorted(ticks)[len(ticks) // 2] <= 12
