"""What a primary plans to publish, the replicated state takes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import PRIMARY, HostId
from mesh.state.commands import AdmitMember, AssignOwner, RemoveMember
from mesh.state.database_checks import data_hosts
from mesh.state.database_commands import PublishSyncSet
from sidecar.postgres.model import InForce, Lsn
from sidecar.postgres.sync_set import (
    Nothing,
    Publish,
    ReadBarrier,
    SetSyncNames,
    WaitFlushed,
    first_names,
    next_step,
)
from tests.state.database_steps import made, record
from tests.state.model_state import A, B, C, Cluster, member

D = HostId("host4")
STEPS_MAX = 30
wishes = st.tuples(st.sets(st.sampled_from([A, B, C, D])), st.integers(0, 3))
moves = st.lists(st.tuples(st.sampled_from([A, B, C]), st.lists(wishes, max_size=3)), min_size=1, max_size=3)


@given(moves, st.sampled_from(["never", "before the first step", "between two wishes"]))
@settings(max_examples=200, deadline=None)
def test_every_planned_publication_is_taken(
    moves: list[tuple[HostId, list[tuple[set[HostId], int]]]], removed: str
) -> None:
    """Goal: no plan is stuck on a refusal. Method: follow plans of several primaries on the real state.

    Each wish is followed until nothing is left to do. A host that may be among the voters is removed once.
    """
    cluster = made()
    cluster.do(AdmitMember(member(D)))
    for primary, wanted in moves:
        assigned = AssignOwner(PRIMARY, primary, cluster.state.fencing_term(PRIMARY))
        cluster.do(assigned)
        needed = wanted[0][1] if wanted else 1
        names = first_names(record(cluster).published, primary, needed, data_hosts(cluster.state))
        in_force, is_settled = InForce(primary, names), False
        for hosts, needed in wanted:
            if removed == "before the first step":
                _remove(cluster)
            fit = sorted(hosts & set(data_hosts(cluster.state)))
            in_force, is_settled = _follow(cluster, in_force, is_settled, fit, needed)
            if removed == "between two wishes":
                _remove(cluster)


def _remove(cluster: Cluster) -> None:
    if D in cluster.state.hosts:
        cluster.do(RemoveMember(member(D).member))


def _follow(
    cluster: Cluster, in_force: InForce, is_settled: bool, wanted: list[HostId], needed: int
) -> tuple[InForce, bool]:
    """Steps until nothing is left to do; everybody has flushed everything."""
    flushed = dict.fromkeys((A, B, C, D), Lsn(10))
    term = cluster.state.fencing_term(PRIMARY)
    for _ in range(STEPS_MAX):
        published = record(cluster).published
        step = next_step(in_force, published, wanted, needed, flushed=flushed, is_settled=is_settled)
        match step:
            case Nothing():
                return in_force, is_settled
            case SetSyncNames(names, _):
                in_force = InForce(in_force.primary, names)
            case ReadBarrier() | WaitFlushed():
                in_force = replace(in_force, barrier=Lsn(10))
            case Publish(voters, quorum, expected, _):
                cluster.do(PublishSyncSet(in_force.primary, voters, quorum, expected, term))
                assert record(cluster).published.version == expected + 1
                is_settled = True
    raise AssertionError(f"no end of steps towards {needed} of {wanted}: {step}")
