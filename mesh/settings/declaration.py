"""Service declarations as an operator writes them, in TOML.

    [service]                       # or [[service]], one table each
    name = "echo"
    command = ["/usr/bin/python3", "-m", "services.echo.main"]
    instances = { min = 3, max = 3 }    # or just 3
    routed = true
    [service.grpc]
    module = "trellis.echo.v1.echo_pb2"
    [service.probes]
    readiness = { kind = "grpc", interval = "1s" }

Durations and sizes carry their unit. What a declaration must satisfy beside
its form is `mesh.state.spec_rules`; it is asked here too, so that the file's
problems come all at once, in the file's own words.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mesh.errors import InvalidRequest, Problem
from mesh.ids import ServiceName
from mesh.settings.descriptors import read_policies
from mesh.settings.load import read_toml
from mesh.settings.model import Section
from mesh.settings.problems import example_of, problems_of
from mesh.settings.values import AbsolutePath, DurationMs, Name, SizeBytes, Words
from mesh.state.service import (
    MethodPolicy,
    Probe,
    ProbeKind,
    Probes,
    Restart,
    RestartWhen,
    ServiceMode,
    ServiceSpec,
)
from mesh.state.spec_rules import check_spec

_SMALLEST = '[service] name = "echo", command = ["/usr/bin/echo-server"]'


def _range_of(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": value, "max": value}
    if not isinstance(value, dict | InstancesTable):
        raise ValueError(f"must be a whole number or a table with min and max, not {value!r}")
    return value


class InstancesTable(Section):
    """How many instances: from `min`, kept always, to `max`."""

    min: Annotated[int, Field(ge=1, examples=[2])]
    max: Annotated[int, Field(ge=1, examples=[3])]


class ProbeTable(Section):
    """One periodic question to an instance."""

    kind: Annotated[Literal["grpc", "http", "tcp", "exec", "push"], Field(examples=["grpc"])]
    interval: Annotated[DurationMs, Field(examples=["1s"])] = 1000
    timeout: Annotated[DurationMs, Field(examples=["1s"])] = 1000
    rise: Annotated[int, Field(examples=[1])] = 1
    fall: Annotated[int, Field(examples=[3])] = 3
    #: grpc: health service name; http: path.
    target: Annotated[str, Field(examples=["/healthz"])] = ""
    command: Annotated[Words, Field(examples=[["/usr/bin/check", "--quick"]])] = ()

    def probe(self) -> Probe:
        return Probe(
            ProbeKind(self.kind), self.interval, self.timeout, self.rise, self.fall, self.target, self.command
        )


_PROBE = {"kind": "grpc", "interval": "1s"}


class ProbesTable(Section):
    """Startup gates the other two; readiness decides traffic; liveness decides restarts."""

    startup: Annotated[ProbeTable | None, Field(examples=[_PROBE])] = None
    readiness: Annotated[ProbeTable | None, Field(examples=[_PROBE])] = None
    liveness: Annotated[ProbeTable | None, Field(examples=[_PROBE])] = None
    startup_deadline: Annotated[DurationMs, Field(examples=["30s"])] = 30_000

    def probes(self) -> Probes:
        asked = (each.probe() if each else None for each in (self.startup, self.readiness, self.liveness))
        startup, readiness, liveness = asked
        return Probes(startup, readiness, liveness, self.startup_deadline)


class RestartTable(Section):
    """When and how soon to start again."""

    when: Annotated[Literal["always", "on-failure", "never"], Field(examples=["always"])] = "always"
    delay_min: Annotated[DurationMs, Field(examples=["100ms"])] = 100
    delay_max: Annotated[DurationMs, Field(examples=["30s"])] = 30_000
    stable: Annotated[DurationMs, Field(examples=["10s"])] = 10_000

    def restart(self) -> Restart:
        return Restart(RestartWhen(self.when), self.delay_min, self.delay_max, self.stable)


class GrpcTable(Section):
    """What is routed to the service, and where the policies of its methods are read from."""

    #: Left out: every service of the descriptors.
    services: Annotated[Words, Field(examples=[["trellis.echo.v1.EchoService"]])] = ()
    #: File that `protoc --include_imports --descriptor_set_out` or `buf build` wrote.
    descriptor_set: Annotated[str, Field(examples=["echo.binpb"])] = ""
    #: Generated Python module, importable where the command runs.
    module: Annotated[str, Field(examples=["trellis.echo.v1.echo_pb2"])] = ""

    @model_validator(mode="after")
    def _one_source(self) -> "GrpcTable":
        if self.descriptor_set and self.module:
            raise ValueError("has both descriptor_set and module; leave one out")
        if not (self.services or self.descriptor_set or self.module):
            raise ValueError("names no services: give services, descriptor_set or module")
        return self


class ServiceTable(Section):
    """[service]"""

    name: Annotated[Name, Field(examples=["echo"])]
    command: Annotated[Words, Field(examples=[["/usr/bin/python3", "-m", "services.echo.main"]])]
    mode: Annotated[Literal["active-active", "active-standby"], Field(examples=["active-active"])] = (
        "active-active"
    )
    instances: Annotated[InstancesTable, BeforeValidator(_range_of), Field(examples=[3])] = InstancesTable(
        min=1, max=1
    )
    directory: Annotated[AbsolutePath | None, Field(examples=["/srv/echo"])] = None
    env: Annotated[dict[str, str], Field(examples=[{"LEVEL": "info"}])] = Field(default_factory=dict)
    user: Annotated[str, Field(examples=["nobody"])] = ""
    probes: ProbesTable = Field(default_factory=ProbesTable)
    restart: RestartTable = Field(default_factory=RestartTable)
    depends_on: Annotated[Words, Field(examples=[["database"]])] = ()
    grace: Annotated[DurationMs, Field(examples=["5s"])] = 5_000
    memory: Annotated[SizeBytes, Field(examples=["256MiB"])] = 0
    #: Left out: routed when there is a [service.grpc].
    routed: Annotated[bool | None, Field(examples=[True])] = None
    #: It is given DATABASE_URL, which leads to the cluster's database.
    database: Annotated[bool, Field(examples=[True])] = False
    grpc: GrpcTable | None = None

    def spec(self, methods: tuple[MethodPolicy, ...], grpc_services: tuple[str, ...]) -> ServiceSpec:
        return ServiceSpec(
            name=ServiceName(self.name),
            command=self.command,
            mode=ServiceMode(self.mode),
            instances_min=self.instances.min,
            instances_max=self.instances.max,
            directory=str(self.directory or ""),
            environment=tuple(sorted(self.env.items())),
            user=self.user,
            probes=self.probes.probes(),
            restart=self.restart.restart(),
            depends_on=tuple(ServiceName(name) for name in self.depends_on),
            grace_ms=self.grace,
            memory_bytes_max=self.memory,
            routed=self.grpc is not None if self.routed is None else self.routed,
            grpc_services=grpc_services,
            methods=methods,
            database=self.database,
        )


class DeclarationFile(Section):
    """The whole file, with its services as a list."""

    service: Annotated[tuple[ServiceTable, ...], Field(strict=False)]


def load_declaration(path: Path) -> ServiceSpec:
    """The one service that *path* declares. Fails: as `load_declarations`."""
    specs = load_declarations(path)
    if len(specs) > 1:
        names = ", ".join(spec.name for spec in specs)
        raise _refused(path, [Problem("service", f"declares several services ({names}); one is wanted here")])
    return specs[0]


def load_declarations(path: Path) -> tuple[ServiceSpec, ...]:
    """The services that *path* declares, in its order.

    Fails: `SettingsError` when it cannot be read or is not TOML; else
    `InvalidRequest` with every problem, its key path and a correct example.
    """
    raw = read_toml(path, example=_SMALLEST)
    one = isinstance(raw.get("service"), dict)
    tables = {**raw, "service": [raw["service"]]} if one else raw
    if not raw.get("service"):
        wrong_names = [
            Problem(key, "is not a known key; known here: service") for key in raw if key != "service"
        ]
        missing = Problem("service", "is missing: the file declares no service", _SMALLEST)
        raise _refused(path, [missing, *wrong_names])
    try:
        file = DeclarationFile.model_validate(tables)
    except ValidationError as error:
        problems = [*problems_of(error, DeclarationFile), *_empty_commands(tables["service"])]
        raise _refused(path, _unlisted(problems, one)) from error
    found = [_spec(table, path.parent, f"service[{number}]") for number, table in enumerate(file.service)]
    problems = [problem for _, its_problems in found for problem in its_problems]
    problems += _declared_twice(spec.name for spec, _ in found)
    if problems:
        raise _refused(path, _unlisted(problems, one))
    return tuple(spec for spec, _ in found)


def _spec(table: ServiceTable, folder: Path, at: str) -> tuple[ServiceSpec, list[Problem]]:
    methods: tuple[MethodPolicy, ...] = ()
    services: tuple[str, ...] = ()
    problems: list[Problem] = []
    if table.grpc is not None:
        services = table.grpc.services
        try:
            methods, services = read_policies(table.grpc, folder)
        except InvalidRequest as error:
            problems += [replace(each, path=f"{at}.grpc.{each.path}") for each in error.problems]
    spec = table.spec(methods, services)
    # Services it depends on may be declared already: only the leader knows.
    alone = replace(spec, depends_on=())
    problems += [_in_file_words(problem, at) for problem in check_spec(alone, ())]
    return spec, problems


def _empty_commands(tables: object) -> Iterator[Problem]:
    """A rule, told along with wrong keys and types: of such a file no other rule can be looked at yet."""
    for number, table in enumerate(tables if isinstance(tables, list) else ()):
        if isinstance(table, dict) and table.get("command") in ([], [""]):
            problem = "is empty: name the program to run and its arguments"
            example = example_of(ServiceTable, ("command",)) or ""
            yield Problem(f"service[{number}].command", problem, example)


def _declared_twice(names: Iterable[ServiceName]) -> Iterator[Problem]:
    first: dict[ServiceName, int] = {}
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number:
            path = f"service[{number}].name"
            yield Problem(
                path, f"{name!r} is declared by service[{first[name]}] already", f'name = "{name}-2"'
            )


_FILE_WORDS = {
    "instances_min": "instances.min",
    "instances_max": "instances.max",
    "memory_bytes_max": "memory",
    "grpc_services": "grpc.services",
    "methods": "grpc.methods",
}


def _in_file_words(problem: Problem, at: str) -> Problem:
    head, dot, rest = problem.path.partition(".")
    head = {"environment": "env", **_FILE_WORDS}.get(head, head)
    path = f"{head}{dot}{rest}".removesuffix("_ms").replace("_ms_", "_")
    example = example_of(ServiceTable, tuple(path.split("."))) or problem.example
    sentence = problem.problem
    for word, file_word in _FILE_WORDS.items():
        sentence = sentence.replace(word, file_word)
    return Problem(f"{at}.{path}", sentence, example)


def _unlisted(problems: Any, one: bool) -> list[Problem]:
    """With a single [service] table its problems are not numbered."""
    if not one:
        return list(problems)
    return [replace(each, path=each.path.replace("service[0]", "service", 1)) for each in problems]


def _refused(path: Path, problems: list[Problem]) -> InvalidRequest:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InvalidRequest(f"{path} cannot be applied: {count}.", problems)
