"""A PostgreSQL for the tests of a session, and instances of the lifecycle manager on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.database import postgres, session_postgres, url
from tests.harness.lcm import Lcm
from tests.harness.processes import Processes

__all__ = ["postgres", "session_postgres", "url"]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Programs that end with the test."""
    made = Processes()
    yield made
    made.close()


StartLcm = Callable[..., Lcm]


@pytest.fixture
def start_lcm(url: str, processes: Processes, tmp_path: Path) -> Iterator[StartLcm]:
    """Starts an instance on the test's database; it is ready when this returns."""
    started: list[Lcm] = []

    def start(**settings: str) -> Lcm:
        lcm = Lcm(processes, url, tmp_path / f"lcm-{len(started)}.log", settings)
        started.append(lcm)
        lcm.wait_ready()
        return lcm

    yield start
    for lcm in started:
        lcm.channel.close()


@pytest.fixture
def lcm(start_lcm: StartLcm) -> Lcm:
    """One instance that is ready."""
    return start_lcm()
