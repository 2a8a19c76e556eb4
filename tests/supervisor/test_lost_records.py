"""An instance whose record cannot be written does not run: its replacement would run beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh import failpoints
from mesh.adapters.armed import LiveFaults
from mesh.failpoints.arming import Armed, parse
from tests.supervisor.conftest import Site, assigned, python
from tests.supervisor.test_life import is_alive


@pytest.fixture
def armed(request: pytest.FixtureRequest) -> Iterator[str]:
    """One place fails once."""
    before = failpoints.install(LiveFaults(Armed([parse(f"{request.param}=error:1")])))
    yield request.param
    failpoints.install(before)


@pytest.mark.parametrize(
    "armed", ["supervisor.before-spawn", "supervisor.spawned", "supervisor.recorded"], indirect=True
)
@pytest.mark.parametrize("fencing_term", [None, 7])
async def test_a_start_that_fails_on_the_way_leaves_nothing_running(
    site: Site, tmp_path: Path, armed: str, fencing_term: int | None
) -> None:
    """Goal: one instance is one process. Method: the first start fails at each step; count processes."""
    pids = tmp_path / "pids"
    code = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(100)"
    site.supervisor.assign([assigned("echo", python(code), fencing_term=fencing_term)])
    await site.until(lambda: bool(site.supervisor.statuses()[0].restarts) and pids.exists())
    await site.until_ready("echo")
    await site.until(lambda: str(site.status("echo").pid) in pids.read_text().split())
    present = [pid for pid in map(int, pids.read_text().split()) if is_alive(pid)]
    assert present == [site.status("echo").pid]
