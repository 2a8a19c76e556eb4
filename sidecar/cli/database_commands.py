"""`trellis db`: the cluster's PostgreSQL: declare it, look at it, move it, and what to do when it is lost."""

from typing import TYPE_CHECKING, Annotated

import typer

from mesh.errors import InvalidRequest, Problem, Unavailable
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, ExpectVersion, Json, Settings, Stale, Timeout

if TYPE_CHECKING:
    from trellis.database.v1 import database_pb2, database_pb2_grpc

    from sidecar.cli.admin import Admin

database_app = typer.Typer(no_args_is_help=True, help="The cluster's PostgreSQL: declare, look, move.")


@database_app.command("status")
def status(
    *,
    stale: Stale = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Who is primary, who follows and how far behind, and how the last failover went.

    Examples:

      trellis db status

      trellis db status --json | jq -r .primary
    """
    from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc
    from trellis.database.v1 import database_pb2

    from sidecar.cli.admin import Admin
    from sidecar.cli.database_views import database_shape, database_view, last_failover
    from sidecar.cli.output import print_json, show

    with Admin(settings, timeout) as admin:
        answer = admin.read(_stub(admin).GetStatus, database_pb2.GetStatusRequest(stale_ok=stale))
        events = cluster_pb2_grpc.ClusterServiceStub(admin.channel)
        listed = admin.read(events.ListEvents, cluster_pb2.ListEventsRequest(limit=2_000)).events
    phases = last_failover(listed)
    if json:
        print_json(database_shape(answer, phases))
    else:
        show(database_view(answer, phases))


@database_app.command("declare")
def declare(
    *,
    standbys_needed: Annotated[
        int | None,
        typer.Option("--standbys-needed", min=0, help="Standbys that must have a commit; 1 at first."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Where it listens; 5432 at first.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of PostgreSQL; NAME= takes it away."),
    ] = None,
    data_hosts: Annotated[
        str | None, typer.Option("--data-hosts", help="Hosts that hold data, with commas; empty: all.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it takes writes.")] = False,
    expect_version: ExpectVersion = None,
    json: Json = False,
    timeout: Timeout = 120.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Declare the database, or change its declaration. What is not given stays as it is.

    Examples:

      trellis db declare --wait

      trellis db declare --set work_mem=64MB --set max_connections=300

      trellis db declare --standbys-needed 0    # one host only: commits wait for nobody
    """
    from trellis.database.v1 import database_pb2

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = _stub(admin)
        present = admin.read(stub.GetStatus, database_pb2.GetStatusRequest())
        spec = database_pb2.DatabaseSpec(port=5432, standbys_needed=1)
        if present.version:
            spec.CopyFrom(present.spec)
        if standbys_needed is not None:
            spec.standbys_needed = standbys_needed
        if port is not None:
            spec.port = port
        if data_hosts is not None:
            spec.ClearField("data_hosts")
            spec.data_hosts.extend(sorted(name for name in data_hosts.split(",") if name))
        _set_parameters(spec, parameters or [])
        expected = present.version if expect_version is None else expect_version
        request = database_pb2.DeclareRequest(spec=spec, expected_version=expected)
        answer = admin.write(stub.Declare, request, repeatable=False)
        if not json:
            say(f"declared in version {answer.version}")
        if wait:
            _wait_open(admin, quiet=json)
            if not json:
                say("it takes writes")
    if json:
        print_json({"version": answer.version})


def _set_parameters(spec: "database_pb2.DatabaseSpec", given: list[str]) -> None:
    values = {each.name: each.value for each in spec.parameters}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            problem = Problem("--set", f"{text!r} is not NAME=VALUE", "work_mem=64MB")
            raise InvalidRequest("The declaration cannot be understood.", [problem])
        values[name] = value
        if not value:
            del values[name]
    spec.ClearField("parameters")
    for name in sorted(values):
        spec.parameters.add(name=name, value=values[name])


def _wait_open(admin: "Admin", *, quiet: bool) -> None:
    """Until somebody takes writes. Fails: `Unavailable` with what is in the way."""
    import tenacity
    from trellis.database.v1 import database_pb2

    from sidecar.cli.progress import working

    with working("waiting until the database takes writes", quiet=quiet) as tell:

        def look() -> None:
            answer = admin.read(_stub(admin).GetStatus, database_pb2.GetStatusRequest())
            term = answer.fencing_term
            if any(row.status.is_open and row.status.fencing_term == term for row in answer.members):
                return
            doing = {view.host: view.doing for view in answer.servers}
            at_primary = doing.get(answer.primary, "nobody is primary yet")
            words = answer.problems[0] if answer.problems else at_primary
            tell(words)
            raise Unavailable(f"The database does not take writes yet: {words}.")

        tenacity.Retrying(
            stop=tenacity.stop_after_delay(admin.left_s()),
            wait=tenacity.wait_fixed(0.2),
            retry=tenacity.retry_if_exception_type(Unavailable),
            reraise=True,
        )(look)


@database_app.command("switchover")
def switchover(
    host: Annotated[
        str, typer.Argument(help="Who is to be primary; none: the best.", show_default=False)
    ] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it could be done.")] = False,
    json: Json = False,
    timeout: Timeout = 60.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Move the primary to another host, in order and with nothing lost; the leader follows it.

    Examples:

      trellis db switchover host2

      trellis db switchover --dry-run
    """
    from trellis.database.v1 import database_pb2

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import milliseconds

    with Admin(settings, timeout) as admin:
        request = database_pb2.SwitchoverRequest(host=host, dry_run=dry_run)
        answer = admin.write(_stub(admin).Switchover, request, repeatable=False)
    outage_ms = milliseconds(answer.outage)
    if json:
        print_json(
            {"primary": answer.primary, "fencing_term": answer.fencing_term, "outage_ms": outage_ms,
             "dry_run": dry_run}
        )  # fmt: skip
    elif dry_run:
        say(f"{answer.primary} could take over now")
    else:
        say(f"{answer.primary} is primary, after {outage_ms:.0f} ms without writes")


@database_app.command("failover")
def failover(
    *,
    accept_data_loss: Annotated[
        bool,
        typer.Option("--accept-data-loss", help="Go on although commits that were acknowledged may be lost."),
    ] = False,
    why: Annotated[str, typer.Option("--why", help="For the journal.", show_default=False)] = "",
    json: Json = False,
    timeout: Timeout = 60.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Go on without the hosts that hold the last commits, because they do not come back.

    A failover that loses nothing needs no command. This one is for the case in which `trellis db status` says
    that nobody is promoted, and for that one primaryship only.

    Examples:

      trellis db failover --accept-data-loss --why "host1 burnt down, host2 was offline"
    """
    from trellis.database.v1 import database_pb2

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = _stub(admin)
        present = admin.read(stub.GetStatus, database_pb2.GetStatusRequest())
        if not accept_data_loss:
            found = present.problems[0] if present.problems else "nothing is in the way of a failover"
            problem = Problem(
                "--accept-data-loss", f"is not given ({found})", "--accept-data-loss --why TEXT"
            )
            raise InvalidRequest("A failover without a loss happens by itself.", [problem])
        request = database_pb2.AcceptDataLossRequest(fencing_term=present.fencing_term, why=why)
        admin.write(stub.AcceptDataLoss, request)
        if not json:
            say(f"the loss is accepted for primaryship {present.fencing_term}")
        _wait_open(admin, quiet=json)
    if json:
        print_json({"accepted": present.fencing_term})
    else:
        say("the database takes writes again")


def _stub(admin: "Admin") -> "database_pb2_grpc.DatabaseServiceStub":
    from trellis.database.v1 import database_pb2_grpc

    return database_pb2_grpc.DatabaseServiceStub(admin.channel)
