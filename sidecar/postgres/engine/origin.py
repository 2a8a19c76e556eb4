"""Whether the data came to this host as part of its cluster, or were there before (`origin.json`).

A database that is declared begins with data that were restored in this cluster, never with what another
one has left. It matters until the database is made; from then on its system identifier and its history tell.
"""

from pathlib import Path

from mesh.ids import ClusterId
from sidecar.postgres.engine.layout import Layout


def claim(layout: Layout, cluster: ClusterId) -> None:
    """At each start, before anything makes data: what is there, not noted as this cluster's, is left over."""
    note = layout.read_note(_path(layout)) or {}
    folders = (layout.data, layout.fresh, layout.former)
    has_data = any(each.exists() for each in folders)
    is_left = has_data and (note.get("cluster") != cluster or bool(note.get("leftover")))
    if note.get("cluster") != cluster or note.get("leftover") is not is_left:
        layout.note(_path(layout), cluster=cluster, leftover=is_left)


def made_here(layout: Layout) -> None:
    """Data are about to be put where there are none."""
    note = layout.read_note(_path(layout))
    if note is not None:
        layout.note(_path(layout), cluster=note.get("cluster", ""), leftover=False)


def is_leftover(layout: Layout) -> bool:
    return bool((layout.read_note(_path(layout)) or {}).get("leftover"))


def _path(layout: Layout) -> Path:
    return layout.root / "origin.json"
