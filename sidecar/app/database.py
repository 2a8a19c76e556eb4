"""The database of this host, tied to the rest of the sidecar."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from trellis.database.v1 import database_pb2

from mesh.adapters.cgroup import NOWHERE, find_hierarchies
from mesh.adapters.clock import wall_ns
from mesh.errors import NotFound
from mesh.identity.sealed import seal, unseal
from mesh.ids import PRIMARY, FencingTerm, HostId, Index
from mesh.state import ClusterState
from mesh.state.commands import Applied, PutSecret, SingleCommand
from mesh.state.database_model import PORT_DEFAULT, DatabaseStatus
from sidecar.postgres.backups import Backups, Surroundings
from sidecar.postgres.driver import DatabaseDriver
from sidecar.postgres.engine.archive import WalArchive
from sidecar.postgres.engine.binaries import find_binaries
from sidecar.postgres.engine.config import APP_DATABASE, APP_ROLE, ServerConfig
from sidecar.postgres.engine.hands import EngineHands
from sidecar.postgres.engine.layout import Layout, choose_user
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.origin import claim
from sidecar.postgres.leading import DatabaseLeading
from sidecar.postgres.model import Lsn, SealReport
from sidecar.postgres.peer_server import server_view
from sidecar.postgres.peers import Peer
from sidecar.postgres.port import NO_SIGHT, Sight, Source
from sidecar.supervisor.surroundings import address_text

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar

#: The sealed secret with the password of the applications' role.
PASSWORD: Final = "database-password"  # noqa: S105 - its name
PROPOSE_S: Final = 2.0
_PASSWORD_BYTES: Final = 24


class HostDatabase:
    """Makes the driver, if this host carries PostgreSQL, and reaches the databases of all hosts.

    Fails: when made, `SettingsError`: no PostgreSQL, no user to run it as, or no usable folder.
    """

    def __init__(self, sidecar: "Sidecar") -> None:
        self._sidecar = sidecar
        self.driver: DatabaseDriver | None = None
        self.backups: Backups | None = None
        self.archive: WalArchive | None = None
        if sidecar.settings.database is not None:
            self.driver = self._make_driver()

    def _make_driver(self) -> DatabaseDriver:
        made, settings = self._sidecar, self._sidecar.settings
        wanted = settings.database
        assert wanted is not None
        user = choose_user(wanted.user)
        binaries = find_binaries(str(wanted.bin_dir or ""), user)
        layout = Layout(settings.database_dir, settings.host.run_dir / "postgres", user)
        has_groups = settings.services.cgroups == "auto"
        run_dir = str(settings.host.run_dir)
        hierarchies = find_hierarchies(f"{made.host_id}-db", run_dir) if has_groups else NOWHERE
        config = ServerConfig(made.cluster, made.host_id, wanted.port or PORT_DEFAULT, (wanted.listen,), ())
        local = LocalPostgres(binaries, layout, hierarchies, config)
        claim(layout, made.cluster)
        engine = EngineHands(local, lambda: made.credentials.identity, self._wake)
        self.archive = WalArchive(
            local.archive_tools,
            wanted.archive_dir,
            lambda: local.control.config,
            lambda: local.postmaster.running is not None and local.postmaster.status() == "ready",
        )
        engine.beside = lambda: self.archive.problem if self.archive is not None else ""

        def put_in_place() -> None:
            engine.put_restored_in_place()
            self._wake()

        around = Surroundings(
            sight=self._sight,
            primary=self._primary,
            why_no_restore=self._why_no_restore,
            archive=wanted.archive_dir,
            on_backup=self.archive.backed_up,
            put_in_place=put_in_place,
        )
        self.backups = Backups(made.host_id, local, around)
        return DatabaseDriver(
            host=made.host_id,
            address=lambda port: address_text(wanted.listen, port),
            port=wanted.port,
            engine=engine,
            replicated=_Replicated(made),
            fence=made.fence,
            is_live=lambda: made.host.is_live(),
            released=lambda: [term for name, term in made.host.releases() if name == PRIMARY],
            on_change=lambda: made.core.database_changed(),
        )

    def _wake(self) -> None:
        assert self.driver is not None
        self.driver.wake()

    def _sight(self) -> Sight:
        return self.driver.sight if self.driver is not None else NO_SIGHT

    def _primary(self) -> Source | None:
        """Who takes writes, as far as it is replicated."""
        state = self._sidecar.replica.state
        owner = state.owners.get(PRIMARY)
        row = state.database_members.get(owner.holder) if owner is not None and owner.holder else None
        if row is None or not row.status.is_open or not row.status.address:
            return None
        return Source(row.host, row.status.address)

    def _why_no_restore(self) -> str:
        """What is declared goes on from its own data; nothing may be put under it."""
        record = self._sidecar.replica.state.database
        if record is None:
            return ""
        made = f" and was made on {record.bootstrap_host}" if record.bootstrap_host else ""
        return f"The database of this cluster is declared{made}: data are restored before it is declared."

    def status(self) -> DatabaseStatus | None:
        """What this host reports of its database; None: it has none, or has not looked yet."""
        return self.driver.status if self.driver is not None else None

    def url(self) -> str:
        """What services of this host connect to; empty while there is nothing to connect to."""
        made, wanted = self._sidecar, self._sidecar.settings.database
        password = _password(made, made.replica.state)
        if wanted is None or not password:
            return ""
        # Channel binding: the server proves that it knows the password, whichever host it is on.
        return (
            f"postgresql://{APP_ROLE}:{quote(password)}@{wanted.client_address}/{APP_DATABASE}"
            "?sslmode=require&channel_binding=require"
        )

    # ---- any host's -----------------------------------------------------------------

    def plan(self, wake: Callable[[], None]) -> DatabaseLeading:
        """The planner of a leadership."""
        return DatabaseLeading(self._sidecar.host_id, self.seal, wake)

    async def seal(self, host: HostId, term: FencingTerm) -> SealReport:
        """Fails: `TrellisError`."""
        if host == self._sidecar.host_id:
            return await self._own().seal(term)
        return await self._peer(host).seal(term)

    async def checkpoint(self, host: HostId, term: FencingTerm) -> Lsn:
        """Fails: `TrellisError`."""
        if host == self._sidecar.host_id:
            return await self._own().checkpoint(term)
        return await self._peer(host).checkpoint(term)

    async def look(self, host: HostId) -> database_pb2.ServerView | None:
        """Fails: `TrellisError`."""
        if host == self._sidecar.host_id:
            return server_view(host, self.driver) if self.driver is not None else None
        return await self._peer(host).look()

    def _own(self) -> DatabaseDriver:
        if self.driver is None:
            raise NotFound(f"{self._sidecar.host_id} carries no database: its settings have no [database]")
        return self.driver

    def _peer(self, host: HostId) -> Peer:
        made = self._sidecar
        row = made.replica.state.member_of(host)
        if row is None:
            raise NotFound(f"There is no host {host}.")
        return Peer(made.cluster, made.channel_to(row.member))


class _Replicated:
    """See sidecar.postgres.port.Replicated."""

    def __init__(self, sidecar: "Sidecar") -> None:
        self._sidecar = sidecar

    @property
    def state(self) -> ClusterState:
        return self._sidecar.replica.state

    async def propose(self, command: SingleCommand) -> Applied:
        return await self._sidecar.replica.propose(command, timeout_s=PROPOSE_S, at_ns=wall_ns())

    async def wait_applied(self, index: Index) -> None:
        await self._sidecar.consensus.driver.wait_applied(index, timeout_s=PROPOSE_S)

    def password(self, state: ClusterState) -> str:
        return _password(self._sidecar, state)

    async def make_password(self) -> None:
        made = self._sidecar
        fresh = secrets.token_urlsafe(_PASSWORD_BYTES).encode()
        sealed = await asyncio.to_thread(seal, made.issuer.sealing_key, made.cluster, PASSWORD, fresh)
        applied = await self.propose(PutSecret(PASSWORD, sealed))
        await self.wait_applied(applied.index)


def _password(sidecar: "Sidecar", state: ClusterState) -> str:
    sealed = state.secrets.get(PASSWORD)
    if sealed is None:
        return ""
    return unseal(sidecar.issuer.sealing_key, sidecar.cluster, PASSWORD, sealed).decode()
