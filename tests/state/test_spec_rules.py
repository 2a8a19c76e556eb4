"""Every rule of a declaration, each with its field, and all of them at once."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import limits
from mesh.ids import ServiceName
from mesh.state.service import MethodPolicy, Probe, ProbeKind, Probes, Restart, ServiceMode, ServiceSpec
from mesh.state.spec_rules import check_spec, dependencies_first, find_cycle

GOOD = ServiceSpec(ServiceName("echo"), ("/bin/echo",), routed=True, grpc_services=("a.v1.Echo",))


def named(name: str, *depends_on: str) -> ServiceSpec:
    return ServiceSpec(
        ServiceName(name), ("/bin/true",), depends_on=tuple(ServiceName(other) for other in depends_on)
    )


def probed(**changed: object) -> dict[str, object]:
    probe = replace(Probe(ProbeKind.TCP), **changed)  # type: ignore[arg-type] # fields by name
    return {"probes": Probes(liveness=probe)}


def test_a_good_declaration_has_no_problem() -> None:
    """Goal: the rules refuse no sound declaration, nor one for being its own rival.

    Method: alone and beside itself.
    """
    assert check_spec(GOOD, ()) == ()
    assert check_spec(GOOD, (GOOD,)) == (), "an earlier version of itself is no rival"


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"name": "Echo"}, "name"),
        ({"name": "e" * 64}, "name"),
        ({"name": ""}, "name"),
        ({"command": ()}, "command"),
        ({"command": ("",)}, "command"),
        ({"command": ("a\0",)}, "command"),
        ({"command": ("a", "x" * 40_000)}, "command"),
        ({"directory": "srv"}, "directory"),
        ({"instances_min": 0}, "instances_min"),
        ({"instances_min": 2, "instances_max": 1}, "instances_max"),
        ({"instances_max": 33}, "instances_max"),
        ({"mode": ServiceMode.ACTIVE_STANDBY, "instances_max": 2}, "mode"),
        ({"environment": (("", "x"),)}, "environment."),
        ({"environment": (("A.B", "x"),)}, "environment.A.B"),
        ({"environment": (("A", "\0"),)}, "environment.A"),
        ({"environment": (("TRELLIS_HOST", "x"),)}, "environment.TRELLIS_HOST"),
        ({"environment": (("A", "1"), ("A", "2"))}, "environment.A"),
        ({"environment": (("A", "x" * limits.ENVIRONMENT_BYTES_MAX),)}, "environment"),
        (probed(interval_ms=99), "probes.liveness.interval_ms"),
        (probed(timeout_ms=0), "probes.liveness.timeout_ms"),
        (probed(rise=0), "probes.liveness.rise"),
        (probed(fall=101), "probes.liveness.fall"),
        (probed(kind=ProbeKind.EXEC), "probes.liveness.command"),
        (probed(command=("x",)), "probes.liveness.command"),
        (probed(kind=ProbeKind.HTTP, target="healthz"), "probes.liveness.target"),
        (probed(kind=ProbeKind.HTTP, target="/a b\r\n"), "probes.liveness.target"),
        (probed(kind=ProbeKind.GRPC, target="x" * 256), "probes.liveness.target"),
        ({"probes": Probes(startup_deadline_ms=0)}, "probes.startup_deadline_ms"),
        ({"restart": Restart(delay_ms_min=0)}, "restart.delay_ms_min"),
        ({"restart": Restart(delay_ms_min=200, delay_ms_max=100)}, "restart.delay_ms_max"),
        ({"restart": Restart(stable_ms=-1)}, "restart.stable_ms"),
        ({"grace_ms": -1}, "grace_ms"),
        ({"memory_bytes_max": 1}, "memory_bytes_max"),
        ({"depends_on": ("nobody",)}, "depends_on"),
        ({"depends_on": ("echo",)}, "depends_on"),
        ({"routed": False}, "grpc_services"),
    ],
)
def test_each_rule_names_its_field_and_a_correct_example(changed: dict[str, object], path: str) -> None:
    """Goal: an operator can mend a file without the source.

    Method: one wrong field at a time; exactly one problem.
    """
    problems = check_spec(replace(GOOD, **changed), ())  # type: ignore[arg-type] # fields by name
    assert [problem.path for problem in problems] == [path]
    assert problems[0].problem
    assert problems[0].example


def test_all_problems_are_reported_at_once() -> None:
    """Goal: no mending in rounds. Method: three wrong fields."""
    bad = replace(GOOD, command=(), grace_ms=-1, instances_min=0)
    assert [problem.path for problem in check_spec(bad, ())] == ["command", "instances_min", "grace_ms"]


def test_too_many_dependencies_are_refused() -> None:
    """Goal: the search for cycles stays bounded. Method: one name more than the bound."""
    others = [named(f"s{number}") for number in range(33)]
    many = replace(GOOD, depends_on=tuple(other.name for other in others))
    assert [problem.problem for problem in check_spec(many, others)] == ["has more than 32 names"]


def test_services_declared_together_come_after_what_they_depend_on() -> None:
    """Goal: no step of applying them is refused. Method: names of the file and others, against the order."""
    specs = (named("c", "b", "a"), named("b", "a", "outside"), named("a"))
    assert [spec.name for spec in dependencies_first(specs)] == ["a", "b", "c"]
    circle = (named("b", "a"), named("a", "b"))
    assert dependencies_first(circle) == circle


def test_a_cycle_is_told_in_full() -> None:
    """Goal: the author sees which edge to cut. Method: a circle of three with a dead end beside it."""
    others = (named("b", "c", "d"), named("c", "a"), named("d"))
    (problem,) = check_spec(named("a", "b"), others)
    assert problem.problem == "goes round in a circle: a -> b -> c -> a"


def test_a_grpc_service_has_one_destination() -> None:
    """Goal: no request goes to either of two by chance.

    Method: a second service with the same name of a gRPC service.
    """
    rival = replace(GOOD, name=ServiceName("other"))
    (problem,) = check_spec(GOOD, (rival,))
    assert problem.problem == "a.v1.Echo is routed to other already"


def test_a_rule_about_callers_that_would_not_be_kept_is_refused() -> None:
    """Goal: nobody believes to be protected who is not. Method: a method for operators, routed and not."""
    path = "/a.v1.Echo/Delete"
    restricted = replace(
        GOOD, methods=(MethodPolicy(path, roles=("operator",)), MethodPolicy("/a.v1.Echo/Get"))
    )
    (problem,) = check_spec(restricted, ())
    assert problem.path == "methods"
    assert path in problem.problem
    assert "Get" not in problem.problem
    assert check_spec(replace(restricted, routed=False, grpc_services=()), ()) == ()


def test_there_is_a_most_of_services() -> None:
    """Goal: bounded, and full does not mean frozen. Method: a full table, a new and a known name."""
    others = [named(f"s{number}") for number in range(limits.SERVICES_MAX)]
    assert [problem.path for problem in check_spec(GOOD, others)] == ["name"]
    assert check_spec(named("s7"), others) == (), "a change of one that is declared adds none"


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_a_cycle_is_found_when_a_naive_walk_finds_one(edges: dict[str, list[str]]) -> None:
    """Goal: the search is right on every small graph.

    Method: random edges against reachability; each told edge exists.
    """
    specs = {ServiceName(name): named(name, *edges.get(name, ())) for name in "abcdef"}
    reach = set(edges.get("a", ()))
    for _ in range(6):
        reach |= {after for name in reach for after in edges.get(name, ())}
    cycle = find_cycle(specs[ServiceName("a")], specs)
    assert bool(cycle) == ("a" in reach)
    for one, following in itertools.pairwise(cycle):
        assert following in specs[one].depends_on
