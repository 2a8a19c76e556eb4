"""Only the kernel's refusal is a proof, and only of a member that has been silent since."""

import asyncio
import contextlib
import socket

from mesh.adapters.crash_probe import ATTEMPT_PAUSES_S, CONNECT_TIMEOUT_S, CrashProbe, is_refused
from mesh.ids import MemberId

PEER = MemberId("host2.1")


def listener() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def address_of(made: socket.socket) -> str:
    return f"127.0.0.1:{made.getsockname()[1]}"


async def probe(address: str, *, heard: bool = False, closing: socket.socket | None = None) -> list[MemberId]:
    """What is proven about a peer at *address* once all attempts are over."""
    proven: list[MemberId] = []
    prober = CrashProbe(proven.append)
    async with asyncio.TaskGroup() as tasks:
        prober.start(PEER, address, tasks)
        prober.start(PEER, address, tasks)
        if closing is not None:
            await asyncio.sleep(ATTEMPT_PAUSES_S[-1])
            closing.close()
        if heard:
            prober.heard(PEER)
    return proven


async def test_a_refused_connection_proves_the_crash_once() -> None:
    """Goal: one crash starts one election. Method: a port that was just closed, probed twice at once."""
    with listener() as gone:
        address = address_of(gone)
    assert await probe(address) == [PEER]


async def test_a_listener_that_closes_a_little_later_than_the_streams_is_noticed() -> None:
    """Goal: the kernel's order of closing does not cost the proof. Method: close during the attempts."""
    made = listener()
    assert await probe(address_of(made), closing=made) == [PEER]


async def test_a_port_that_accepts_proves_nothing() -> None:
    """Goal: a living sidecar is never called dead. Method: a listener that nobody serves."""
    with listener() as alive:
        assert await probe(address_of(alive)) == []


async def test_a_member_that_is_heard_meanwhile_is_not_called_dead() -> None:
    """Goal: a quick restart is no crash to act upon. Method: hear it while the attempts run."""
    with listener() as gone:
        address = address_of(gone)
    assert await probe(address, heard=True) == []


async def test_a_proven_member_is_not_probed_again_until_it_was_heard() -> None:
    """Goal: a dead host costs no connections for ever. Method: start anew before and after hearing it."""
    with listener() as gone:
        address = address_of(gone)
    proven: list[MemberId] = []
    prober = CrashProbe(proven.append)
    for expected in (1, 1):
        async with asyncio.TaskGroup() as tasks:
            prober.start(PEER, address, tasks)
        assert len(proven) == expected
    prober.heard(PEER)
    async with asyncio.TaskGroup() as tasks:
        prober.start(PEER, address, tasks)
    assert len(proven) == 2


async def test_silence_proves_nothing() -> None:
    """A listener whose queue is full drops further connections without a word, like a dead host."""
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        started = asyncio.get_running_loop().time()
        assert not await is_refused(address_of(full))
        assert asyncio.get_running_loop().time() - started >= CONNECT_TIMEOUT_S * 0.9
