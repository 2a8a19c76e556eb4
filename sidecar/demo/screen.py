"""Draws the board for a terminal; or, without one, prints its lines."""

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sidecar.demo.board import Board
from sidecar.demo.calls import BUCKET_NS
from sidecar.demo.phases import MS

COLUMNS = 64
BARS = " ▁▂▃▄▅▆▇█"
COLOURS = ("cyan", "magenta", "blue")
ROLE_STYLES = {"leader": "bold green", "candidate": "yellow", "pre-candidate": "yellow", "learner": "dim"}


def draw(board: Board) -> RenderableType:
    """The whole picture as it is now."""
    now_ns = time.monotonic_ns()
    title = f"[bold]Trellis[/bold] · {board.phase} · {board.elapsed_s():.1f} s"
    return Panel(
        Group(
            hosts_table(board),
            Text(),
            calls_line(board, now_ns),
            strip_chart(board, now_ns),
            Text(),
            *(
                Text(f"{at_s:6.1f} s  {text}", no_wrap=True, overflow="ellipsis")
                for at_s, text in board.lines
            ),
        ),
        title=title,
        title_align="left",
        border_style="dim",
    )


def hosts_table(board: Board) -> Table:
    """One row for each host: is it there, does it lead, what does it own, what runs there."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("host", "sidecar", "Raft role", "lease", "owns", "echo", "reporter"):
        table.add_column(column, min_width=8)
    newest = max(board.sights.values(), key=lambda sight: sight.applied_index, default=None)
    for name, colour in zip(board.hosts, COLOURS, strict=True):
        sight = board.sights.get(name)
        if name in board.killed:
            state = Text("killed", style="bold red")
        else:
            state = Text(f"pid {board.pids[name]}" if name in board.pids else "–", style="dim")
        owns = [owned for owned, (host, _) in newest.owners.items() if host == name] if newest else []
        ready = newest.ready if newest else {}
        role = sight.role if sight else "–"
        table.add_row(
            Text(name, style=f"bold {colour}"),
            state,
            Text(role, style=ROLE_STYLES.get(role, "")),
            lease_text(sight.lease_ms if sight else None),
            Text(", ".join(owned.removeprefix("service/") for owned in owns) or "–"),
            ready_sign(name in ready.get("echo", ())),
            ready_sign(name in ready.get("reporter", ())),
        )
    return table


def lease_text(lease_ms: float | None) -> Text:
    """What is left of a lease."""
    if lease_ms is None:
        return Text("–", style="dim")
    return Text(f"{lease_ms:.0f} ms", style="green") if lease_ms > 0 else Text("none", style="red")


def ready_sign(ready: bool) -> Text:
    """Whether a ready instance runs there."""
    return Text("● ready", style="green") if ready else Text("·", style="dim")


def calls_line(board: Board, now_ns: int) -> Text:
    """Northbound calls in one line."""
    ledger = board.ledger
    silent_ms = (now_ns - ledger.answered_ns[-1]) / MS if ledger.answered_ns else 0.0
    text = Text.assemble(
        ("calls to ", ""),
        (board.virtual_address, "bold"),
        (f"  {ledger.rate_per_s(now_ns):.0f}/s answered", "green"),
        (f"  {ledger.calls} made"),
        (f"  {ledger.failed} failed", "bold red" if ledger.failed else "green"),
        (f"  p50 {ledger.percentile_ms(0.5):.1f} ms"),
        (f"  {board.acknowledged} writes acknowledged"),
        ("" if board.deployed is None else f"  {board.deployed} deployments acknowledged"),
    )
    if silent_ms > 150 and ledger.answered_ns:
        text.append(f"  no answer for {silent_ms:.0f} ms", style="bold red")
    return text


def strip_chart(board: Board, now_ns: int) -> Table:
    """Who answered, a column for each quarter second; the newest at the right."""
    newest = (now_ns - board.started_ns) // BUCKET_NS
    numbers = range(newest - COLUMNS + 1, newest + 1)
    buckets = [board.ledger.buckets.get(number) for number in numbers]
    table = Table.grid(padding=(0, 1))
    top = max(1.0, board.calls_per_bucket)
    for name, colour in zip(board.hosts, COLOURS, strict=True):
        heights = [bucket.by_host[name] / top if bucket else 0.0 for bucket in buckets]
        table.add_row(Text(name, style=colour), Text(bars(heights), style=colour))
    failures = [bucket.failed / top if bucket else 0.0 for bucket in buckets]
    table.add_row(Text("failed", style="red"), Text(bars(failures), style="red"))
    signs = {(at_ns - board.started_ns) // BUCKET_NS: sign for at_ns, sign in board.marks.items()}
    table.add_row("", Text("".join(signs.get(number, " ") for number in numbers), style="bold yellow"))
    return table


def bars(heights: list[float]) -> str:
    """One character for each height from 0 to 1; anything above zero can be seen."""
    top = len(BARS) - 1
    return "".join(BARS[0 if height <= 0 else max(1, min(top, round(height * top)))] for height in heights)
