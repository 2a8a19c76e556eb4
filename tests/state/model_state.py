"""A cluster of three hosts to apply commands to, and shorthand for doing so."""

from mesh.ids import (
    ClusterId,
    HostId,
    Incarnation,
    Index,
    ServiceName,
    SessionId,
    instance_id,
    member_id,
)
from mesh.state import Applied, ClusterState, Effect, Rejected, Request, apply
from mesh.state.commands import AdmitMember, Command, InitCluster, SetHostStatus
from mesh.state.model import HostStatus, Member, MemberRole
from mesh.state.service import InstanceState, InstanceStatus, ServiceSpec

A, B, C = (HostId(f"host{n}") for n in (1, 2, 3))
ECHO = ServiceName("echo")


def member(host: HostId, incarnation: int = 1, role: MemberRole = MemberRole.VOTER) -> Member:
    number = Incarnation(incarnation)
    return Member(
        member=member_id(host, number),
        host=host,
        incarnation=number,
        role=role,
        address=f"127.0.0.{host[-1]}:7400",
        northbound=f"127.0.0.{host[-1]}:8443",
        version="0.1.0",
        certificate_serial=f"{incarnation}{host[-1]}",
        key_sha256="ab" * 32,
    )


def status(
    host: HostId, state: InstanceState = InstanceState.RUNNING, *, ready: bool = True, generation: int = 1
) -> InstanceStatus:
    return InstanceStatus(instance_id(ECHO, host, 0), ECHO, host, generation, state, ready, pid=5)


def spec(name: str = "echo", *depends_on: str) -> ServiceSpec:
    return ServiceSpec(
        ServiceName(name),
        ("python3", "-m", "services.echo"),
        instances_min=3,
        instances_max=3,
        depends_on=tuple(ServiceName(each) for each in depends_on),
    )


class Cluster:
    """A state that counts its own indexes; `do` expects success, `refuse` a refusal."""

    def __init__(self, *, empty: bool = False) -> None:
        self.state = ClusterState()
        if not empty:
            self.do(InitCluster(ClusterId("c" * 32), member(A), "127.0.0.9:8443", b"PEM"))
            self.do(AdmitMember(member(B)))
            self.do(AdmitMember(member(C)))
            for host in (B, C):
                self.do(SetHostStatus(host, member(host).member, HostStatus.ALIVE))

    def apply(self, command: Command, session: str = "", sequence: int = 0, at_ns: int = 1_000) -> Effect:
        request = Request(command, SessionId(session), sequence, at_ns, "f" * 32)
        return apply(self.state, Index(self.state.applied + 1), request)

    def do(self, command: Command, at_ns: int = 1_000) -> Applied:
        outcome = self.apply(command, at_ns=at_ns).outcome
        assert isinstance(outcome, Applied), outcome
        return outcome

    def refuse(self, command: Command, at_ns: int = 1_000) -> Rejected:
        effect = self.apply(command, at_ns=at_ns)
        assert isinstance(effect.outcome, Rejected), effect.outcome
        assert not effect.changed.changes, "a refusal changes nothing"
        return effect.outcome

    def events(self, kind: str) -> list[str]:
        return [event.message for event in self.state.events.values() if event.kind == kind]
