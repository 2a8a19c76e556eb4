"""What people see: the contracts' messages as tables and lines."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from trellis.cluster.v1 import cluster_pb2 as cluster
from trellis.config_sync.v1 import config_sync_pb2 as config_sync
from trellis.heartbeat.v1 import heartbeat_pb2 as heartbeat
from trellis.membership.v1 import membership_pb2 as membership
from trellis.supervisor.v1 import supervisor_pb2 as supervisor

from sidecar.cli.durations import format_age, format_ms
from sidecar.cli.shapes import milliseconds, moment, word

STYLES = {
    "alive": "green",
    "suspect": "yellow",
    "lost": "red",
    "running": "green",
    "starting": "yellow",
    "backoff": "red",
    "stopping": "yellow",
    "leader": "bold green",
    "learner": "yellow",
}


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table without a frame, so that a line can be copied."""
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in columns:
        # A column of numbers is marked with "#" and stands to the right.
        table.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left")
    return table


def coloured(value: str) -> Text:
    """A word in the colour of what it means."""
    return Text(value, style=STYLES.get(value, ""))


def status_view(status: cluster.GetStatusResponse) -> RenderableType:
    """`trellis status`."""
    head = Table.grid(padding=(0, 2))
    leader = status.leader or "nobody"
    lease = format_ms(milliseconds(status.lease_left)) if status.lease_left.ToNanoseconds() > 0 else "none"
    rows = [
        ("cluster", status.cluster_id),
        ("this host", f"{status.host_id} (incarnation {status.incarnation}), {status.role}, lease {lease}"),
        ("leader", f"{leader} in term {status.term}"),
        ("applied", f"{status.applied_index} of {status.commit_index} committed"),
        ("northbound", northbound_text(status)),
    ]
    if status.fenced_reason:
        rows.append(("fenced", status.fenced_reason))
    rows += [("closed", problem) for problem in status.northbound_problems]
    for name, value in rows:
        style = "red" if name in ("fenced", "closed") else ""
        head.add_row(Text(name, style="bold"), Text(value, style=style))
    return Group(
        head,
        Text(),
        owners_table(status.owners),
        Text(),
        hosts_table(status.hosts),
        Text(),
        services_table(status.services),
    )


def northbound_text(status: cluster.GetStatusResponse) -> str:
    """Where clients call."""
    addresses = [address for _host, address in sorted(status.northbound_addresses.items())]
    if status.virtual_address:
        addresses.insert(0, f"{status.virtual_address} (virtual)")
    return ", ".join(addresses) or "not configured"


def owners_table(owners: Iterable[cluster.Ownership]) -> Table:
    """Exclusive things and who holds them."""
    table = plain_table("owned", "host", "#fencing term")
    for owner in owners:
        handing = f" → {owner.successor}" if owner.successor else ""
        table.add_row(owner.name, (owner.host or "nobody") + handing, str(owner.fencing_term))
    return table


def hosts_table(hosts: Iterable[membership.Host]) -> Table:
    """The hosts of the cluster."""
    table = plain_table("host", "role", "status", "address", "#applied", "#last beat", "version")
    for host in hosts:
        role = "leader" if host.leader else word(host, "role")
        status = coloured(word(host, "status"))
        if host.draining:
            status.append(", draining", style="yellow")
        beat = format_age(host.last_beat_age.ToNanoseconds() / 1e9) if host.HasField("last_beat_age") else "–"
        table.add_row(
            Text.assemble(host.host, (f".{host.member.rpartition('.')[2]}", "dim")),
            coloured(role),
            status,
            host.address,
            str(host.applied_index or "–"),
            beat,
            host.version,
        )
    return table


def services_table(services: Iterable[supervisor.Service]) -> Table:
    """The services and how many of each take traffic."""
    table = plain_table("service", "mode", "#ready", "#version", "instances")
    for service in services:
        table.add_row(
            service.spec.name,
            word(service.spec, "mode"),
            ready_text(service),
            str(service.version),
            instances_text(service),
        )
    return table


def ready_text(service: supervisor.Service) -> Text:
    """Ready of wanted."""
    ready = sum(report.ready for report in service.instances)
    wanted = 0 if service.stopped else service.spec.instances_min
    return Text(f"{ready}/{wanted}", style="green" if ready >= wanted else "yellow")


def instances_text(service: supervisor.Service) -> Text:
    """Where it runs, and why not where it does not."""
    text = Text(", ").join(instance_text(report) for report in service.instances)
    for reason in ["stopped by an operator"] if service.stopped else [service.degraded_reason]:
        text.append(f"{'; ' if text and reason else ''}{reason}", style="yellow")
    return text


def instance_text(report: heartbeat.InstanceReport) -> Text:
    """One instance in a word."""
    state = word(report, "state")
    shown = "" if state == "running" and report.ready else f" {state}" if state != "running" else " not ready"
    reason = f" ({report.reason})" if report.reason else ""
    return Text.assemble(
        report.instance.partition("@")[2], (shown, STYLES.get(state, "yellow")), (reason, "dim")
    )


def documents_table(documents: Sequence[config_sync.Document]) -> Table:
    """Documents without their values."""
    table = plain_table("document", "#version", "#bytes", "#revision", "written")
    for document in documents:
        size = "deleted" if document.deleted else str(document.size_bytes)
        table.add_row(
            document.name, str(document.version), size, str(document.revision), moment(document.written)
        )
    return table


def event_line(event: cluster.Event) -> Text:
    """One event on one line."""
    return Text.assemble(
        (moment(event.at)[:23].replace("T", " "), "dim"),
        f" {event.index:>6} ",
        (f"{event.kind:<20} ", "bold"),
        (f"{event.subject:<18} ", "cyan"),
        event.message,
    )
