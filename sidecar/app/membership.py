"""This host's place in the cluster: its identity, its log, its record, its peers."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import structlog
from trellis.certificate.v1 import certificate_pb2, certificate_pb2_grpc

from mesh import failpoints
from mesh.adapters.clock import wall_ns
from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Conflict, Corruption, Denied, NoLeader, TrellisError
from mesh.identity.credentials import Credentials
from mesh.identity.files import HostIdentity, IdentityFiles, write_private
from mesh.raft import first_log
from mesh.raft.model import Ready
from mesh.settings.model import HostSettings
from mesh.state.commands import UpdateMember
from mesh.wire.errors import from_rpc_error
from sidecar.membership.init import founding_path, raft_dir
from sidecar.membership.join import load_seeds, seeds_path
from sidecar.membership.renew import Renewal
from sidecar.membership.renewal import announcement, renewed_row

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar

LOG = structlog.get_logger(__name__)

ANNOUNCE_EVERY_S = 5.0
PROPOSE_S = 5.0


def open_identity(settings: HostSettings) -> tuple[IdentityFiles, Credentials]:
    """Who this host is. Fails: `Conflict` when it belongs to no cluster, `Corruption`."""
    files = IdentityFiles(settings.identity_dir)
    identity = files.load()
    if identity is None:
        raise Conflict(
            f"{settings.host.data_dir} belongs to no cluster yet. Make one with trellis init,"
            " or join one with trellis join TOKEN.",
            data_dir=settings.host.data_dir,
        )
    if identity.host != settings.host_id:
        raise Conflict(
            f"the settings name this host {settings.host_id}, its identity says {identity.host}."
            " Put host.name back, or join under the new name with an empty data directory.",
            host=identity.host,
        )
    return files, Credentials(identity)


def open_log(settings: HostSettings, identity: HostIdentity) -> SqliteLog:
    """This member's log; laid out at the first start, with itself as only voter if it founds.

    Invariant: it is laid out once. Where it was and is no more, promises are forgotten that
    others rely on, whatever else the data directory still says.
    Fails: as `SqliteLog`.
    """
    directory, founds = raft_dir(settings), founding_path(settings).exists()
    made = settings.host.data_dir / "log-made"
    is_first = not made.exists() and (founds or seeds_path(settings).exists())
    store = SqliteLog(directory, identity.cluster_id, identity.member, create=is_first)
    restored = store.load()
    if founds and not restored.entries and restored.snapshot is None:
        failpoints.hit("founding.before-first-log")
        first = first_log([identity.member])
        store.save(Ready(hard_state=first.hard_state, entries=first.entries, must_sync=True))
    if not made.exists():
        write_private(made, b"")
    return store


class Membership:
    """Keeps peers, record and certificate of this host as they should be."""

    def __init__(self, sidecar: "Sidecar") -> None:
        self._sidecar = sidecar
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """State or leader changed."""
        self._wake.set()

    def set_peers(self) -> None:
        """Tell the transport where the members are."""
        made = self._sidecar
        known = {row.member: row.address for row in made.replica.state.members.values()}
        made.consensus.set_peers(known or load_seeds(made.settings))

    def diverged(self) -> Corruption:
        """The leader found that this host's state is not what it should be."""
        made = self._sidecar
        return Corruption(
            str(raft_dir(made.settings)),
            f"the replicated state at index {made.replica.machine.hash_index} is not the leader's",
        )

    async def run(self) -> None:
        """Announce this host's settings, watch for its removal, renew its certificate."""
        renewal = Renewal(self._sidecar.credentials, self._sidecar.files, self._renew)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(renewal.run(), name="renewal")
            while True:
                await renewal.trust(self._sidecar.replica.state.ca_pem)
                await self._announce()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCE_EVERY_S):
                        await self._wake.wait()
                self._wake.clear()

    async def _announce(self) -> None:
        made = self._sidecar
        if made.node.leader is None or not made.replica.state.applied:
            return
        command = announcement(made.replica.state, made.settings, made.credentials.identity)
        if command is None:
            if made.member in made.replica.state.members:
                seeds_path(made.settings).unlink(missing_ok=True)  # the state has the addresses now
            return
        try:
            await made.replica.propose(command, at_ns=wall_ns(), timeout_s=PROPOSE_S)
        except TrellisError as error:
            LOG.info("not-announced", error=str(error))

    async def _renew(self, csr_pem: bytes) -> tuple[bytes, bytes]:
        """Sign this host's own new certificate and have it recorded before it is used.

        A witness has no key to the authority: another host signs for it.
        """
        made = self._sidecar
        if not made.credentials.identity.sealing_key:
            return await self._have_renewed(csr_pem)
        await made.replica.barrier(timeout_s=PROPOSE_S)
        row = made.replica.state.members.get(made.member)
        if row is None:
            raise Denied(f"{made.member} is not of this cluster any more; join again.")
        issued = made.issuer.issue_host(row.member, row.address, csr_pem)
        await made.replica.propose(
            UpdateMember(renewed_row(row, issued)), at_ns=wall_ns(), timeout_s=PROPOSE_S
        )
        return issued.certificate_pem, made.issuer.ca_pem

    async def _have_renewed(self, csr_pem: bytes) -> tuple[bytes, bytes]:
        leader = self._sidecar.node.leader
        if leader is None:
            raise NoLeader("No leader is known; the certificate is renewed later.")
        stub = certificate_pb2_grpc.CertificateServiceStub(self._sidecar.channel_to(leader))
        request = certificate_pb2.RenewCertificateRequest(csr_pem=csr_pem)
        try:
            answer = await stub.RenewCertificate(request, timeout=PROPOSE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return answer.certificate_pem, answer.ca_pem
