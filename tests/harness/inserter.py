"""A client that inserts a numbered row again and again, and tells what became of each.

`python -m tests.harness.inserter URL NAME PERIOD_S COMMIT` prints JSON lines until it is ended; times
are monotonic nanoseconds:

    ["connected", AT, HOST, STARTED, PID]      (of the server behind the listener)
    ["acknowledged", NUMBER, BEGAN, AT]
    ["unknown", NUMBER, BEGAN, AT, WHY]        (never tried again)
    ["refused", AT, WHY]                       (no connection; another one is tried)

COMMIT is the session's synchronous_commit. A commit whose wait for standbys was
cancelled is told by PostgreSQL as done, with a warning: here it is unknown.
"""

import json
import sys
import time
from itertools import count

import psycopg

from tests.harness.waiting import let_pass

AGAIN_S = 0.02
CONNECT_S = 3
WHO = "SELECT current_setting('cluster_name'), pg_postmaster_start_time()::text, pg_backend_pid()"
INSERT = "INSERT INTO entries (client, number) VALUES (%s, %s)"


def tell(*words: object) -> None:
    print(json.dumps(words), flush=True)


def use(
    connection: "psycopg.Connection[tuple[object, ...]]", name: str, numbers: "count[int]", pause_s: float
) -> None:
    """One session, until it is lost."""
    warnings: list[str] = []
    connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    row = connection.execute(WHO).fetchone()
    assert row is not None
    tell("connected", time.monotonic_ns(), *row)
    for number in numbers:
        began = time.monotonic_ns()
        warnings.clear()
        try:
            connection.execute(INSERT, (name, number))
        except psycopg.Error as error:
            tell("unknown", number, began, time.monotonic_ns(), str(error))
            raise
        at = time.monotonic_ns()
        if warnings:
            tell("unknown", number, began, at, warnings[0])
        else:
            tell("acknowledged", number, began, at)
        let_pass(max(0.0, pause_s - (time.monotonic_ns() - began) / 1e9))


def main() -> None:
    url, name, period_s, commit = sys.argv[1:5]
    numbers = count(1)
    while True:
        try:
            with psycopg.connect(
                url, autocommit=True, connect_timeout=CONNECT_S, options=f"-c synchronous_commit={commit}"
            ) as connection:
                use(connection, name, numbers, float(period_s))
        except psycopg.Error as error:
            tell("refused", time.monotonic_ns(), str(error))
            let_pass(AGAIN_S)


if __name__ == "__main__":
    main()
