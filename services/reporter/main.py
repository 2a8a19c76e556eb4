"""An example of an active-standby service: in the whole cluster one instance acts.

Once a second it says that it is the owner, with its fencing term, and, when
REPORTER_RESOURCE is set to address:port, writes the term to that resource. A
resource that remembers the highest term it has seen and refuses lower ones is
what makes a stale owner harmless; the lines of the protocol are

    to the resource:  TERM INSTANCE SEQUENCE
    back:             "ok", or "stale HIGHEST-TERM"

A refused owner ends at once with code 3: another one acts already.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

PERIOD_S: Final = 1.0
ANSWER_S: Final = 1.0
STALE_EXIT_CODE: Final = 3


class StaleTermError(Exception):
    """The resource has seen a higher fencing term."""


class Resource:
    """The connection to a resource that verifies fencing terms; opened anew when lost."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def write(self, line: str) -> None:
        """Fails: StaleTermError; OSError or TimeoutError when the resource cannot be reached."""
        async with asyncio.timeout(ANSWER_S):
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host.strip("[]"), int(self._port))
                reader, writer = self._streams
                writer.write(f"{line}\n".encode())
                await writer.drain()
                answer = (await reader.readline()).decode().strip()
            except BaseException:
                self.close()
                raise
        if answer.startswith("stale"):
            raise StaleTermError(answer)
        if answer != "ok":
            self.close()
            raise ConnectionResetError("the resource closed the connection")

    def close(self) -> None:
        """Give the connection up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def report(environment: Mapping[str, str], period_s: float) -> int:
    """Act as the owner until SIGTERM (0) or until refused as stale (3)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    term = environment.get("TRELLIS_FENCING_TERM", "0")
    instance = environment.get("TRELLIS_INSTANCE", "reporter@local#0")
    address = environment.get("REPORTER_RESOURCE", "")
    resource = Resource(address) if address else None
    sequence = 0
    while not stop.is_set():
        sequence += 1
        print(f"I am the owner, fencing term {term}", flush=True)
        if resource is not None:
            try:
                await resource.write(f"{term} {instance} {sequence}")
            except StaleTermError as refusal:
                print(f"refused: {refusal}; another owner acts", flush=True)
                return STALE_EXIT_CODE
            except (OSError, TimeoutError) as error:
                print(f"the resource at {address} cannot be reached: {error}", flush=True)
        try:
            async with asyncio.timeout(period_s):
                await stop.wait()
        except TimeoutError:
            continue
    return 0


def main() -> None:
    """Entry point: `python -m services.reporter.main`."""
    period_s = float(os.environ.get("REPORTER_PERIOD_S", PERIOD_S))
    sys.exit(asyncio.run(report(os.environ, period_s)))


if __name__ == "__main__":
    main()
