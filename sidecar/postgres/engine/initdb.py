"""Making the database, once in the life of a cluster.

It is made as `data.new` and put in place when it is complete, as a clone is.
"""

from pathlib import Path
from typing import Final

from mesh.errors import Conflict
from sidecar.postgres.engine.config import ADMIN_ROLE
from sidecar.postgres.engine.control_data import ControlData, read_control_data
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.tool import Tools

INITDB_S: Final = 60.0


async def make_database(tools: Tools, *, deadline_s: float = INITDB_S) -> ControlData:
    """A new database with checksums in `data`; its roles come with the first start (control.make_roles).

    The collation is C everywhere: that of the C library differs between hosts and breaks indexes.
    Fails: `Conflict` when there is a data directory, `DiskFull`, `DatabaseFailed`, `NotInTime`;
    then nothing is left.
    """
    layout = tools.layout
    if layout.data.exists():
        raise Conflict(f"{layout.data} exists: a database is made only where there is none.")
    await tools.clear()
    await tools.drop_fresh()
    layout.note(layout.clone_note, complete=False, source="initdb")
    layout.make_empty(layout.fresh)
    arguments = ["--pgdata", str(layout.fresh), "--username", ADMIN_ROLE, "--data-checksums"]
    arguments += ["--encoding", "UTF8", "--locale", "C", "--auth", "reject"]
    try:
        await tools.run("initdb", *arguments, deadline_s=deadline_s)
        found = await read_control_data(layout.fresh)
    except BaseException:
        await tools.drop_fresh()
        raise
    layout.note(_made_note(layout), system_identifier=found.system_identifier)
    layout.note(layout.clone_note, complete=True, source="initdb")
    layout.put_in_place()
    return found


def was_made_here(layout: Layout, system_identifier: str) -> bool:
    """A bootstrap on this host made it. If another one was recorded, nobody was ever let into this one."""
    note = layout.read_note(_made_note(layout)) or {}
    return note.get("system_identifier") == system_identifier


def forget_made(layout: Layout) -> None:
    """The database of this host is the recorded one: none that it made is to be thrown away any more."""
    if _made_note(layout).exists():
        layout.drop_note(_made_note(layout))


def _made_note(layout: Layout) -> Path:
    return layout.root / "made.json"
