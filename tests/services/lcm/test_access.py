"""Who may call the lifecycle manager: the table, the callers' file, and the check on real calls."""

import hashlib
from pathlib import Path

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb

from mesh.errors import Denied, SettingsError
from mesh.identity.table import full_method, methods_of
from mesh.wire.errors import from_rpc_error
from services.lcm.access import TABLE, Caller, Callers, Role, check_allowed, read_callers
from tests.harness.lcm import a_spec, a_workload, to_create
from tests.services.conftest import StartLcm

TOKENS = {"ci": "secret-of-ci", "eye": "secret-of-eye"}


@pytest.fixture
def callers_file(tmp_path: Path) -> Path:
    path = tmp_path / "callers.toml"
    roles = {"ci": "deployer", "eye": "reader"}
    path.write_text(
        "".join(
            f'[caller.{name}]\nrole = "{roles[name]}"\n'
            f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
            for name, token in TOKENS.items()
        )
    )
    return path


def test_every_method_has_a_rule_and_changes_need_a_deployer() -> None:
    """Goal: no new method is open by omission. Method: the contract's methods against the table."""
    methods = {full_method(method) for method in methods_of(pb.DESCRIPTOR)}
    assert {name for name in TABLE if "trellis.lcm" in name} == methods
    changing = {
        name
        for name in methods
        if name.rpartition("/")[2].startswith(("Create", "Update", "Delete", "Cancel"))
    }
    assert {name for name in methods if TABLE[name] is Role.DEPLOYER} == changing
    with pytest.raises(Denied):
        check_allowed("/trellis.lcm.v1.DeploymentService/Other", Caller("ci", Role.DEPLOYER))


def test_callers_are_who_their_token_says_and_others_are_anonymous(callers_file: Path) -> None:
    """Goal: one is nobody else by mistake. Method: right, wrong and missing tokens."""
    callers = read_callers({"LCM_CALLERS": str(callers_file), "LCM_ANONYMOUS": "reader"})
    assert callers.identify([("authorization", "Bearer secret-of-ci")]) == Caller("ci", Role.DEPLOYER)
    assert callers.identify([("other", "x")]) == Caller("", Role.READER)
    for shown in ("Bearer wrong", "Basic secret-of-ci", "secret-of-ci"):
        with pytest.raises(Denied):
            callers.identify([("authorization", shown)])
    assert read_callers({}) == Callers(read_callers({}).by_digest, Role.NONE)


def test_every_problem_of_the_callers_file_is_told(tmp_path: Path) -> None:
    """Goal: nobody starts with a rule that is not kept. Method: unknown roles, a short hash, no file."""
    path = tmp_path / "bad.toml"
    path.write_text('[caller.x]\nrole = "king"\ntoken_sha256 = "12"\n')
    with pytest.raises(SettingsError) as refused:
        read_callers({"LCM_CALLERS": str(path), "LCM_ANONYMOUS": "queen"})
    assert [each.path for each in refused.value.problems] == [
        "LCM_ANONYMOUS",
        "caller.x.role",
        "caller.x.token_sha256",
    ]
    with pytest.raises(SettingsError):
        read_callers({"LCM_CALLERS": str(tmp_path / "none.toml")})


@pytest.mark.integration
def test_the_instance_asks_on_every_call(start_lcm: StartLcm, callers_file: Path) -> None:
    """Goal: the rule holds whichever way a call came. Method: direct calls with and without tokens."""
    lcm = start_lcm(LCM_CALLERS=str(callers_file), LCM_ANONYMOUS="none")
    listing = pb.ListDeploymentsRequest()

    def refused(token: str, request: pb.CreateDeploymentRequest | None = None) -> bool:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            if request is None:
                lcm.deployments.ListDeployments(listing, timeout=10, metadata=metadata)
            else:
                lcm.deployments.CreateDeployment(request, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return isinstance(from_rpc_error(error), Denied)
        return False

    create = to_create(a_spec())
    assert refused("")
    assert refused("wrong")
    assert not refused(TOKENS["eye"])
    assert refused(TOKENS["eye"], create)
    assert not refused(TOKENS["ci"], create)
    with pytest.raises(grpc.RpcError) as watching:
        next(lcm.deployments.WatchDeployments(pb.WatchDeploymentsRequest(), timeout=10))
    assert isinstance(from_rpc_error(watching.value), Denied)


@pytest.mark.integration
def test_only_programs_that_are_allowed_are_deployed(start_lcm: StartLcm) -> None:
    """Goal: an operator can narrow what callers may run. Method: one program on the list, one beside it."""
    lcm = start_lcm(LCM_PROGRAMS="/usr/bin/sleep:/usr/bin/true")
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    other = to_create(a_spec("other", a_workload(command=["/bin/sh", "-c", "true"])))
    with pytest.raises(grpc.RpcError) as refused:
        lcm.deployments.CreateDeployment(other, timeout=10)
    assert "may not be deployed here" in str(from_rpc_error(refused.value))
