"""A client that inserts a row every 20 ms and writes down what came of each.

`python -m benchmarks.inserts ORDER` reads ORDER, a JSON object (it bears a password, so it is no argument):

  urls     where to connect; lane i begins with the one numbered i
  lanes    connections, each of which takes its turn
  first    number of the first row
  record   file that takes one JSON object for each insert: its number, CLOCK_MONOTONIC when it was sent
           and when it was answered, the server that answered, and why there was no acknowledgement

It ends on SIGTERM. Like a careful application it takes a cancelled wait for standbys for an unknown
outcome, gives up on an answer after `ANSWER_S` by closing the connection, and dials again at its next turn.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psycopg

EVERY_S: Final = 0.02
ANSWER_S: Final = 1.0
#: The least that libpq takes.
CONNECT_S: Final = 2
_LOOK_S: Final = 0.02
_OPTIONS: Final = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 2000,
}


class Record:
    """The file; lines of several lanes do not mix."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._one = threading.Lock()

    def write(self, **fields: object) -> None:
        """One line."""
        line = json.dumps(fields) + "\n"
        with self._one:
            self._file.write(line)


class Lane(threading.Thread):
    """One connection and its turns; a turn that comes while the last is under way is left out."""

    def __init__(
        self,
        number: int,
        lanes: int,
        url: str,
        rows: "itertools.count[int]",
        record: Record,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"lane:{number}")
        self._url = url
        self._rows = rows
        self._record = record
        self._stopping = stop
        self._period_s = EVERY_S * lanes
        self._due_s = time.monotonic() + EVERY_S * number
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._server = ""
        self._is_warned = False
        self._said = ""
        self._one = threading.Lock()
        self._asked_s: float | None = None

    def run(self) -> None:
        """Insert until told to stop."""
        while not self._stopping.wait(max(0.0, self._due_s - time.monotonic())):
            if self._connection is not None or self._connect():
                self._insert(next(self._rows))
            while self._due_s <= time.monotonic():
                self._due_s += self._period_s
        self._forget()

    def hurry(self) -> None:
        """Close a connection whose answer is overdue; called by another thread."""
        with self._one:
            overdue = self._asked_s is not None and time.monotonic() - self._asked_s > ANSWER_S
            if overdue and self._connection is not None:
                with (
                    contextlib.suppress(OSError),
                    socket.socket(fileno=os.dup(self._connection.fileno())) as own,
                ):
                    own.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> bool:
        try:
            self._connection = psycopg.connect(self._url, autocommit=True, **_OPTIONS)  # type: ignore[arg-type]
            self._connection.add_notice_handler(self._notice)
            self._asked_s = time.monotonic()
            row = self._connection.execute("SELECT host(inet_server_addr())").fetchone()
            self._asked_s = None
        except psycopg.Error as error:
            self._forget()
            self._say(_words(error))
            return False
        self._server, self._said = str(row[0]) if row else "", ""
        return True

    def _say(self, why: str) -> None:
        """Why there is no connection; once for each reason, there are many tries."""
        if why != self._said:
            self._record.write(row=None, at_ns=time.monotonic_ns(), why=why)
        self._said = why

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        self._is_warned |= "synchronous replication" in (notice.message_primary or "")

    def _insert(self, row: int) -> None:
        assert self._connection is not None
        self._is_warned = False
        sent_ns = time.monotonic_ns()
        why = ""
        try:
            self._asked_s = time.monotonic()
            self._connection.execute("INSERT INTO inserts (number) VALUES (%s)", (row,))
            why = "the wait for standbys was cancelled" if self._is_warned else ""
        except psycopg.Error as error:
            why = _words(error)
        at_ns = time.monotonic_ns()
        self._asked_s = None
        self._record.write(row=row, sent_ns=sent_ns, at_ns=at_ns, server=self._server, why=why)
        if why:
            self._forget()

    def _forget(self) -> None:
        with self._one:
            self._asked_s = None
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _words(error: psycopg.Error) -> str:
    return f"{error.sqlstate or type(error).__name__}: {' '.join(str(error).split())[:200]}"


def main() -> None:
    """Insert until SIGTERM."""
    order = json.loads(Path(sys.argv[1]).read_text())
    stop = threading.Event()
    record = Record(Path(order["record"]))
    rows = itertools.count(order["first"])
    urls, lanes = order["urls"], order["lanes"]
    running = [Lane(each, lanes, urls[each % len(urls)], rows, record, stop) for each in range(lanes)]
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for lane in running:
        lane.start()
    while not stop.wait(_LOOK_S):
        for lane in running:
            lane.hurry()
    for lane in running:
        lane.join()


if __name__ == "__main__":
    main()
