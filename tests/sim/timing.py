"""The timers of a simulated cluster: the default ones, or those of an operator's settings files.

Both come from `sidecar.app.settings_map`, as in a real sidecar; what a settings file does not say (sizes,
paces) is drawn for each seed (phases.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh import limits
from mesh.driver import DriverSettings
from mesh.errors import Problem, SettingsError
from mesh.ids import MemberId
from mesh.lease.timers import LeaseTimers
from mesh.raft.model import RaftSettings
from mesh.settings import load_settings
from mesh.settings.load import parse_settings
from mesh.settings.model import HostSettings, Timers
from sidecar.app import settings_map
from tests.sim.clock import MS

HOSTS_MIN: Final = 3
HOSTS_MAX: Final = 7


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a cluster notices and acts. Invariant: free of what settings files are refused for."""

    tick_ns: int
    margin_ns: int
    leases: LeaseTimers
    #: Of no member yet.
    raft: RaftSettings
    driver: DriverSettings

    @property
    def clock_error_ppm(self) -> int:
        """How far a host's clock may be off so that two of them differ by less than is declared."""
        return self.leases.clock_rate_error_ppm * 2 // 5

    @property
    def election_ns_max(self) -> int:
        """The longest election timeout."""
        return self.raft.election_ticks_max * self.tick_ns


def timing_of(settings: HostSettings) -> Timing:
    """As the sidecar of a host with these settings has them."""
    return Timing(
        tick_ns=settings.timers.tick_ms * MS,
        margin_ns=settings_map.lease_margin_ns(settings),
        leases=settings_map.lease_timers(settings),
        raft=settings_map.raft_settings(settings, MemberId("")),
        driver=settings_map.driver_settings(settings),
    )


DEFAULT: Final = timing_of(parse_settings({"host": {"name": "host1"}, "mesh": {"address": "10.0.0.1:7400"}}))


def timing_of_files(paths: Sequence[Path]) -> Timing:
    """The timers that all of these files declare.

    Fails: `SettingsError`, also when two of them differ: leases rest on timers that all hosts have in common.
    """
    loaded = [load_settings(path) for path in paths]
    problems = [
        Problem(f"timers.{key}", f"is {mine!r} in {paths[0]} and {theirs!r} in {path}", f"{key} = {mine}")
        for path, each in zip(paths[1:], loaded[1:], strict=True)
        for key in Timers.model_fields
        if (mine := getattr(loaded[0].timers, key)) != (theirs := getattr(each.timers, key))
    ]
    if problems:
        raise SettingsError("These files cannot be of one cluster: their timers differ.", problems)
    return timing_of(loaded[0])


def voters_among(hosts: int) -> int:
    """How many of so many hosts vote; the others are learners."""
    return max(each for each in limits.VOTERS if each <= hosts)
