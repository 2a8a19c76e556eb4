"""A member's log is laid out once: where it is lost, so are promises, and the host stays out."""

import shutil
from pathlib import Path

import pytest

from mesh.errors import Conflict
from sidecar.app.membership import open_identity, open_log
from sidecar.membership.init import raft_dir
from sidecar.membership.join import join, seeds_path
from tests.membership.founded import founded, settings
from tests.membership.test_join import token


async def test_a_log_wiped_before_the_first_announcement_is_not_laid_out_again(tmp_path: Path) -> None:
    """Goal: nobody votes on promises it has forgotten, however early they were lost.

    Method: join, start, lose the log while what the join left (seeds) is still there; then start again.
    """
    own = settings(tmp_path, "host2", "127.0.15.2")
    async with founded(tmp_path, "127.0.15.1") as cluster:
        await join(own, await token(cluster), timeout_s=5)
    _, credentials = open_identity(own)
    open_log(own, credentials.identity).close()
    open_log(own, credentials.identity).close()
    shutil.rmtree(raft_dir(own))
    assert seeds_path(own).exists()
    with pytest.raises(Conflict, match="remove the host and join it again"):
        open_log(own, credentials.identity)
