"""The reconciler: active-standby; of all instances one acts, under its fencing term.

Settings are variables: `DATABASE_URL`, `TRELLIS_CLUSTER`, `TRELLIS_SERVICE`, `TRELLIS_FENCING_TERM`, and
`RECONCILER_SOCKET` where the sidecar's operators' socket is not beside `TRELLIS_SOCKET`.

It ends with code 3 when a later owner has acted.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

from mesh.client.database import Bounds, Database
from mesh.errors import SettingsError, StaleTerm
from mesh.ids import FencingTerm, ServiceName, owned_service
from mesh.state.model import Fence
from services.lcm.main import database_url, wait_schema
from services.reconciler.driver import Reconciler
from services.reconciler.ledger import OWNER, Ledger
from services.reconciler.supervisor import Supervisor, target_of

STALE_EXIT_CODE: Final = 3


async def reconcile(environment: Mapping[str, str]) -> int:
    """Act until SIGTERM (0) or until overtaken (3); 1 when the settings are of no use."""
    term = environment.get("TRELLIS_FENCING_TERM", "")
    if not term.isdigit() or not int(term):
        print("TRELLIS_FENCING_TERM is not set: only an owner may act", file=sys.stderr, flush=True)
        return 1
    try:
        url = database_url(environment)
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    name = environment.get("TRELLIS_INSTANCE", "reconciler@local#0")
    cluster = environment.get("TRELLIS_CLUSTER", "")
    owned = owned_service(ServiceName(environment.get("TRELLIS_SERVICE", OWNER)))
    fence = Fence(owned, FencingTerm(int(term)))
    print(f"acting with fencing term {term}", flush=True)
    async with (
        Database(url, Bounds(connections=2), name=name, cluster=cluster) as database,
        Supervisor(target_of(environment), fence) as services,
    ):
        return await _act(Reconciler(database, Ledger(database, int(term)), services), database, stop)


async def _act(reconciler: Reconciler, database: Database, stop: asyncio.Event) -> int:
    overtaken: list[BaseException] = []

    async def run() -> None:
        await wait_schema(database)
        try:
            await reconciler.run()
        except* StaleTerm as found:
            overtaken.append(found)
            print("refused: a later owner acts", flush=True)
            stop.set()

    async with asyncio.TaskGroup() as group:
        acting = group.create_task(run(), name="reconcile")
        await stop.wait()
        acting.cancel()
    if overtaken:
        return STALE_EXIT_CODE
    print("ended", flush=True)
    return 0


def main() -> None:
    """Entry point: `python -m services.reconciler.main`."""
    sys.exit(asyncio.run(reconcile(os.environ)))


if __name__ == "__main__":
    main()
