"""Every method of every contract has exactly one rule."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from mesh.errors import Denied
from mesh.identity.names import ANONYMOUS, Caller, Role
from mesh.identity.table import CONTRACTS, NAMED, build_table, check_allowed, full_method, methods_of

PROTOS = Path(__file__).resolve().parents[2] / "protos"


def contracts_on_disk() -> list[FileDescriptor]:
    modules = sorted(
        str(path.relative_to(PROTOS))[:-3].replace("/", ".") for path in PROTOS.rglob("*_pb2.py")
    )
    return [importlib.import_module(module).DESCRIPTOR for module in modules]


def test_every_method_of_every_contract_has_a_rule() -> None:
    """Goal: no new method is open by omission. Method: walk the contracts on disk."""
    table = build_table()
    methods = [full_method(method) for contract in contracts_on_disk() for method in methods_of(contract)]
    assert len(methods) > 30
    assert [name for name in methods if name not in table] == []


def test_every_contract_with_methods_is_listed() -> None:
    """Goal: no contract escapes the table. Method: compare the list with the files."""
    with_methods = {contract.name for contract in contracts_on_disk() if methods_of(contract)}
    assert {contract.name for contract in CONTRACTS} == with_methods


def test_no_rule_is_for_a_method_that_does_not_exist() -> None:
    """Goal: a renamed method does not lose its rule silently. Method: named rules against the contracts."""
    methods = {full_method(method) for contract in CONTRACTS for method in methods_of(contract)}
    assert [name for name in NAMED if name not in methods and not name.startswith("/grpc.")] == []


def test_only_joining_and_health_need_no_certificate() -> None:
    """Goal: the open surface grows only on purpose. Method: list all rules that let anybody in."""
    open_to_all = [name for name, roles in build_table().items() if Role.ANONYMOUS in roles]
    behind_envoy = ("/trellis.echo.", "/trellis.lcm.")
    assert sorted(name for name in open_to_all if not name.startswith(behind_envoy)) == [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/trellis.membership.v1.MembershipService/Join",
    ]


def test_consensus_is_between_hosts_only() -> None:
    """Goal: no operator or service can vote or append. Method: the rules of these areas."""
    table = build_table()
    for name, roles in table.items():
        if any(area in name for area in ("election", "replication", "heartbeat")):
            assert roles == {Role.HOST}, name


def test_a_method_without_a_rule_and_a_caller_without_the_role_are_refused() -> None:
    """Goal: refusal is the default. Method: unknown method, wrong role, nobody."""
    table = build_table()
    operator = Caller(Role.OPERATOR, "alice")
    transfer = "/trellis.cluster.v1.ClusterService/TransferLeadership"
    check_allowed(table, transfer, operator)
    with pytest.raises(Denied, match="no rule"):
        check_allowed(table, "/x.Y/Z", operator)
    with pytest.raises(Denied, match="only a caller of role operator"):
        check_allowed(table, transfer, Caller(Role.SERVICE, "echo"))
    with pytest.raises(Denied, match="called by anonymous"):
        check_allowed(table, transfer, ANONYMOUS)
