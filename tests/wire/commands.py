"""Hypothesis strategies for every command, and one example of each."""

from typing import Any, get_args

from hypothesis import strategies as st

from mesh.errors import Problem
from mesh.ids import (
    PRIMARY,
    VIP,
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    Incarnation,
    Index,
    OwnedName,
    ServiceName,
    SessionId,
    instance_id,
    member_id,
)
from mesh.state import commands as c
from mesh.state.commands import Applied, Command, Outcome, Rejected, Request
from mesh.state.model import Fence, HostStatus, JoinToken, Member, MemberRole, Slot
from mesh.state.service import (
    InstanceState,
    InstanceStatus,
    MethodPolicy,
    Probe,
    ProbeKind,
    Probes,
    Restart,
    RestartWhen,
    ServiceMode,
    ServiceSpec,
)
from tests.wire import database_commands

text = st.text(max_size=12)
blob = st.binary(max_size=40)
numbers = st.integers(0, 2**40)
small = st.integers(0, 2**20)
hosts = st.sampled_from([HostId(f"host{number}") for number in range(1, 5)])
services = st.sampled_from([ServiceName(name) for name in ("echo", "lcm", "web")])
owned = st.sampled_from([VIP, PRIMARY, OwnedName("service/echo")])
documents = st.sampled_from([DocumentName(name) for name in ("a", "network/dns", "b.c")])
terms = st.integers(0, 5).map(FencingTerm)
expected = st.one_of(st.none(), st.integers(0, 5))
hexes = st.sampled_from(["aa", "bb", "cc" * 32])
members = st.builds(lambda host, number: member_id(host, Incarnation(number)), hosts, st.integers(1, 4))


@st.composite
def full_members(draw: st.DrawFn) -> Member:
    host, number = draw(hosts), Incarnation(draw(st.integers(1, 4)))
    role, (northbound, version) = draw(st.sampled_from(MemberRole)), draw(st.tuples(text, text))
    address, admitted = draw(text), Index(draw(numbers))
    return Member(
        member_id(host, number), host, number, role, address, northbound, "i:1", version, draw(hexes),
        draw(hexes), admitted, draw(text),
    )  # fmt: skip


probes = st.builds(
    Probe, st.sampled_from(ProbeKind), small, small, small, small, text, st.lists(text).map(tuple)
)
maybe_probe = st.one_of(st.none(), probes)
environments = st.dictionaries(text, text, max_size=3).map(lambda each: tuple(sorted(each.items())))
texts = st.lists(text, max_size=3).map(tuple)
methods = st.lists(st.builds(MethodPolicy, text, st.booleans(), small, texts, st.booleans()), max_size=2)
specs = st.builds(
    ServiceSpec,
    name=services,
    command=texts,
    mode=st.sampled_from(ServiceMode),
    instances_min=st.integers(0, 4),
    instances_max=st.integers(0, 4),
    directory=text,
    environment=environments,
    user=text,
    probes=st.builds(Probes, maybe_probe, maybe_probe, maybe_probe, small),
    restart=st.builds(Restart, st.sampled_from(RestartWhen), small, small, small),
    depends_on=st.lists(services, max_size=2).map(tuple),
    grace_ms=small,
    memory_bytes_max=numbers,
    routed=st.booleans(),
    grpc_services=texts,
    methods=methods.map(tuple),
)


@st.composite
def reports(draw: st.DrawFn) -> c.ReportInstances:
    host = draw(hosts)
    statuses = [
        InstanceStatus(
            instance_id(service, host, 0), service, host, draw(small), draw(st.sampled_from(InstanceState)),
            draw(st.booleans()), draw(small), draw(small), draw(text), draw(text), draw(text), draw(small),
        )
        for service in draw(st.lists(services, max_size=3))
    ]  # fmt: skip
    return c.ReportInstances(host, draw(members), tuple(statuses), draw(st.booleans()))


facts = st.lists(st.tuples(text, text), max_size=2).map(tuple)
tokens = st.builds(
    JoinToken, hexes, numbers, st.one_of(st.none(), hosts), st.booleans(), st.just(""), st.none()
)
slots = st.lists(st.builds(Slot, hosts, st.integers(0, 3)), max_size=4).map(tuple)
SINGLE: dict[type, st.SearchStrategy[Any]] = {
    c.InitCluster: st.builds(c.InitCluster, text.map(ClusterId), full_members(), text, blob),
    c.SetVirtualAddress: st.builds(c.SetVirtualAddress, text),
    c.AdmitMember: st.builds(c.AdmitMember, full_members(), st.one_of(st.just(""), hexes)),
    c.UpdateMember: st.builds(c.UpdateMember, full_members()),
    c.SetMemberRole: st.builds(c.SetMemberRole, members, st.sampled_from(MemberRole)),
    c.RemoveMember: st.builds(c.RemoveMember, members),
    c.SetHostStatus: st.builds(c.SetHostStatus, hosts, members, st.sampled_from(HostStatus), text),
    c.DrainHost: st.builds(c.DrainHost, hosts, st.booleans()),
    c.PutDocument: st.builds(c.PutDocument, documents, blob, expected),
    c.DeleteDocument: st.builds(c.DeleteDocument, documents, expected),
    c.ApplyService: st.builds(c.ApplyService, specs, expected),
    c.StopService: st.builds(c.StopService, services, st.booleans(), expected),
    c.RestartService: st.builds(c.RestartService, services),
    c.SetPlacement: st.builds(c.SetPlacement, services, slots, expected),
    c.ReportInstances: reports(),
    c.AssignOwner: st.builds(c.AssignOwner, owned, hosts, terms, expected),
    c.RequestRelease: st.builds(c.RequestRelease, owned, st.one_of(st.none(), hosts), terms),
    c.Unassign: st.builds(c.Unassign, owned, terms),
    c.AddToken: st.builds(c.AddToken, tokens),
    c.ConsumeToken: st.builds(c.ConsumeToken, hexes, hosts, hexes, members),
    c.RevokeCertificate: st.builds(c.RevokeCertificate, hexes, text),
    c.SetTrust: st.builds(c.SetTrust, blob),
    c.PutSecret: st.builds(c.PutSecret, st.sampled_from(["a", "b"]), blob),
    c.RecordEvents: st.builds(
        c.RecordEvents, st.lists(st.builds(c.EventDraft, text, text, text, facts), max_size=2).map(tuple)
    ),
} | database_commands.SINGLE
assert set(SINGLE) == set(get_args(c.SingleCommand)), "a strategy for every command"

single_commands: st.SearchStrategy[Any] = st.one_of(*SINGLE.values())
commands: st.SearchStrategy[Command] = st.one_of(
    single_commands,
    st.builds(c.Batch, st.lists(single_commands, max_size=4).map(tuple)),
)
requests: st.SearchStrategy[Request] = st.builds(
    Request, commands, st.sampled_from(["", "s", "t"]).map(SessionId), st.integers(0, 9), numbers, text,
    st.one_of(st.none(), st.builds(Fence, owned, terms)),
)  # fmt: skip
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Applied, numbers.map(Index), numbers, terms, st.one_of(st.none(), members), st.booleans(),
        st.lists(st.builds(Applied, numbers.map(Index)), max_size=2).map(tuple),
    ),
    st.builds(Rejected, text, text, facts, st.lists(st.builds(Problem, text, text, text)).map(tuple)),
)  # fmt: skip
