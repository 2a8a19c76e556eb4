"""Commands of one sidecar count once, also when the cluster has forgotten its sessions."""

import asyncio

import pytest

from mesh.errors import QueueFull
from mesh.ids import DocumentName, Index, MemberId, SessionId, Term
from mesh.limits import SESSIONS_MAX
from mesh.replica import LANES_MAX, Replica
from mesh.state.commands import Applied, PutDocument, Request
from mesh.wire.command import encode_request

DOCUMENT = DocumentName("network/dns")


class OneMember:
    """A log of one member: what is proposed is applied at once, unless it is held up."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.applied = Index(0)
        self.is_open = asyncio.Event()
        self.is_open.set()

    def append(self, data: bytes) -> tuple[Index, object]:
        self.applied = Index(self.applied + 1)
        return self.applied, self._replica.machine.apply(self.applied, data)

    async def propose_anywhere(
        self, data: bytes, *, timeout_s: float, repeatable: bool
    ) -> tuple[Index, object]:
        del timeout_s, repeatable
        await self.is_open.wait()
        return self.append(data)

    async def propose_in_term(self, data: bytes, *, term: Term, timeout_s: float) -> tuple[Index, object]:
        del term, timeout_s
        return self.append(data)

    async def read_barrier(self, *, timeout_s: float) -> Index:
        del timeout_s
        return self.applied


def replica_of_one() -> tuple[Replica, OneMember]:
    replica = Replica(MemberId("host1.1"))
    member = OneMember(replica)
    replica.attach(member)
    return replica, member


async def test_sessions_that_were_forgotten_are_replaced_before_they_are_used() -> None:
    """Goal: no command fails because others used the cluster.

    Method: push all lanes out of the session table, then use each.
    """
    replica, member = replica_of_one()
    for _ in range(LANES_MAX * 70):
        await replica.propose(PutDocument(DOCUMENT, b"1"))
    for number in range(SESSIONS_MAX):
        member.append(encode_request(Request(PutDocument(DOCUMENT, b"2"), SessionId(f"other-{number}"), 1)))
    for _ in range(LANES_MAX):
        assert isinstance(await replica.propose(PutDocument(DOCUMENT, b"3")), Applied)


async def test_a_command_waits_for_a_free_session_no_longer_than_for_its_answer() -> None:
    """Goal: a stuck log does not pile up callers. Method: hold every lane, then ask with a short timeout."""
    replica, member = replica_of_one()
    member.is_open.clear()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(LANES_MAX):
            tasks.create_task(replica.propose(PutDocument(DOCUMENT, b"1")))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await replica.propose(PutDocument(DOCUMENT, b"2"), timeout_s=0.01)
        member.is_open.set()
