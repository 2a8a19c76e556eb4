"""The reporter service: it acts with its fencing term, and stops when refused."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.state.service import InstanceState, Restart, RestartWhen
from tests.supervisor.conftest import assigned, settings_in, supervised

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Resource:
    """Accepts a fencing term only if none higher has been seen."""

    address: str = ""
    highest: int = 0
    accepted: list[str] = field(default_factory=list)

    async def treat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().strip():
            term = int(line.split()[0])
            stale = term < self.highest
            self.highest = max(self.highest, term)
            if not stale:
                self.accepted.append(line)
            writer.write(f"stale {self.highest}\n".encode() if stale else b"ok\n")
            await writer.drain()
        writer.close()


@pytest.fixture
async def resource() -> AsyncIterator[Resource]:
    found = Resource()
    server = await asyncio.start_server(found.treat, "127.0.0.1", 0)
    found.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()


async def test_an_owner_acts_until_a_higher_term_has_been_seen(tmp_path: Path, resource: Resource) -> None:
    """Goal: a deposed owner ends itself and says why. Method: a resource that sees term 6."""
    reporter = assigned(
        "reporter",
        (sys.executable, "-m", "services.reporter.main"),
        fencing_term=5,
        restart=Restart(when=RestartWhen.NEVER),
        environment=(
            ("PYTHONPATH", str(ROOT)),
            ("REPORTER_RESOURCE", resource.address),
            ("REPORTER_PERIOD_S", "0.02"),
        ),
    )
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([reporter])
        await site.until(lambda: len(resource.accepted) >= 3)
        assert resource.accepted[:2] == ["5 reporter@host1#0 1", "5 reporter@host1#0 2"]
        resource.highest = 6
        await site.until_state("reporter", InstanceState.EXITED)
        assert site.status("reporter").reason == "exited with code 3"
        told = site.supervisor.tail(reporter.instance, 2)
        assert told == (
            "I am the owner, fencing term 5",
            "refused: stale 6; another owner acts",
        )
        assert resource.highest == 6


async def test_a_resource_that_is_away_does_not_end_the_owner(tmp_path: Path) -> None:
    """Goal: an outage elsewhere is no reason to give up. Method: a port where nobody listens."""
    reporter = assigned(
        "reporter",
        (sys.executable, "-m", "services.reporter.main"),
        fencing_term=1,
        environment=(
            ("PYTHONPATH", str(ROOT)),
            ("REPORTER_RESOURCE", "127.0.0.1:1"),
            ("REPORTER_PERIOD_S", "0.02"),
        ),
    )
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign([reporter])
        await site.until(lambda: len(site.supervisor.tail(reporter.instance, 9)) >= 4)
        assert "cannot be reached" in " ".join(site.supervisor.tail(reporter.instance, 9))
        assert site.status("reporter").state is InstanceState.RUNNING
        await site.supervisor.stop_all()
