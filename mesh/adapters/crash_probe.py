"""Crash proof: a member whose streams broke and whose port then refuses is certainly dead.

The kernel answers for a process that is gone. Only a refusal counts; an
accepted connection, a timeout or any other error prove nothing.
See ARCHITECTURE.md for what a crash proof may and may not shorten.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.adapters.clock import boottime_ns
from mesh.ids import MemberId
from mesh.ports import CrashCallback

CONNECT_TIMEOUT_S = 0.2
#: The kernel closes a dead process's sockets one after the other: streams may break before
#: the listener is gone.
ATTEMPT_PAUSES_S = (0.0, 0.002, 0.004, *(0.01,) * 10)


class CrashProbe:
    """Finds out whether members whose streams broke are dead.

    Invariant: `on_crash` is not called for a member that was heard after its
    stream broke.
    Cancellation: probes run in the task group of `start`'s caller and end with it.
    """

    def __init__(
        self, on_crash: CrashCallback, refuses: Callable[[str], Awaitable[bool]] | None = None
    ) -> None:
        """*refuses*: as `is_refused`, which it is when left out."""
        self._on_crash = on_crash
        self._refuses = refuses or is_refused
        self._probes: dict[MemberId, asyncio.Task[None]] = {}
        #: Proven dead and not heard since: there is nothing more to find out.
        self._proven: set[MemberId] = set()

    def start(self, member: MemberId, address: str, tasks: asyncio.TaskGroup) -> None:
        """Begin to ask *address*, unless that is under way."""
        if member not in self._probes and member not in self._proven:
            probe = tasks.create_task(self._probe(member, address), name=f"crash-probe:{member}")
            self._probes[member] = probe
            probe.add_done_callback(lambda _: self._probes.pop(member, None))

    def heard(self, member: MemberId) -> None:
        """*member* lives: stop asking."""
        self._proven.discard(member)
        if self._probes and (probe := self._probes.get(member)):
            probe.cancel()

    async def _probe(self, member: MemberId, address: str) -> None:
        for pause_s in ATTEMPT_PAUSES_S:
            await asyncio.sleep(pause_s)
            if await self._refuses(address):
                self._proven.add(member)
                self._on_crash(member)
                return


async def is_refused(address: str) -> bool:
    """True only when the kernel at *address* ("host:port") says that nobody listens there."""
    host, _, port = address.rpartition(":")
    began = boottime_ns()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        # This process may have stood still since: by now a new sidecar may run there.
        return boottime_ns() - began < CONNECT_TIMEOUT_S * 1e9
    except OSError:  # TimeoutError is one
        return False
    writer.transport.abort()
    return False
