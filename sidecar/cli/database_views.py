"""What `trellis db status` shows, to people and to programs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from trellis.cluster.v1 import cluster_pb2 as cluster
from trellis.database.v1 import database_pb2 as database

from sidecar.cli.shapes import Shape, milliseconds, moment, word
from sidecar.cli.tables import coloured, plain_table

#: Kinds of events that a failover or a switchover leaves, in their order.
_PHASES = {
    "database-failover": "decided",
    "ownership-assigned": "assigned",
    "database-promoted": "promoted",
    "database-opened": "takes writes",
}


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a change of primary."""

    name: str
    at: str
    #: Since the first step, by the wall clocks of the hosts that proposed them.
    after_ms: float
    text: str


def last_failover(events: Iterable[cluster.Event]) -> tuple[Phase, ...]:
    """The steps of the last change of primary, oldest first; none when there was none yet."""
    found: list[cluster.Event] = []
    for event in events:
        is_of_database = event.subject == "postgres-primary"
        if event.kind not in _PHASES or not is_of_database:
            continue
        names = [_PHASES[each.kind] for each in found]
        if _PHASES[event.kind] in ("decided", "assigned") and ("assigned" in names or not found):
            found = []
        found.append(event)
    if not found:
        return ()
    began = found[0].at.ToNanoseconds()
    return tuple(
        Phase(
            _PHASES[event.kind],
            moment(event.at),
            round((event.at.ToNanoseconds() - began) / 1e6, 1),
            event.message,
        )
        for event in found
    )


def format_lsn(lsn: int) -> str:
    """A position as PostgreSQL writes it; a dash for none."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}" if lsn else "-"


def format_bytes(count: int) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GiB"


def database_shape(status: database.GetStatusResponse, phases: Sequence[Phase]) -> Shape:
    """`trellis db status --json`."""
    servers = {view.host: view for view in status.servers}
    return {
        "declared": bool(status.version),
        "version": status.version,
        "system_identifier": status.system_identifier or None,
        "primary": status.primary or None,
        "successor": status.successor or None,
        "fencing_term": status.fencing_term,
        "timeline": status.timeline,
        "standbys_needed": status.spec.standbys_needed,
        "parameters": {each.name: each.value for each in status.spec.parameters},
        "published": {
            "version": status.published.version,
            "voters": list(status.published.voters),
            "quorum": status.published.quorum,
        },
        "problems": list(status.problems),
        "hosts": [_host_shape(row, servers.get(row.host)) for row in status.members],
        "last_failover": [
            {"phase": each.name, "at": each.at, "after_ms": each.after_ms, "text": each.text}
            for each in phases
        ],
    }


def _host_shape(row: database.DatabaseMember, view: database.ServerView | None) -> Shape:
    status = row.status
    return {
        "host": row.host,
        "role": word(status, "role"),
        "is_open": status.is_open,
        "is_streaming": status.is_streaming,
        "health": status.health,
        "timeline": view.timeline if view is not None else status.timeline,
        "flushed_lsn": format_lsn(view.flushed_lsn) if view is not None else None,
        "receives_from": (view.receives_from or None) if view is not None else None,
        "address": status.address,
        "version": status.version,
        "doing": view.doing if view is not None else None,
        "sync": {"needed": view.sync_needed, "of": list(view.sync_standbys)} if view is not None else None,
        "receivers": [_receiver_shape(each) for each in view.receivers] if view is not None else [],
    }


def _receiver_shape(receiver: database.ReceiverView) -> Shape:
    return {
        "host": receiver.host,
        "state": receiver.state,
        "flushed_lsn": format_lsn(receiver.flushed_lsn),
        "lag_bytes": receiver.lag_bytes,
        "lag_ms": milliseconds(receiver.lag),
        "synchronous": receiver.is_synchronous,
    }


def database_view(status: database.GetStatusResponse, phases: Sequence[Phase]) -> RenderableType:
    """`trellis db status`."""
    if not status.version:
        return Text("no database is declared: trellis db declare")
    head = Table.grid(padding=(0, 2))
    primary = f"{status.primary or 'nobody'}, number {status.fencing_term}, timeline {status.timeline}"
    handing = f", hands over to {status.successor}" if status.successor else ""
    head.add_row("primary", primary + handing)
    servers = {view.host: view for view in status.servers}
    lead = servers.get(status.primary)
    if lead is not None and lead.sync_needed:
        head.add_row("commits", f"wait for {lead.sync_needed} of {', '.join(lead.sync_standbys)}")
    elif status.spec.standbys_needed == 0:
        head.add_row("commits", "wait for nobody: a failover loses what no standby has")
    published = status.published
    if published.quorum:
        head.add_row("failover", f"needs {published.quorum} of {', '.join(published.voters)}")
    else:
        head.add_row(
            "failover", Text("not possible: no standby is known to have every commit", style="yellow")
        )
    for problem in status.problems:
        head.add_row("problem", Text(problem, style="red"))
    return Group(head, Text(""), _hosts_table(status, servers), *_failover_lines(phases))


def _hosts_table(
    status: database.GetStatusResponse, servers: dict[str, database.ServerView]
) -> RenderableType:
    table = plain_table("host", "role", "#timeline", "#flushed", "#behind", "#seconds", "state")
    lead = servers.get(status.primary)
    receivers = {each.host: each for each in lead.receivers} if lead is not None else {}
    for row in status.members:
        view, seen = servers.get(row.host), receivers.get(row.host)
        state = row.status.health or (view.doing if view is not None else "does not answer")
        table.add_row(
            row.host,
            coloured(word(row.status, "role")),
            str(view.timeline if view is not None else row.status.timeline),
            format_lsn(view.flushed_lsn) if view is not None else "?",
            format_bytes(seen.lag_bytes) if seen is not None else "",
            f"{milliseconds(seen.lag) / 1000:.1f}" if seen is not None else "",
            state,
        )
    return table


def _failover_lines(phases: Sequence[Phase]) -> list[RenderableType]:
    if not phases:
        return []
    table = plain_table("last change of primary", "#ms", "")
    for phase in phases:
        table.add_row(phase.name, f"{phase.after_ms:.0f}", phase.text)
    return [Text(""), table]


def backup_shape(made: database.BackupMade) -> Shape:
    """`trellis db backup --json`."""
    return {
        "path": made.path,
        "host": made.host,
        "system_identifier": made.system_identifier,
        "timeline": made.timeline,
        "start_lsn": format_lsn(made.start_lsn),
        "end_lsn": format_lsn(made.end_lsn),
        "version": made.version,
        "size_bytes": made.size_bytes,
        "deleted": list(made.deleted),
    }


def restore_shape(made: database.RestoreMade) -> Shape:
    """`trellis db restore --json`."""
    return {
        "host": made.host,
        "backup": made.backup,
        "system_identifier": made.system_identifier,
        "timeline": made.timeline,
        "ended_at": made.ended_at,
    }
