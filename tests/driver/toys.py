"""A toy state machine, certificates of a toy CA and a member that is put together from real parts."""

import asyncio
import contextlib
import datetime
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mesh.adapters.channel import SERVER_OPTIONS
from mesh.adapters.sqlite_log import SqliteLog
from mesh.driver import DriverSettings, RaftDriver
from mesh.errors import Denied, UnknownCommand
from mesh.grpc_consensus import GrpcConsensus
from mesh.ids import ClusterId, HostId, Index, MemberId
from mesh.raft import first_log
from mesh.raft.model import Entry, Membership, RaftSettings, Ready, SoftState

CLUSTER = ClusterId("0123456789abcdef0123456789abcdef")
#: A command that a later version might send.
UNKNOWN = b"\xffof a later version"


class ToyMachine:
    """Keeps every command in order; the outcome of one is how many came before it."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, index: Index, data: bytes) -> object:
        self.commands.append(data)
        return len(self.commands) - 1

    def check(self, data: bytes) -> None:
        if data == UNKNOWN:
            raise UnknownCommand("this version does not know the command")

    def snapshot(self) -> Callable[[], bytes]:
        commands = list(self.commands)
        return lambda: json.dumps([each.hex() for each in commands]).encode()

    def restore(self, data: bytes) -> None:
        self.commands = [bytes.fromhex(each) for each in json.loads(data)]


class CountingMachine:
    """Counts commands and keeps none: its snapshot stays small."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: Index, data: bytes) -> object:
        self.count += 1
        return self.count

    def check(self, data: bytes) -> None:
        """Every command counts."""

    def snapshot(self) -> Callable[[], bytes]:
        count = self.count
        return lambda: str(count).encode()

    def restore(self, data: bytes) -> None:
        self.count = int(data)


class ToyCodec:
    def encode(self, outcome: object) -> bytes:
        return json.dumps(outcome).encode()

    def decode(self, data: bytes) -> object:
        return json.loads(data)


# ---- certificates ---------------------------------------------------------------


@dataclass(frozen=True)
class ToyAuthority:
    """Signs host certificates; `directory` makes it usable by other processes."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str = "toy CA") -> "ToyAuthority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key, None, key))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, host: HostId) -> "ToyIdentity":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(host, key, self.certificate, self.key)
        return ToyIdentity(
            ca=self.pem,
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(f"{name}.toy")]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


@dataclass(frozen=True)
class ToyIdentity:
    """One host's credentials."""

    ca: bytes
    certificate: bytes
    key: bytes

    def server_credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.ca, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def authority_of(self, host: HostId) -> str:
        return f"{host}.toy"

    def check_peer(self, auth_context: Mapping[str, Iterable[bytes]]) -> HostId:
        names = list(auth_context.get("x509_common_name", ()))
        if len(names) != 1:
            raise Denied("the call carries no certificate")
        return HostId(names[0].decode())

    def write(self, path: Path) -> None:
        fields = (self.ca, self.certificate, self.key)
        path.write_text(json.dumps([each.decode() for each in fields]))

    @classmethod
    def read(cls, path: Path) -> "ToyIdentity":
        return cls(*(each.encode() for each in json.loads(path.read_text())))


# ---- members --------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Diary:
    """An observer that writes down what it hears."""

    roles: list[SoftState] = field(default_factory=list)
    crashes: list[MemberId] = field(default_factory=list)
    memberships: list[Membership] = field(default_factory=list)

    def role_changed(self, soft: SoftState) -> None:
        self.roles.append(soft)

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        pass

    def membership_changed(self, membership: Membership) -> None:
        self.memberships.append(membership)

    def crash_proven(self, member: MemberId) -> None:
        self.crashes.append(member)


@dataclass
class Member:
    """One running member."""

    consensus: GrpcConsensus
    machine: ToyMachine | CountingMachine
    diary: Diary

    @property
    def id(self) -> MemberId:
        return self.consensus.driver.id


@contextlib.asynccontextmanager
async def running_member(
    member: MemberId,
    directory: Path,
    identity: ToyIdentity,
    addresses: Mapping[MemberId, str],
    *,
    founders: Iterable[MemberId],
    settings: DriverSettings | None = None,
    raft: RaftSettings | None = None,
    machine: ToyMachine | CountingMachine | None = None,
    cluster: ClusterId = CLUSTER,
) -> AsyncIterator[Member]:
    """A member with its server, until the block ends."""
    is_new = not (directory / "log.sqlite").exists()
    store = SqliteLog(directory, cluster, member, create=is_new)
    founders = sorted(founders)
    if is_new and member in founders:
        first = first_log(founders)
        store.save(Ready(hard_state=first.hard_state, entries=first.entries, must_sync=True))
    diary = Diary()
    machine = machine if machine is not None else ToyMachine()
    driver = RaftDriver(
        raft=raft or RaftSettings(id=member),
        store=store,
        machine=machine,
        observers=[diary],
        settings=settings,
    )
    consensus = GrpcConsensus(cluster=cluster, identity=identity, driver=driver, codec=ToyCodec())
    consensus.set_peers(addresses)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    consensus.add_to(server)
    server.add_secure_port(addresses[member], identity.server_credentials())
    await server.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(consensus.run(), name=f"consensus:{member}")
            yield Member(consensus, machine, diary)
            consensus.stop()
            await running
    finally:
        await server.stop(0.5)
