"""`trellis services`: declare, list, stop, restart, and read what they print."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.errors import InvalidRequest, NotFound, Unavailable
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, ExpectVersion, Json, Settings, Stale, Timeout

if TYPE_CHECKING:
    from trellis.supervisor.v1 import supervisor_pb2

    from sidecar.cli.admin import Admin

services_app = typer.Typer(no_args_is_help=True, help="Services: declare, list, stop, restart, read logs.")

ServiceName = Annotated[str, typer.Argument(help="Name of the service, such as echo.", show_default=False)]


@services_app.command("list")
def list_services(
    *,
    stale: Stale = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """List the services with their instances.

    Examples:

      trellis services list

      trellis services list --json | jq '.services[] | select(.degraded_reason)'
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import service_shape
    from sidecar.cli.tables import services_table

    with Admin(settings, timeout) as admin:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
        answer = admin.read(stub.ListServices, supervisor_pb2.ListServicesRequest(stale_ok=stale))
    if json:
        print_json({"services": [service_shape(service) for service in answer.services]})
    else:
        show(services_table(answer.services))


@services_app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="File that declares services (TOML).", show_default=False)],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until its instances are ready.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report problems.")] = False,
    expect_version: ExpectVersion = None,
    json: Json = False,
    timeout: Timeout = 60.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Declare services, or change their declaration.

    Every problem of the file is reported at once, and then nothing is changed.
    Several services of one file may depend on each other, in any order.
    Applying the same file again changes nothing.

    Examples:

      trellis services apply services/echo/echo.toml --wait

      trellis services apply echo.toml --dry-run
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from mesh.settings.declaration import load_declarations
    from mesh.state.spec_rules import dependencies_first
    from mesh.wire.service import encode_spec
    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import service_shape

    specs = [encode_spec(spec) for spec in dependencies_first(load_declarations(file))]
    shapes = []
    with Admin(settings, timeout) as admin:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
        checked = check_together(admin, specs) if dry_run or len(specs) > 1 else []
        for number, spec in enumerate(specs):
            request = supervisor_pb2.ApplyServiceRequest(spec=spec, expected_version=expect_version)
            answer = (
                checked[number]
                if dry_run
                else admin.write(stub.ApplyService, request, repeatable=expect_version is None)
            )
            service = answer.service
            if not json:
                say(_applied(spec.name, answer, dry_run=dry_run))
            if wait and not dry_run:
                service = wait_ready(admin, spec.name, service.version, quiet=json)
            shapes.append({**service_shape(service), "unchanged": answer.unchanged, "dry_run": dry_run})
    if json:
        print_json({"services": shapes})


def check_together(
    admin: "Admin", specs: "Sequence[supervisor_pb2.ServiceSpec]"
) -> "list[supervisor_pb2.ApplyServiceResponse]":
    """What applying each beside the others would do; nothing is changed.

    Fails: `InvalidRequest` with the problems of all of them.
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
    answers, problems = [], []
    for spec in specs:
        others = [other for other in specs if other is not spec]
        request = supervisor_pb2.ApplyServiceRequest(spec=spec, dry_run=True, beside=others)
        try:
            answers.append(admin.read(stub.ApplyService, request))
        except InvalidRequest as error:
            at = f"{spec.name}." if others else ""
            problems += [replace(problem, path=at + problem.path) for problem in error.problems]
    if problems:
        names = ", ".join(spec.name for spec in specs)
        raise InvalidRequest(f"The declaration of {names} cannot be used; nothing was declared.", problems)
    return answers


def _applied(name: str, answer: "supervisor_pb2.ApplyServiceResponse", *, dry_run: bool) -> str:
    if dry_run:
        return f"{name} can be applied" + ("; it would change nothing" if answer.unchanged else "")
    state = "unchanged, at" if answer.unchanged else "declared, at"
    return f"{name} is {state} version {answer.service.version}"


def wait_ready(admin: "Admin", name: str, version: int, *, quiet: bool) -> "supervisor_pb2.Service":
    """Wait until as many instances of this version as declared take traffic.

    Fails: `Unavailable` with what holds it back, when the command's time is over.
    """
    import tenacity
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from sidecar.cli.progress import working
    from sidecar.cli.tables import instances_text

    stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
    with working(f"Waiting for {name}", quiet=quiet) as tell:

        def look() -> supervisor_pb2.Service:
            answer = admin.read(stub.ListServices, supervisor_pb2.ListServicesRequest())
            service = next((item for item in answer.services if item.spec.name == name), None)
            if service is None:
                raise NotFound(f"{name} is no longer declared: somebody stopped it meanwhile.")
            ready = sum(item.ready and item.spec_version >= version for item in service.instances)
            tell(f"{ready}/{service.spec.instances_min} ready; {instances_text(service).plain}")
            if ready < service.spec.instances_min:
                held = instances_text(service).plain or "no instance is placed"
                raise Unavailable(f"{name} is declared, but was not ready in time: {held}")
            return service

        return tenacity.Retrying(
            stop=tenacity.stop_after_delay(admin.left_s()),
            wait=tenacity.wait_fixed(0.1),
            retry=tenacity.retry_if_exception_type(Unavailable),
            reraise=True,
        )(look)


@services_app.command("stop")
def stop(
    name: ServiceName,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the declaration for a later restart.")] = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Stop a service on all hosts and, unless kept, forget its declaration.

    Examples:

      trellis services stop echo --keep

      trellis services restart echo     # starts it again
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
        # Without --keep a repeated stop would find nothing and report that as a failure.
        admin.write(
            stub.StopService, supervisor_pb2.StopServiceRequest(name=name, keep=keep), repeatable=keep
        )
    if json:
        print_json({"service": name, "stopped": True, "kept": keep})
    else:
        say(f"{name} is stopping on all hosts" + ("; its declaration is kept" if keep else ""))


@services_app.command("restart")
def restart(
    name: ServiceName,
    *,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Restart the instances of a service one after the other, or start a stopped one.

    Example: trellis services restart echo
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    with Admin(settings, timeout) as admin:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
        admin.write(stub.RestartService, supervisor_pb2.RestartServiceRequest(name=name), repeatable=False)
    if json:
        print_json({"service": name, "restarting": True})
    else:
        say(f"{name} is restarting; trellis services list shows its instances")


@services_app.command("logs")
def logs(
    name: ServiceName,
    *,
    host: Annotated[str, typer.Option("--host", help="Only this host; left out: all.")] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="Newest lines of each.")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """What the instances of a service printed.

    Examples:

      trellis services logs echo -n 20

      trellis services logs reporter --follow
    """
    from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say

    request = supervisor_pb2.ReadLogsRequest(service=name, host=host, lines=lines, follow=follow)
    with Admin(settings, timeout) as admin:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(admin.channel)
        for answer in admin.stream(stub.ReadLogs, request, endless=follow):
            text = answer.line.decode(errors="replace")
            if json:
                print_json({"instance": answer.instance, "line": text}, line=True)
            else:
                say(f"{answer.instance:<20} {text}")
