"""etcd beside Trellis: three members of the installed program, and the client calls that are measured.

Peers and clients speak plain text here, which favours etcd a little: Trellis's hosts
speak mTLS. Everything else is etcd's default but the timers that a caller gives.

Source: etcd 3.4 api/etcdserverpb/rpc.proto, of which only these fields are read.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.command import Figures, Order, fresh
from benchmarks.figures import MS, summary
from benchmarks.programs import Programs, find
from mesh.errors import Unavailable

MEMBERS: Final = ("etcd1", "etcd2", "etcd3")
READY_S: Final = 20.0
LOOK_S: Final = 0.01
#: How long one try of a write may take, and the pause before the next is sent beside it.
TRY_S: Final = 1.0
AGAIN_S: Final = 0.02
#: Election timers in ms (heartbeat, election): etcd's defaults, and the least it is advised to run with.
TIMERS: Final = {"defaults": (100, 1000), "tight": (10, 100)}

PUT: Final = "/etcdserverpb.KV/Put"
_STATUS: Final = "/etcdserverpb.Maintenance/Status"


def _messages() -> Iterator[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="etcd_part.proto", package="etcdpart", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    shapes = {
        "PutRequest": {"key": (1, kinds.TYPE_BYTES), "value": (2, kinds.TYPE_BYTES)},
        "ResponseHeader": {"member_id": (2, kinds.TYPE_UINT64), "raft_term": (4, kinds.TYPE_UINT64)},
        "StatusResponse": {"header": (1, kinds.TYPE_MESSAGE), "leader": (4, kinds.TYPE_UINT64)},
    }
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
            if kind == kinds.TYPE_MESSAGE:
                added.type_name = ".etcdpart.ResponseHeader"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    for name in shapes:
        yield message_factory.GetMessageClass(pool.FindMessageTypeByName(f"etcdpart.{name}"))


PutRequest, _ResponseHeader, _StatusResponse = _messages()


@dataclass
class Etcd:
    """Three running members."""

    programs: Programs
    directory: Path
    timers: tuple[int, int]
    channels: dict[str, grpc.aio.Channel]

    def address(self, member: str) -> str:
        """Where clients reach a member."""
        return f"127.0.80.{60 + MEMBERS.index(member)}:2379"

    async def start(self, member: str, *, state: str = "new") -> None:
        """Start or restart one member."""
        ip = self.address(member).partition(":")[0]
        peers = ",".join(f"{each}=http://{self.address(each).replace('2379', '2380')}" for each in MEMBERS)
        heartbeat, election = self.timers
        argv = [
            find("etcd", "apt install etcd-server"),
            *("--name", member, "--data-dir", str(self.directory / member)),
            *(
                "--listen-peer-urls",
                f"http://{ip}:2380",
                "--initial-advertise-peer-urls",
                f"http://{ip}:2380",
            ),
            *("--listen-client-urls", f"http://{ip}:2379", "--advertise-client-urls", f"http://{ip}:2379"),
            *("--initial-cluster", peers, "--initial-cluster-state", state, "--logger", "zap"),
            *("--heartbeat-interval", str(heartbeat), "--election-timeout", str(election)),
        ]
        await self.programs.start(member, argv)

    async def leader(self, among: tuple[str, ...] = MEMBERS) -> tuple[str, int] | None:
        """The member that says it leads, and its term."""
        for member in among:
            ask: Any = self.channels[member].unary_unary(
                _STATUS, response_deserializer=_StatusResponse.FromString
            )
            try:
                answer = await ask(b"", timeout=1)
            except grpc.aio.AioRpcError:
                continue
            if answer.leader and answer.leader == answer.header.member_id:
                return member, answer.header.raft_term
        return None

    async def wait_leader(self, among: tuple[str, ...] = MEMBERS) -> tuple[str, int]:
        """As `leader`, once there is one. Fails: `Unavailable`."""
        deadline = time.monotonic() + READY_S
        while (found := await self.leader(among)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(f"etcd has no leader after {READY_S:g} s")
            await asyncio.sleep(LOOK_S)
        return found

    async def put(self, member: str, key: bytes, value: bytes, timeout_s: float) -> None:
        """One write. Fails: `grpc.aio.AioRpcError`."""
        call: Any = self.channels[member].unary_unary(PUT, request_serializer=PutRequest.SerializeToString)
        await call(PutRequest(key=key, value=value), timeout=timeout_s)

    async def wait_written(self, among: tuple[str, ...]) -> None:
        """Until one write has succeeded; a new try each 20 ms, to one member after the other."""
        deadline = time.monotonic() + READY_S
        tries: set[asyncio.Task[None]] = set()
        try:
            for member in itertools.cycle(among):
                tries.add(asyncio.ensure_future(self.put(member, b"after", b"x", TRY_S)))
                done, tries = await asyncio.wait(tries, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                outcomes = [each.exception() for each in done]
                if None in outcomes:
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(f"etcd takes no write after {READY_S:g} s")
                await asyncio.sleep(AGAIN_S if done else 0)
        finally:
            for each in tries:
                each.cancel()
            await asyncio.gather(*tries, return_exceptions=True)


@asynccontextmanager
async def running_etcd(directory: Path, timers: tuple[int, int] = TIMERS["defaults"]) -> AsyncIterator[Etcd]:
    """Three members with a leader. Fails: `CannotMeasure` when etcd is not installed."""
    find("etcd", "apt install etcd-server")
    async with Programs(directory) as programs:
        etcd = Etcd(programs, directory, timers, {})
        for member in MEMBERS:
            etcd.channels[member] = grpc.aio.insecure_channel(etcd.address(member), options=_QUICK)
        try:
            for member in MEMBERS:
                await etcd.start(member)
            await etcd.wait_leader()
            await etcd.wait_written(MEMBERS)
            yield etcd
        finally:
            for channel in etcd.channels.values():
                await channel.close()


_QUICK: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


async def kill_leaders(order: Order) -> Figures:
    """SIGKILL of the leader, again and again, at each set of timers."""
    figures: Figures = {"reason": None}
    for name, timers in TIMERS.items():
        async with running_etcd(fresh(order.directory, f"etcd-{name}"), timers) as etcd:
            led: list[float] = []
            written: list[float] = []
            for _ in range(order.runs):
                leader_ms, write_ms = await _kill_leader(etcd)
                led.append(leader_ms)
                written.append(write_ms)
                order.say(f"etcd {name}: leader {leader_ms:.0f} ms, write {write_ms:.0f} ms")
        figures[name] = {"leader_ms": summary(led), "next_write_ms": summary(written)}
    return figures


async def _kill_leader(etcd: Etcd) -> tuple[float, float]:
    leader, _ = await etcd.wait_leader()
    survivors = tuple(member for member in MEMBERS if member != leader)
    killed_ns = await etcd.programs.signal(leader, Signals.SIGKILL)

    async def since_kill(done: Any) -> float:
        await done
        return (time.monotonic_ns() - killed_ns) / MS

    led, written = await asyncio.gather(
        since_kill(etcd.wait_leader(survivors)), since_kill(etcd.wait_written(survivors))
    )
    await etcd.start(leader, state="existing")
    await _wait_back(etcd, leader)
    return led, written


async def _wait_back(etcd: Etcd, member: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await etcd.put(member, b"back", b"x", 1)
            await asyncio.sleep(1)  # followers settle, so that the next kill hits a calm group
            return
        await asyncio.sleep(0.05)
    raise Unavailable(f"{member} of etcd did not come back within {READY_S:g} s")
