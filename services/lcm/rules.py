"""What makes a deployment acceptable; every problem is reported at once.

The rules of services (mesh.state.spec_rules) hold for workloads too, and are
asked here, so that the mesh does not refuse later what was accepted before.

Ambiguity: "a-b" + "c" and "a" + "b-c" would be one service. The reconciler marks
what it declares and touches nothing marked otherwise: the second deployment fails, and says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mesh.errors import InvalidRequest, Problem
from mesh.ids import NAME_PATTERN, ServiceName
from mesh.state.service import ServiceSpec
from mesh.state.spec_rules import check_spec
from services.lcm.model import (
    LABEL_CHARS_MAX,
    LABELS_MAX,
    NAME_CHARS_MAX,
    PAGE_MAX,
    RESERVED_VARIABLES,
    WORKLOADS_MAX,
    DeploymentSpec,
    service_name,
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What workloads may be. The mesh runs them as its own user on every host: who may deploy
    a program may do there what that user may.
    """

    #: Programs (the first word of a command); None: any.
    programs: frozenset[str] | None = None


ANY: Final = Allowed()


def check_deployment(spec: DeploymentSpec, allowed: Allowed, found: tuple[Problem, ...] = ()) -> None:
    """Fails: `InvalidRequest` with *found* and everything wrong with *spec*."""
    problems = (*found, *_check_names(spec), *_check_labels(spec), *_check_workloads(spec, allowed))
    refuse(problems)


def refuse(problems: tuple[Problem, ...]) -> None:
    """Fails: `InvalidRequest`, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidRequest(f"The request cannot be carried out: {count}.", problems)


def problems_of_page(size: int) -> Iterator[Problem]:
    """What is wrong with a page's size."""
    if size > PAGE_MAX:
        yield Problem("page_size", f"{size} is more than {PAGE_MAX}", "100")


def problems_of_text(path: str, *texts: str) -> tuple[Problem, ...]:
    """What is wrong with texts that are looked up: a name that nobody has is none."""
    return (
        (Problem(path, "holds a NUL character, which no text here has", "shop"),)
        if "\0" in "".join(texts)
        else ()
    )


def service_specs(spec: DeploymentSpec) -> tuple[ServiceSpec, ...]:
    """The workloads as services of the mesh, by their names there."""
    return tuple(
        replace(
            workload,
            name=ServiceName(service_name(spec.name, workload.name)),
            depends_on=tuple(ServiceName(service_name(spec.name, each)) for each in workload.depends_on),
        )
        for workload in spec.workloads
    )


def _check_names(spec: DeploymentSpec) -> Iterator[Problem]:
    yield from _check_name(spec.name, "spec.name", "shop")
    seen: set[str] = set()
    for number, workload in enumerate(spec.workloads):
        path = f"spec.workloads[{number}].name"
        yield from _check_name(workload.name, path, "api")
        if workload.name in seen:
            yield Problem(path, f"{workload.name!r} is there twice", f"{workload.name}-2")
        seen.add(workload.name)
    if not 1 <= len(spec.workloads) <= WORKLOADS_MAX:
        yield Problem(
            "spec.workloads",
            f"has {len(spec.workloads)} workloads, not 1 to {WORKLOADS_MAX}",
            '[{name: "api"}]',
        )


def _check_name(name: str, path: str, example: str) -> Iterator[Problem]:
    if not NAME_PATTERN.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        yield Problem(
            path,
            f"{name[:NAME_CHARS_MAX]!r} is not a name: small letters, digits and single hyphens,"
            f" a letter first, at most {NAME_CHARS_MAX} characters",
            example,
        )


def _check_labels(spec: DeploymentSpec) -> Iterator[Problem]:
    if len(spec.labels) > LABELS_MAX:
        yield Problem("spec.labels", f"has {len(spec.labels)} labels, more than {LABELS_MAX}")
    for key, value in spec.labels:
        if not key or max(len(key), len(value)) > LABEL_CHARS_MAX or "\0" in key + value:
            problem = f"is not 1 to {LABEL_CHARS_MAX} characters with a value of at most as many"
            yield Problem(f"spec.labels.{key[:LABEL_CHARS_MAX]}", problem, 'tier = "web"')


def _check_workloads(spec: DeploymentSpec, allowed: Allowed) -> Iterator[Problem]:
    workloads = spec.workloads[: WORKLOADS_MAX + 1]  # what comes after too many is not looked at
    for number, workload in enumerate(workloads):
        at = f"spec.workloads[{number}]."
        for problem in check_spec(workload, workloads):
            if problem.path != "name":
                yield replace(problem, path=at + problem.path)
        for variable, _ in workload.environment:
            if variable.startswith(RESERVED_VARIABLES):
                sentence = f"names beginning with {RESERVED_VARIABLES} are set by the reconciler"
                yield Problem(f"{at}environment.{variable}", sentence, 'LEVEL = "info"')
        if allowed.programs is not None and workload.command and workload.command[0] not in allowed.programs:
            names = ", ".join(sorted(allowed.programs)) or "none"
            yield Problem(
                f"{at}command",
                f"{workload.command[0]!r} may not be deployed here, only: {names}",
            )
