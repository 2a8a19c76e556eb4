"""`trellis status | hosts | events | leader | host`: the cluster as a whole."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, Json, Settings, Stale, Timeout

if TYPE_CHECKING:
    from trellis.cluster.v1 import cluster_pb2

    from sidecar.cli.admin import Admin

leader_app = typer.Typer(no_args_is_help=True, help="Who leads, and handing it over.")
host_app = typer.Typer(no_args_is_help=True, help="Take a host out of service, back in, or away for good.")


def status(
    *,
    json: Json = False,
    linearizable: Annotated[
        bool, typer.Option("--linearizable", help="Confirm with the leader that the answer is up to date.")
    ] = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """How this host sees itself and the cluster.

    Examples:

      trellis status

      trellis status --json | jq .owners.vip.host

      trellis status --linearizable    # fails on a host that is cut off
    """
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import status_shape
    from sidecar.cli.tables import status_view

    with Admin(settings, timeout) as admin:
        stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        request = cluster_pb2.GetStatusRequest(linearizable=linearizable)
        answer = admin.read(stub.GetStatus, request)
    if json:
        print_json(status_shape(answer))
    else:
        show(status_view(answer))


def hosts(
    *,
    json: Json = False,
    stale: Stale = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """The hosts of the cluster and what is known of them.

    Examples:

      trellis hosts

      trellis hosts --json | jq -r '.hosts[] | select(.status == "lost") | .host'
    """
    from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import host_shape
    from sidecar.cli.tables import hosts_table

    with Admin(settings, timeout) as admin:
        stub = membership_pb2_grpc.MembershipServiceStub(admin.channel)
        answer = admin.read(stub.ListHosts, membership_pb2.ListHostsRequest(stale_ok=stale))
    if json:
        print_json({"hosts": [host_shape(host) for host in answer.hosts]})
    else:
        show(hosts_table(answer.hosts))


def events(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    after: Annotated[int, typer.Option("--after", min=0, help="Only events after this index.")] = 0,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=2000, help="At most so many, the newest.")
    ] = 100,
    kind: Annotated[str, typer.Option("--kind", help="Only this kind, such as host-lost.")] = "",
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """What happened to the cluster, oldest first.

    With --json: one object, and with --follow one object on each line.

    Examples:

      trellis events -n 20

      trellis events --follow

      trellis events --kind ownership-assigned --json | jq .events
    """
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import event_shape
    from sidecar.cli.tables import event_line

    with Admin(settings, timeout) as admin:
        stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        request = cluster_pb2.ListEventsRequest(after_index=after, limit=limit, kind=kind)
        listed = list(admin.read(stub.ListEvents, request).events)
        if json and not follow:
            print_json({"events": [event_shape(event) for event in listed]})
            return
        last = listed[-1].index if listed else after
        later = _later_events(admin, last) if follow else iter(())
        for event in itertools.chain(listed, (event for event in later if kind in ("", event.kind))):
            if json:
                print_json(event_shape(event), line=True)
            else:
                show(event_line(event))


def _later_events(admin: "Admin", last: int) -> "Iterator[cluster_pb2.Event]":
    """Every event after an index, each once, also where a stream breaks among several of one index."""
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
    index, told, again = last, 0, 0

    def next_request() -> cluster_pb2.WatchEventsRequest:
        nonlocal again
        again = told
        return cluster_pb2.WatchEventsRequest(after_index=index - 1 if told else index)

    for answer in admin.follow(stub.WatchEvents, next_request):
        event = answer.event
        if again and event.index == index:
            again -= 1
            continue
        told = told + 1 if event.index == index else 1
        index = event.index
        yield event


@leader_app.command("show")
def leader_show(
    *, json: Json = False, timeout: Timeout = TIMEOUT_S, settings: Settings = SETTINGS_DEFAULT
) -> None:
    """Who leads, confirmed by a majority.

    Examples:

      trellis leader show

      trellis leader show --json | jq -r .leader
    """
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        answer = admin.read(stub.GetStatus, cluster_pb2.GetStatusRequest(linearizable=True))
    if json:
        print_json({"leader": answer.leader or None, "term": answer.term})
    else:
        say(f"{answer.leader or 'nobody'} leads in term {answer.term}")


@leader_app.command("transfer")
def leader_transfer(
    host: Annotated[
        str, typer.Argument(help="Host that should lead; left out: the most advanced voter.")
    ] = "",
    *,
    json: Json = False,
    timeout: Timeout = 15.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Hand leadership to another host, with everything that moves along with it.

    Examples:

      trellis leader transfer host2

      trellis leader transfer          # to the most advanced other voter
    """
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.durations import format_ms
    from sidecar.cli.output import print_json, say
    from sidecar.cli.progress import working
    from sidecar.cli.shapes import milliseconds

    with (
        Admin(settings, timeout) as admin,
        working(f"Handing leadership to {host or 'the next host'}", quiet=json),
    ):
        stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        request = cluster_pb2.TransferLeadershipRequest(host=host)
        # A named transfer may be repeated: when that host leads already, there is nothing to do.
        answer = admin.write(stub.TransferLeadership, request, repeatable=bool(host))
    took_ms = milliseconds(answer.took)
    if json:
        print_json({"leader": answer.leader, "took_ms": took_ms})
    else:
        say(f"{answer.leader} leads; the hand-over took {format_ms(took_ms)}")


HostName = Annotated[str, typer.Argument(help="Name of the host, such as host2.", show_default=False)]


@host_app.command("drain")
def host_drain(
    host: HostName, *, json: Json = False, timeout: Timeout = TIMEOUT_S, settings: Settings = SETTINGS_DEFAULT
) -> None:
    """Take a host out of service: it gives away what it owns and runs nothing new.

    Example: trellis host drain host2
    """
    _drain(settings, host, drain=True, json=json, timeout=timeout)


@host_app.command("undrain")
def host_undrain(
    host: HostName, *, json: Json = False, timeout: Timeout = TIMEOUT_S, settings: Settings = SETTINGS_DEFAULT
) -> None:
    """Take a drained host back into service.

    Example: trellis host undrain host2
    """
    _drain(settings, host, drain=False, json=json, timeout=timeout)


def _drain(settings: Settings, host: str, *, drain: bool, json: bool, timeout: float) -> None:
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        admin.write(stub.DrainHost, cluster_pb2.DrainHostRequest(host=host, drain=drain))
    if json:
        print_json({"host": host, "draining": drain})
    else:
        say(f"{host} is draining; trellis status shows it empty" if drain else f"{host} is back in service")


@host_app.command("remove")
def host_remove(
    host: HostName,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Go on even when the remaining hosts cannot carry everything.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    timeout: Timeout = 15.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Remove a host for good; its certificate is revoked, and it can only come back by a new join.

    Example: trellis host remove host3 --yes
    """
    from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.progress import working

    if not yes:
        typer.confirm(f"Remove {host} from the cluster for good?", abort=True, err=True)
    with Admin(settings, timeout) as admin, working(f"Removing {host}", quiet=json):
        stub = membership_pb2_grpc.MembershipServiceStub(admin.channel)
        admin.write(stub.RemoveHost, membership_pb2.RemoveHostRequest(host=host, force=force))
    if json:
        print_json({"host": host, "removed": True})
    else:
        say(f"{host} is removed")
