"""Whom the applied state still counts as a member."""

from pathlib import Path

from mesh.ids import MemberId
from mesh.state.commands import RemoveMember
from sidecar.membership import join
from sidecar.membership.standing import is_removed
from tests.membership.founded import AppliedAtOnce, founded, settings
from tests.membership.test_join import token


async def test_removed_and_replaced_members_are_told_from_those_not_heard_of_yet(tmp_path: Path) -> None:
    """Goal: a lagging state locks no newcomer out.

    Method: joined, later incarnation, stranger, removed, empty state.
    """
    async with founded(tmp_path, "127.0.14.1") as cluster:
        state = cluster.replicated.state
        joined = await join(settings(tmp_path, "host2", "127.0.14.2"), await token(cluster), timeout_s=5)
        assert not is_removed(state, joined.member)
        assert not is_removed(state, MemberId("host2.2"))
        assert not is_removed(state, MemberId("host3.1"))
        await cluster.replicated.propose(RemoveMember(joined.member))
        assert is_removed(state, joined.member)
        assert not is_removed(AppliedAtOnce().state, joined.member)
