"""What makes a service declaration acceptable; every problem is reported at once.

Checked when a declaration is submitted, on the leader, from the declarations
alone. Whether a host has the program is that host's question
(sidecar.supervisor.process.check_command).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from mesh import limits
from mesh.errors import Problem
from mesh.ids import NAME_PATTERN, ServiceName
from mesh.state.service import Probe, ProbeKind, Restart, ServiceMode, ServiceSpec

GRACE_MS_MAX: Final = 600_000
PROBE_INTERVAL_MS_MIN: Final = 100
PROBE_TIME_MS_MAX: Final = 600_000
PROBE_COUNT_MAX: Final = 100
RESTART_DELAY_MS_MAX: Final = 3_600_000
#: Below this not even the launcher runs under an address-space limit.
MEMORY_BYTES_MIN: Final = 16 * limits.MIB
COMMAND_BYTES_MAX: Final = 32 * limits.KIB
DEPENDENCIES_MAX: Final = 32
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = "TRELLIS_"


def check_spec(spec: ServiceSpec, others: Collection[ServiceSpec]) -> tuple[Problem, ...]:
    """Everything wrong with *spec* beside the services declared already.

    `others` may contain an earlier version of the same service; it is left out.
    """
    declared = {other.name: other for other in others if other.name != spec.name}
    return (
        *_check_name(spec, declared),
        *_check_command(spec.command, "command"),
        *_check_directory(spec),
        *_check_instances(spec),
        *_check_environment(spec.environment),
        *_check_probes(spec),
        *_check_restart(spec.restart),
        *_check_resources(spec),
        *_check_dependencies(spec, declared),
        *_check_routes(spec, declared),
    )


def find_cycle(spec: ServiceSpec, others: Mapping[ServiceName, ServiceSpec]) -> tuple[ServiceName, ...]:
    """The names from *spec* along `depends_on` back to it; empty when there is no way back."""
    trail: list[tuple[ServiceName, Iterator[ServiceName]]] = [(spec.name, iter(spec.depends_on))]
    seen: set[ServiceName] = set()
    while trail:
        following = next(trail[-1][1], None)
        if following is None:
            trail.pop()
        elif following == spec.name:
            return (*(name for name, _ in trail), spec.name)
        elif following not in seen and following in others:
            seen.add(following)
            trail.append((following, iter(others[following].depends_on)))
    return ()


def dependencies_first(specs: Sequence[ServiceSpec]) -> tuple[ServiceSpec, ...]:
    """The same, each after those of them that it depends on; as given where they go round in a circle."""
    named = {spec.name: spec for spec in specs}
    order = TopologicalSorter({name: spec.depends_on for name, spec in named.items()})
    try:
        return tuple(named[name] for name in order.static_order() if name in named)
    except CycleError:
        return tuple(specs)


def _check_name(spec: ServiceSpec, declared: Mapping[ServiceName, ServiceSpec]) -> Iterator[Problem]:
    if not NAME_PATTERN.fullmatch(spec.name) or len(spec.name) > limits.NAME_CHARS_MAX:
        yield Problem(
            "name",
            f"{spec.name[: limits.NAME_CHARS_MAX]!r} is not a name: small letters, digits and single hyphens,"
            f" a letter first, at most {limits.NAME_CHARS_MAX} characters",
            "echo",
        )
    if len(declared) >= limits.SERVICES_MAX:
        yield Problem(
            "name", f"{limits.SERVICES_MAX} services are declared, the most there may be", "remove one first"
        )


def _check_command(command: tuple[str, ...], path: str) -> Iterator[Problem]:
    example = '["/usr/bin/python3", "-m", "services.echo.main"]'
    if not command or not command[0]:
        yield Problem(path, "is empty: name the program to run and its arguments", example)
    if any("\0" in word for word in command):
        yield Problem(path, "holds a NUL character, which no program can be given", example)
    if sum(len(word.encode()) + 1 for word in command) > COMMAND_BYTES_MAX:
        yield Problem(path, f"is longer than {COMMAND_BYTES_MAX} bytes: put the rest into a file", example)


def _check_directory(spec: ServiceSpec) -> Iterator[Problem]:
    if spec.directory and (not spec.directory.startswith("/") or "\0" in spec.directory):
        yield Problem("directory", f"{spec.directory!r} is not an absolute path", "/srv/echo")


def _check_instances(spec: ServiceSpec) -> Iterator[Problem]:
    most = limits.INSTANCES_PER_SERVICE_MAX
    if not 1 <= spec.instances_min <= most:
        yield Problem("instances_min", f"{spec.instances_min} is not from 1 to {most}", "1")
    if not spec.instances_min <= spec.instances_max <= most:
        yield Problem(
            "instances_max",
            f"{spec.instances_max} is not from instances_min ({spec.instances_min}) to {most}",
            str(max(1, min(spec.instances_min, most))),
        )
    if spec.mode is ServiceMode.ACTIVE_STANDBY and (spec.instances_min, spec.instances_max) != (1, 1):
        yield Problem(
            "mode",
            "active-standby runs one instance: both bounds must be 1",
            "active-active",
        )


def _check_environment(environment: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    size, seen = 0, set()
    for name, value in environment:
        size += len(name.encode()) + len(value.encode()) + 2
        path = f"environment.{name}"
        if not _VARIABLE.fullmatch(name):
            yield Problem(path, "is not a variable's name: letters, digits and _", 'LEVEL = "info"')
        elif "\0" in value:
            yield Problem(path, "holds a NUL character, which no program can be given", 'LEVEL = "info"')
        elif name.startswith(_RESERVED):
            yield Problem(path, f"names beginning with {_RESERVED} are set by Trellis", 'MY_LEVEL = "info"')
        if name in seen:
            yield Problem(path, "is set twice", "set it once")
        seen.add(name)
    if size > limits.ENVIRONMENT_BYTES_MAX:
        yield Problem(
            "environment",
            f"{size} bytes, at most {limits.ENVIRONMENT_BYTES_MAX}: put large values into a document",
            'LEVEL = "info"',
        )


def _check_probes(spec: ServiceSpec) -> Iterator[Problem]:
    probes = spec.probes
    for name, probe in (
        ("startup", probes.startup),
        ("readiness", probes.readiness),
        ("liveness", probes.liveness),
    ):
        if probe is not None:
            yield from _check_probe(probe, f"probes.{name}")
    yield from _check_range(
        "probes.startup_deadline_ms", probes.startup_deadline_ms, 1, PROBE_TIME_MS_MAX, "30000"
    )


def _check_probe(probe: Probe, path: str) -> Iterator[Problem]:
    least, most = PROBE_INTERVAL_MS_MIN, PROBE_TIME_MS_MAX
    yield from _check_range(f"{path}.interval_ms", probe.interval_ms, least, most, "1000")
    yield from _check_range(f"{path}.timeout_ms", probe.timeout_ms, 1, most, "1000")
    yield from _check_range(f"{path}.rise", probe.rise, 1, PROBE_COUNT_MAX, "1")
    yield from _check_range(f"{path}.fall", probe.fall, 1, PROBE_COUNT_MAX, "3")
    if probe.kind is ProbeKind.EXEC:
        yield from _check_command(probe.command, f"{path}.command")
    elif probe.command:
        yield Problem(f"{path}.command", f"only exec probes run one, not {probe.kind.value}", 'kind = "exec"')
    is_path = probe.target.isascii() and probe.target.isprintable() and " " not in probe.target
    if probe.kind is ProbeKind.HTTP and probe.target and not (is_path and probe.target.startswith("/")):
        yield Problem(f"{path}.target", f"{probe.target!r} is not the path of a URL", "/healthz")
    if "\0" in probe.target and probe.kind is not ProbeKind.HTTP:
        yield Problem(f"{path}.target", "holds a NUL character", "trellis.echo.v1.EchoService")
    if len(probe.target) > limits.DOCUMENT_NAME_CHARS_MAX:
        yield Problem(f"{path}.target", "is too long", "/healthz")


def _check_restart(restart: Restart) -> Iterator[Problem]:
    yield from _check_range("restart.delay_ms_min", restart.delay_ms_min, 1, RESTART_DELAY_MS_MAX, "100")
    yield from _check_range(
        "restart.delay_ms_max", restart.delay_ms_max, restart.delay_ms_min, RESTART_DELAY_MS_MAX, "30000"
    )
    yield from _check_range("restart.stable_ms", restart.stable_ms, 0, RESTART_DELAY_MS_MAX, "10000")


def _check_resources(spec: ServiceSpec) -> Iterator[Problem]:
    yield from _check_range("grace_ms", spec.grace_ms, 0, GRACE_MS_MAX, "5000")
    if spec.memory_bytes_max and spec.memory_bytes_max < MEMORY_BYTES_MIN:
        yield Problem(
            "memory_bytes_max",
            f"{spec.memory_bytes_max} is not at least {MEMORY_BYTES_MIN}, nor 0 for no limit",
            str(256 * limits.MIB),
        )


def _check_dependencies(spec: ServiceSpec, declared: Mapping[ServiceName, ServiceSpec]) -> Iterator[Problem]:
    if len(spec.depends_on) > DEPENDENCIES_MAX:
        yield Problem("depends_on", f"has more than {DEPENDENCIES_MAX} names", '["database"]')
    for name in spec.depends_on:
        if name != spec.name and name not in declared:
            known = ", ".join(sorted(declared)[:5]) or "none"
            yield Problem(
                "depends_on", f"no service {name!r} is declared (known: {known}): apply it first", '["echo"]'
            )
    cycle = find_cycle(spec, declared)
    if cycle:
        yield Problem("depends_on", f"goes round in a circle: {' -> '.join(cycle)}", "leave one of them out")


def _check_routes(spec: ServiceSpec, declared: Mapping[ServiceName, ServiceSpec]) -> Iterator[Problem]:
    if spec.grpc_services and not spec.routed:
        yield Problem("grpc_services", "only a routed service takes northbound calls", "routed = true")
    restricted = [policy.path for policy in spec.methods if policy.roles] if spec.routed else []
    if restricted:
        yield Problem(
            "methods",
            f"the contract lets only certain roles call {', '.join(restricted[:3])}, and who makes a"
            " northbound call is not known in this version: the rule would not be kept",
            "leave roles out of the policy, and have the service ask its callers who they are",
        )
    if any("\0" in service for service in spec.grpc_services):
        yield Problem("grpc_services", "holds a NUL character", "trellis.echo.v1.EchoService")
    taken = {service: other.name for other in declared.values() for service in other.grpc_services}
    for service in spec.grpc_services:
        if service in taken:
            yield Problem(
                "grpc_services",
                f"{service} is routed to {taken[service]} already",
                "trellis.echo.v1.EchoService",
            )


def _check_range(path: str, value: int, least: int, most: int, example: str) -> Iterator[Problem]:
    if not least <= value <= most:
        yield Problem(path, f"{value} is not from {least} to {most}", example)
