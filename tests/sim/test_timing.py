"""A simulated cluster has the timers that its operator declares."""

from pathlib import Path

import pytest

from mesh.errors import SettingsError
from tests.sim.clock import MS
from tests.sim.phases import draw_plan
from tests.sim.timing import DEFAULT, timing_of_files, voters_among
from tests.sim.world import World


def file(folder: Path, name: str, timers: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'[host]\nname = "{name}"\n[mesh]\naddress = "10.0.0.1:7400"\n[timers]\n{timers}')
    return path


def test_without_settings_the_timers_are_the_default_ones(tmp_path: Path) -> None:
    """Goal: the swarm proves what is shipped. Method: a file that says nothing, beside the default."""
    assert timing_of_files([file(tmp_path, "host1")]) == DEFAULT


def test_a_world_runs_on_the_timers_of_the_files(tmp_path: Path) -> None:
    """Goal: figures are of the operator's timers. Method: other ones, in the plan and the facts."""
    timers = (
        "tick_ms = 20\nheartbeat_ms = 100\nlease_ms = 400\nelection_ms_min = 700\nelection_ms_max = 1_000\n"
    )
    timing = timing_of_files([file(tmp_path, f"host{n}", timers) for n in (1, 2, 3)])
    world = World(1, draw_plan(1, timing, hosts=3), ())
    assert world.facts.tick_ns == 20 * MS
    assert world.facts.timers.lease_ns == 400 * MS
    assert world.facts.election_ns == (720 * MS, 1_020 * MS)
    assert world.plan.driver.tick_s == 0.02


def test_files_with_other_timers_are_not_of_one_cluster(tmp_path: Path) -> None:
    """Goal: leases rest on common timers. Method: two files that differ in one key."""
    paths = [file(tmp_path, "host1"), file(tmp_path, "host2", "lease_ms = 1_100\n")]
    with pytest.raises(SettingsError) as refused:
        timing_of_files(paths)
    assert [problem.path for problem in refused.value.problems] == ["timers.lease_ms"]


@pytest.mark.parametrize("hosts", range(3, 8))
def test_a_cluster_has_as_many_hosts_as_asked_for(hosts: int) -> None:
    """Goal: the operator's size is simulated. Method: hosts of every plan; an odd number of them vote."""
    for seed in range(40):
        plan = draw_plan(seed, hosts=hosts)
        assert plan.voters + plan.learners + plan.has_witness == hosts
        assert plan.has_witness or plan.voters == voters_among(hosts)
