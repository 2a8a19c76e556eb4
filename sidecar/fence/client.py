"""The sidecar's end of the fence process: start it, tell it, notice its loss.

Everything that must not survive the lease is registered *before* it exists (an
address) or at once after (a process), and `set_deadline` is called at every
granted beat. The fence process is started again when it ends, with everything
registered anew; when that fails, `on_lost` says so and the sidecar must give up
its ownerships itself.

Order: no `register_*` while no deadline lies ahead: what is registered then is
cleared at once, since it comes from an owner that has slept.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh import failpoints
from mesh.errors import InvariantBroken, Refused, Unavailable

PROGRAM: Final = Path(__file__).with_name("fence_process.py")
START_S_MAX: Final = 5.0
ANSWER_S_MAX: Final = 2.0
#: What is not cleared by then is killed, and held by the kernel.
CLEAR_S_MAX: Final = 10.0
PING_EACH_S: Final = 1.0
STARTS_IN_A_ROW_MAX: Final = 3
PACKET_BYTES_MAX: Final = 4096


class FenceRefused(Refused):
    """The fence process cannot hold what was registered; it must not be used."""

    reason = "FENCE_REFUSED"


class FenceUnavailable(Unavailable):
    """No fence process answers; nothing exclusive may be started."""

    reason = "FENCE_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class FenceReport:
    """What the fence process did while this sidecar was late."""

    cleared: tuple[str, ...]
    #: Still there; the fence process tries again as long as no deadline comes.
    left: tuple[str, ...]
    took_ms: float


def start_time_of(pid: int) -> int:
    """When a process started, in clock ticks since boot; together with its id it is unique.

    Fails: FileNotFoundError when there is no such process.
    """
    text = Path(f"/proc/{pid}/stat").read_bytes()
    return int(text[text.rindex(b")") + 2 :].split()[19])


class _Channel:
    """One run of the fence process."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        self.process = process
        self.end = end
        self.pidfd = os.pidfd_open(process.pid)

    def close(self) -> None:
        self.end.close()
        os.close(self.pidfd)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class FenceClient:
    """Keeps one fence process running for this sidecar.

    `on_fenced(report)`: the deadline passed and everything registered is gone;
    the sidecar must drop what it believes to own. `on_lost(reason)`: there is no
    fence process and none can be started. Both are called from the event loop
    and must not block.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[str], None],
        on_fenced: Callable[[FenceReport], None],
        program: Path = PROGRAM,
    ) -> None:
        self._on_lost = on_lost
        self._on_fenced = on_fenced
        self._program = program
        self._channel: _Channel | None = None
        self._watch: asyncio.Task[None] | None = None
        self._things: dict[str, str] = {}
        self._deadline = 0
        self._pings = 0
        self._closing = False
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._refusals: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """The process id of the fence process; None while there is none."""
        return None if self._channel is None else self._channel.process.pid

    async def start(self) -> None:
        """Start the fence process and wait until it serves.

        Fails: FenceUnavailable when it does not.
        """
        await self._open()
        await failpoints.passing("fence.started")
        self._watch = asyncio.create_task(self._keep(), name="fence:keep")

    async def close(self, *, clear: bool = False) -> None:
        """End it in order, without clearing anything; release everything first.

        With `clear` it clears what is still registered before it ends, as if this sidecar had died.
        """
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        channel, self._channel = self._channel, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel.end)
            with contextlib.suppress(OSError):
                if clear:
                    channel.end.shutdown(socket.SHUT_WR)
                else:
                    channel.end.send(b"close", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            await self._wait_exit(channel, CLEAR_S_MAX if clear else ANSWER_S_MAX)
            channel.close()

    # ---- what it is told --------------------------------------------------------

    def set_deadline(self, deadline_ns: int) -> None:
        """Clear everything at `deadline_ns` (CLOCK_BOOTTIME) unless told another time before.

        Never blocks. A message that finds the socket full is dropped: the fence
        then acts too early rather than too late.
        """
        self._deadline = deadline_ns
        if self._channel is not None:
            with contextlib.suppress(OSError):
                failpoints.hit("fence.deadline")
                self._channel.end.send(
                    b"deadline %d" % deadline_ns, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                )

    async def register_tree(
        self, name: str, pid: int, start_time: int, cgroup: str | None, *, waits: bool = False
    ) -> None:
        """Have a process with all its descendants killed; `cgroup` is a v2 directory of its own.

        With `waits` only the deadline ends it: it may outlive this sidecar until then.
        Fails: FenceRefused when it cannot be held, FenceUnavailable without a fence process.
        """
        fields = {"kind": "tree", "name": name, "pid": pid, "start_time": start_time}
        await self._register(name, {**fields, "cgroup": cgroup, "waits": waits})

    async def register_address(self, name: str, ifindex: int, address: str, prefix: int) -> None:
        """Have an address removed; register it before it is added.

        Fails: FenceRefused when it cannot be held, FenceUnavailable without a fence process.
        """
        fields = {"kind": "vip", "name": name, "ifindex": ifindex, "address": address, "prefix": prefix}
        await self._register(name, fields)

    async def unregister(self, name: str) -> None:
        """Let go of something that has ended in order."""
        if self._things.pop(name, None) is not None and self._channel is not None:
            with contextlib.suppress(OSError):  # a lost fence process holds nothing any more
                async with asyncio.timeout(ANSWER_S_MAX):
                    await asyncio.get_running_loop().sock_sendall(
                        self._channel.end, f"remove {name}".encode()
                    )

    async def _register(self, name: str, fields: dict[str, object]) -> None:
        text = json.dumps(fields)
        await failpoints.passing("fence.before-register")
        self._things[name] = text
        try:
            await self._send(f"add {text}")
            await self._ping()
        except (FenceUnavailable, asyncio.CancelledError):
            self._things.pop(name, None)
            raise
        refusal = self._refusals.pop(name, None)
        if refusal is not None:
            self._things.pop(name, None)
            raise FenceRefused(f"The fence cannot hold {name}: {refusal}. It must not run.", name=name)
        await failpoints.passing("fence.registered")

    # ---- the channel ------------------------------------------------------------

    async def _send(self, text: str) -> None:
        if self._channel is None:
            raise FenceUnavailable("There is no fence process. It is being started; try again.")
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await asyncio.get_running_loop().sock_sendall(self._channel.end, text.encode())
        except OSError as error:  # TimeoutError is one
            raise FenceUnavailable("The fence process does not take messages. Try again.") from error

    async def _ping(self) -> None:
        """Return when everything sent before has been taken in."""
        self._pings += 1
        key = str(self._pings)
        self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await self._send(f"ping {key}")
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._waiting[key]
        except TimeoutError as error:
            # After this process slept itself, the answer and the timeout arrive together.
            answered = self._waiting[key]
            if answered.cancelled() or answered.exception() is not None:
                raise FenceUnavailable("The fence process does not answer. It is started again.") from error
        finally:
            del self._waiting[key]

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  # a few ms, and nothing else may go on before
                    [sys.executable, "-IS", str(self._program), str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
            except OSError as error:
                ours.close()
                raise FenceUnavailable(f"The fence process cannot be started: {error}.") from error
        channel = _Channel(process, ours)
        try:
            async with asyncio.timeout(START_S_MAX):
                answer = await loop.sock_recv(ours, PACKET_BYTES_MAX)
            if answer != b"pong start":
                raise FenceUnavailable("The fence process ended while it started.")
        except OSError as error:
            channel.close()
            raise FenceUnavailable("The fence process does not start in time.") from error
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        loop.add_reader(ours, self._readable, channel)

    def _readable(self, channel: _Channel) -> None:
        while True:
            try:
                packet = channel.end.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(channel.end)
                self._fail_waiting()
                return
            self._take(packet.decode())

    def _take(self, text: str) -> None:
        verb, _, rest = text.partition(" ")
        if verb == "pong" and rest in self._waiting:
            if not self._waiting[rest].done():
                self._waiting[rest].set_result(None)
        elif verb == "refused":
            fields = json.loads(rest)
            self._refusals[str(json.loads(fields["add"])["name"])] = str(fields["error"])
        elif verb == "fenced":
            fields = json.loads(rest)
            report = FenceReport(tuple(fields["cleared"]), tuple(fields["left"]), float(fields["ms"]))
            for name in report.cleared:
                if name not in report.left:
                    self._things.pop(name, None)
            self._on_fenced(report)

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(FenceUnavailable("The fence process ended. It is started again."))

    # ---- its loss ---------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep a fence process running; ends only by `close`, or after `on_lost`."""
        lost = "The watch over the fence process ended by a defect."
        try:
            lost = await self._replace_until_lost()
        finally:
            if not self._closing:
                self._on_lost(lost)

    async def _replace_until_lost(self) -> str:
        """Notice the end or silence of the fence process and start another; why none can be."""
        while True:
            channel = self._channel
            if channel is None:
                raise InvariantBroken("the fence process is watched before it is started")
            if not await self._wait_exit(channel, PING_EACH_S):
                with contextlib.suppress(FenceUnavailable):
                    await self._ping()
                    continue
            asyncio.get_running_loop().remove_reader(channel.end)
            self._channel = None
            self._fail_waiting()
            channel.close()
            problem = await self._open_again()
            if problem is not None:
                return problem

    async def _open_again(self) -> str | None:
        """Start another and register everything anew; the problem if that cannot be done."""
        problem = ""
        for _ in range(STARTS_IN_A_ROW_MAX):
            try:
                await self._open()
                self.set_deadline(self._deadline)
                for text in list(self._things.values()):
                    await self._send(f"add {text}")
                await self._ping()
            except FenceUnavailable as error:
                if self._channel is not None:
                    asyncio.get_running_loop().remove_reader(self._channel.end)
                    self._channel.close()
                    self._channel = None
                problem = error.message
            else:
                return None
        return problem

    async def _wait_exit(self, channel: _Channel, wait_s: float) -> bool:
        """True when the fence process has ended within `wait_s`."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(channel.pidfd, ended.set)
        try:
            async with asyncio.timeout(wait_s):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(channel.pidfd)
        return True


def boottime_ns() -> int:
    """Now, on the clock that deadlines are given in; it runs on while the host sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
