"""A member's log is laid out once: where it was and is no more, the host must not vote again."""

import shutil
import tomllib
from pathlib import Path

import pytest

from mesh.errors import Conflict
from mesh.identity.files import IdentityFiles
from mesh.settings import HostSettings, parse_settings
from sidecar.app.membership import open_log
from sidecar.membership.init import founding_path, initialise, raft_dir
from sidecar.membership.join import seeds_path


@pytest.fixture
def founded(tmp_path: Path) -> HostSettings:
    """A host that has founded a cluster and never started."""
    text = f"""
        [host]
        name = "host1"
        data_dir = "{tmp_path}/data"
        run_dir = "{tmp_path}/run"
        log_dir = "{tmp_path}/log"
        [mesh]
        address = "127.0.0.77:7400"
    """
    settings = parse_settings(tomllib.loads(text))
    initialise(settings)
    return settings


def opened_and_closed(settings: HostSettings) -> None:
    """Open the log as a sidecar does at its start."""
    identity = IdentityFiles(settings.identity_dir).load()
    assert identity is not None
    open_log(settings, identity).close()


def test_a_new_member_lays_its_log_out_and_finds_it_again(founded: HostSettings) -> None:
    """Goal: the ordinary way. Method: two starts."""
    opened_and_closed(founded)
    opened_and_closed(founded)


@pytest.mark.parametrize("left", ["founding", "seeds"])
def test_a_log_that_is_gone_is_not_laid_out_again(founded: HostSettings, left: str) -> None:
    """Goal: no second vote in a term. Method: the log vanishes (a disk that is not mounted, say)
    while the file that allowed the first start is still there."""
    opened_and_closed(founded)
    if left == "seeds":
        founding_path(founded).unlink()
        seeds_path(founded).write_text("{}")
    shutil.rmtree(raft_dir(founded))
    for _ in range(2):
        with pytest.raises(Conflict, match="remove the host and join it again"):
            opened_and_closed(founded)
