"""A declaration file becomes specs, or is refused with every problem in its own words."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from trellis.echo.v1 import echo_pb2

from mesh.errors import InvalidRequest, Problem, SettingsError
from mesh.settings import load_declaration, load_declarations
from mesh.state.service import ProbeKind, ServiceMode

ECHO = """
[service]
name = "echo"
command = ["/usr/bin/echo-server", "--quiet"]
instances = { min = 2, max = 3 }
memory = "256MiB"
grace = "1.5s"
env = { LEVEL = "info", A = "1" }
depends_on = ["database"]
[service.restart]
when = "on-failure"
delay_min = "50ms"
[service.probes]
readiness = { kind = "grpc", interval = "250ms", timeout = "1s", fall = 2 }
liveness = { kind = "exec", command = ["/bin/true"] }
startup_deadline = "1m"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "service.toml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> dict[str, Problem]:
    with pytest.raises(InvalidRequest) as refused:
        load_declarations(write(folder, text))
    return {problem.path: problem for problem in refused.value.problems}


def test_units_and_tables_become_the_spec(tmp_path: Path) -> None:
    """Goal: what a person wrote is what runs. Method: a full file, field by field."""
    spec = load_declaration(write(tmp_path, ECHO))
    assert (spec.instances_min, spec.instances_max) == (2, 3)
    assert spec.memory_bytes_max == 256 << 20
    assert spec.grace_ms == 1500
    assert spec.environment == (("A", "1"), ("LEVEL", "info"))
    assert spec.restart.delay_ms_min == 50
    assert spec.probes.readiness is not None
    assert (spec.probes.readiness.interval_ms, spec.probes.readiness.fall) == (250, 2)
    assert spec.probes.liveness is not None
    assert spec.probes.liveness.kind is ProbeKind.EXEC
    assert spec.probes.startup_deadline_ms == 60_000
    assert not spec.routed


def test_methods_are_read_from_a_module(tmp_path: Path) -> None:
    """Goal: routes need no second list. Method: the echo contract's module."""
    spec = load_declaration(write(tmp_path, ECHO + '[service.grpc]\nmodule = "trellis.echo.v1.echo_pb2"\n'))
    assert spec.routed
    assert spec.grpc_services == ("trellis.echo.v1.EchoService",)
    idempotent = [method.path for method in spec.methods if method.idempotent]
    assert idempotent == ["/trellis.echo.v1.EchoService/Echo"]


def test_methods_are_read_from_a_descriptor_file_beside_the_declaration(tmp_path: Path) -> None:
    """Goal: services in other languages too, wherever the command is called. Method: a relative path."""
    files = FileDescriptorSet()
    echo_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    (tmp_path / "echo.binpb").write_bytes(files.SerializeToString())
    spec = load_declaration(write(tmp_path, ECHO + '[service.grpc]\ndescriptor_set = "echo.binpb"\n'))
    assert len(spec.methods) == 3


def test_a_contract_with_roles_is_refused_with_the_methods(tmp_path: Path) -> None:
    """Goal: a rule that is not kept is refused before it is sent. Method: a contract for operators only."""
    found = problems_of(tmp_path, ECHO + '[service.grpc]\nmodule = "trellis.cluster.v1.cluster_pb2"\n')
    assert set(found) == {"service.grpc.methods"}
    assert "/trellis.cluster.v1.ClusterService/DrainHost" in found["service.grpc.methods"].problem
    assert "leave roles out" in found["service.grpc.methods"].example


def test_several_services_may_stand_in_one_file(tmp_path: Path) -> None:
    """Goal: an application is one file. Method: two; asking for one is refused."""
    path = write(
        tmp_path,
        """
        [[service]]
        name = "a"
        command = ["/bin/a"]
        [[service]]
        name = "b"
        command = ["/bin/b"]
        mode = "active-standby"
        """,
    )
    assert [spec.mode for spec in load_declarations(path)] == [
        ServiceMode.ACTIVE_ACTIVE,
        ServiceMode.ACTIVE_STANDBY,
    ]
    with pytest.raises(InvalidRequest, match="one is wanted"):
        load_declaration(path)


