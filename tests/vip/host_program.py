"""One host of the namespace tests: a NetlinkVip and its loop, told what to do on stdin.

Run as `python -m tests.vip.host_program INTERFACE ADDRESS`. Each line in is a
verb, each line out a JSON object. It also answers every UDP datagram on port
9000 with its interface's name.
"""

import asyncio
import json
import os
import socket
import sys
import time
from ipaddress import ip_address

from mesh.errors import TrellisError
from mesh.ids import FencingTerm
from sidecar.vip.driver import keep_vip
from sidecar.vip.netlink_vip import NetlinkVip


def answer(asked: socket.socket, text: bytes) -> None:
    _, client = asked.recvfrom(64)
    asked.sendto(text, client)


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def main(interface: str, text: str) -> None:
    address = ip_address(text)
    allowed = [True]
    vip = NetlinkVip(interface, address, lambda mac: say(conflict=mac), lambda: allowed[0])
    loop = asyncio.get_running_loop()
    asked = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    asked.bind(("", 9000))
    loop.add_reader(asked, answer, asked, interface.encode())
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(keep_vip(vip, lambda: True), name="keep-vip")
        say(ready=os.getpid())
        while line := (await reader.readline()).decode().split():
            began = time.monotonic_ns()
            try:
                if line[0] == "claim":
                    await vip.claim(FencingTerm(1), probe=line[1] == "probe")
                elif line[0] == "forbid":
                    allowed[0] = False
                elif line[0] == "release":
                    await vip.release()
            except TrellisError as error:
                say(refused=error.reason, holder=error.metadata.get("holder"), why=error.message)
            else:
                say(done=line[0], began=began, ms=(time.monotonic_ns() - began) / 1e6, held=vip.is_held())
        keeper.cancel()
    await vip.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