def test_wrong_keys_and_types_are_all_reported(tmp_path: Path) -> None:
    """Goal: one round of mending. Method: eight mistakes in two services."""
    found = problems_of(
        tmp_path,
        """
        [[service]]
        name = "Echo"
        command = []
        comand = ["/bin/a"]
        instances = "3"
        memory = 256
        [service.probes]
        readiness = { kind = "gprc", interval = 1 }
        [[service]]
        name = "b"
        command = "/bin/b --flag"
        """,
    )
    assert set(found) == {
        "service[0].name",
        "service[0].command",
        "service[0].comand",
        "service[0].instances",
        "service[0].memory",
        "service[0].probes.readiness.kind",
        "service[0].probes.readiness.interval",
        "service[1].command",
    }
    assert "did you mean 'command'?" in found["service[0].comand"].problem
    assert found["service[0].probes.readiness.interval"].example == 'interval = "1s"'


def test_rules_of_a_spec_are_told_in_the_words_of_the_file(tmp_path: Path) -> None:
    """Goal: nobody has to know the wire names. Method: one break per rule, the paths of the file."""
    found = problems_of(
        tmp_path,
        """
        [service]
        name = "b"
        command = []
        instances = { min = 4, max = 2 }
        memory = "1KiB"
        env = { TRELLIS_X = "1" }
        [service.grpc]
        module = "trellis.nothing_pb2"
        [service.probes]
        readiness = { kind = "tcp", interval = "1ms" }
        """,
    )
    assert set(found) == {
        "service.command",
        "service.instances.max",
        "service.memory",
        "service.env.TRELLIS_X",
        "service.grpc.module",
        "service.probes.readiness.interval",
    }


@pytest.mark.parametrize(
    ("grpc", "path"),
    [
        ('descriptor_set = "missing.binpb"', "service.grpc.descriptor_set"),
        ('descriptor_set = "service.toml"', "service.grpc.descriptor_set"),
        ('module = "mesh.errors"', "service.grpc.module"),
        ('module = "trellis.echo.v1.echo_pb2"\nservices = ["a.B"]', "service.grpc.services"),
        ("", "service.grpc"),
        ('module = "a"\ndescriptor_set = "b"', "service.grpc"),
    ],
)
def test_a_contract_that_cannot_be_read_is_refused(tmp_path: Path, grpc: str, path: str) -> None:
    """Goal: no service without its routes. Method: missing, wrong, contradictory sources."""
    assert set(problems_of(tmp_path, f"{ECHO}[service.grpc]\n{grpc}\n")) == {path}


def test_a_file_without_a_service_is_refused(tmp_path: Path) -> None:
    """Goal: an empty file declares nothing silently. Method: empty, and no TOML."""
    assert set(problems_of(tmp_path, "")) == {"service"}
    with pytest.raises(SettingsError, match="is not TOML"):
        load_declaration(write(tmp_path, "[service"))


def test_a_file_without_a_service_tells_its_unknown_keys_too(tmp_path: Path) -> None:
    """Goal: a plural in the heading is found. Method: [[services]]."""
    problems = problems_of(tmp_path, '[[services]]\nname = "echo"\n')
    assert set(problems) == {"service", "services"}


def test_a_missing_file_is_told_with_what_could_stand_in_it(tmp_path: Path) -> None:
    """Goal: the first declaration is easy. Method: no file."""
    with pytest.raises(SettingsError) as refused:
        load_declarations(tmp_path / "echo.toml")
    assert "[service]" in refused.value.problems[0].example


def test_one_name_is_declared_once_in_a_file(tmp_path: Path) -> None:
    """Goal: the second does not silently win. Method: the same table twice."""
    once = '[[service]]\nname = "echo"\ncommand = ["sleep", "9"]\n'
    assert "service[1].name" in problems_of(tmp_path, once + once)
