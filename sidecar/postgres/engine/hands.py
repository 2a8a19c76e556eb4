"""The driver's engine (sidecar.postgres.port) with a real PostgreSQL."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from mesh import failpoints
from mesh.errors import CannotRewind, Conflict, DatabaseFailed, DataDamaged, InvalidRequest, NotInTime
from mesh.identity.files import HostIdentity
from mesh.ids import FencingTerm, HostId, host_of
from mesh.state.database_model import Wants
from sidecar.postgres.engine import roles, tls
from sidecar.postgres.engine.clone import clone
from sidecar.postgres.engine.config import APP_ROLE, Upstream, at_least, sync_text
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.initdb import make_database
from sidecar.postgres.engine.layout import sync_folder
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.local_data import LEFT_OUT, Standing
from sidecar.postgres.engine.looking import KILL_S, LOOK_S, Eyes, has_standby_mark
from sidecar.postgres.engine.parameters import Proven
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.engine.read_back import read_back
from sidecar.postgres.engine.restore import put_restored_in_place
from sidecar.postgres.engine.rewind import rewind
from sidecar.postgres.model import (
    Lsn,
    SyncNames,
    Timeline,
)
from sidecar.postgres.port import ServerProcess, ServerSettings, Sight, Source

LOG = structlog.get_logger(__name__)

#: A server that answers nobody for so long is ended, to be started anew.
HUNG_S: Final = 3.0
PROMOTE_S: Final = 60.0
CHECKPOINT_S: Final = 600.0
#: Of WAL that other standbys may need once this one is promoted: of what they lack then.
SLOTS_KEEP_BYTES: Final = 1 << 30


class EngineHands:
    """One host's PostgreSQL; see `port.Engine`."""

    def __init__(
        self, local: LocalPostgres, identity: Callable[[], HostIdentity], on_end: Callable[[], None]
    ) -> None:
        """*on_end* is called when the server's main process ends."""
        self._local = local
        self._identity = identity
        self._standing = Standing(local.layout)
        self._wanted: ServerSettings | None = None
        self._proven = Proven(local.layout)
        #: Parameters that wait for a start, and whether its primary must have them first; None: not known.
        self._needs_restart: dict[str, bool] | None = {}
        self._eyes = Eyes(local, self._standing)
        #: What was replaced may be deleted while the next copy is made.
        self._folders = asyncio.Lock()
        #: When it last answered nobody, and let no new session in.
        self._blind_since: float | None = None
        self._deaf_since: float | None = None
        #: What is not well beside the server, as a sentence.
        self.beside: Callable[[], str] = str
        self._on_end = on_end
        local.postmaster.on_end = self._server_ended
        tls.install_identity(local.layout, identity())

    @property
    def process(self) -> ServerProcess | None:
        """See Engine."""
        running = self._local.postmaster.running
        return ServerProcess(running.pid, running.start_ticks, running.cgroup) if running else None

    def _server_ended(self) -> None:
        if self._local.postmaster.why_ended:
            LOG.warning("database-ended", why=self._local.postmaster.why_ended)
        self._on_end()

    async def recover(self) -> None:
        """See Engine."""
        adopted = await self._local.recover()
        self._needs_restart = None if adopted is not None else {}
        if adopted is None:
            return
        if not has_standby_mark(self._local):
            LOG.warning("database-primary-outlived-its-sidecar", pid=adopted.pid)
            await self.kill_all()
            return
        # It goes on receiving: nothing is written for it that does not say from whom.
        control = self._local.control
        told = read_back(self._local.layout, control.config)
        control.config = replace(told, parameters=self._proven.good or ())
        if self._local.postmaster.status() == "ready":
            self._local.postmaster.signal(signal.SIGHUP)  # its sidecar may have died before it did that

    async def look(self, system_identifier: str) -> Sight:
        """See Engine."""
        try:
            sight = await self._eyes.look(system_identifier, self._problem())
        except (NotInTime, DatabaseFailed):
            self._blind_since = self._blind_since or time.monotonic()
            await self._end_if_hung(self._blind_since)
            raise
        self._blind_since = None
        if self._eyes.has_strangers:
            await self._end_strangers()
        if not sight.started:
            return sight
        self._proven.came_up()
        refused = self._proven.refused
        return replace(
            sight,
            loaded=self._local.control.config.parameters,
            refused=refused[0] if refused is not None else None,
            wants=self._wants(is_standby=sight.local.process.as_standby),
        )

    def _wants(self, *, is_standby: bool) -> Wants:
        if self._eyes.bad_pages:
            return Wants.COPY
        if not self._needs_restart or self._proven.refused is not None:
            return Wants.NOTHING
        is_later = is_standby and all(self._needs_restart.values())
        return Wants.RESTART_LATER if is_later else Wants.RESTART

    async def _end_strangers(self) -> None:
        """At each look, not now and then: until it is ended, what a stranger acknowledges counts."""
        self._eyes.has_strangers = False
        for stranger in await self._local.control.end_strangers():
            LOG.warning("database-stranger", name=stranger.name, host=stranger.host, address=stranger.address)

    async def _end_if_hung(self, since: float) -> None:
        """It answers nobody since then. Fails: as `Postmaster.kill_tree`."""
        seconds = time.monotonic() - since
        if seconds > HUNG_S:
            LOG.warning("database-hung", seconds=round(seconds, 1))
            await self.kill_all()

    def _problem(self) -> str:
        if self._eyes.bad_pages:
            return f"pages of its data failed their checksums ({self._eyes.bad_pages}): look at its disk"
        if self._proven.refused is not None:
            return self._proven.refused[1]
        if self._needs_restart:
            return f"{', '.join(self._needs_restart)} come into force with the next start"
        return self.beside()

    def distrust(self) -> None:
        """See Engine."""
        self._eyes.damaged = self._problem()

    # ---- what it reads --------------------------------------------------------------

    async def configure(self, wanted: ServerSettings) -> None:
        """See Engine."""
        self._wanted = wanted
        self._eyes.hosts = tuple(host_of(member) for member in wanted.members)
        control, before = self._local.control, self._local.control.config
        if self._local.postmaster.running is None:
            new = replace(before, port=wanted.port, members=wanted.members)
            if new != before:
                control.write(new)
            return
        if self._local.postmaster.status() != "ready":
            return
        if tls.install_identity(self._local.layout, self._identity()) or wanted.members != before.members:
            await control.reload(replace(before, members=wanted.members))
        parameters = wanted.parameters
        if parameters is None or self._proven.is_refused(parameters):
            return
        if parameters == before.parameters and self._needs_restart is not None and not before.least:
            self._proven.refused = None  # what was refused is declared no more
            return
        try:
            self._needs_restart = await control.set_parameters(parameters)
            self._proven.refused = None
        except InvalidRequest as error:
            self._proven.refused = (parameters, str(error))

    # ---- its life -------------------------------------------------------------------

    async def make(self) -> None:
        """See Engine."""
        try:
            await make_database(self._local.tools)
        finally:
            self._eyes.data_changed()

    def start(self, *, names: SyncNames | None, source: Source | None) -> None:
        """See Engine."""
        self._explain_last_end(as_standby=names is None)
        config, wanted = self._local.control.config, self._wanted
        if wanted is not None:
            config = replace(config, port=wanted.port, members=wanted.members)
        config = replace(
            config,
            parameters=self._proven.for_start(config.parameters, wanted.parameters if wanted else None),
            sync=names or config.sync,
            least=(),
            upstream=_upstream(source) if source is not None else None,
        )
        if names is None:
            config = replace(config, least=at_least(config.parameters, self._eyes.least))
        self._blind_since = self._deaf_since = None
        self._needs_restart = {}
        self._eyes.slots_changed()
        self._eyes.follows_another()
        self._local.start(as_standby=names is None, config=config)

    def _explain_last_end(self, *, as_standby: bool) -> None:
        """A server that ended because of its data must not be started on them again and again."""
        error = self._local.postmaster.last_end()
        if error is None and as_standby:
            error = self._local.postmaster.last_damage()
        if isinstance(error, DataDamaged):
            self._eyes.damaged = str(error)
            raise error
        if error is not None and self._proven.ended_early(str(error)):
            LOG.warning("database-parameters-refused", error=str(error))

    async def stop(self, deadline_s: float) -> None:
        """See Engine."""
        self._local.control.close()
        try:
            await self._local.postmaster.stop(StopMode.FAST, deadline_s=deadline_s, kill_s=KILL_S)
        finally:
            self._eyes.data_changed()

    def kill_now(self) -> None:
        """See Engine."""
        self._local.postmaster.kill_now()

    async def kill_all(self) -> None:
        """See Engine."""
        self._local.control.close()
        try:
            await self._local.postmaster.kill_tree(KILL_S)
        finally:
            self._eyes.data_changed()

    # ---- whose it is ----------------------------------------------------------------

    async def seal(self, fencing_term: FencingTerm, names: SyncNames | None) -> None:
        """See Engine."""
        # Who dies in between has promised nothing yet. The other way round it would count as sealed while its
        # server is still to receive: from whoever was given up, once that is reached again.
        await self._local.seal(kill_s=KILL_S, sync=names)
        failpoints.hit("database.seal.receiver-gone")
        self._standing.seal(fencing_term)

    def note_acting(self, fencing_term: FencingTerm) -> None:
        """See Engine."""
        self._standing.act(fencing_term)

    async def follow(self, source: Source) -> None:
        """See Engine."""
        upstream = _upstream(source)
        if self._local.control.config.upstream != upstream:
            self._eyes.follows_another()
            await self._local.control.follow(upstream)

    async def promote(self, names: SyncNames, timeline_above: Timeline) -> Lsn:
        """See Engine."""
        control = self._local.control
        view = await control.look(LOOK_S)
        if view.sync_names != sync_text(names):
            await control.set_sync(names)  # which sees that they are in force
        failpoints.hit("database.promote.names-set")
        if view.is_standby:
            self._leave_out_timelines(view.timeline, timeline_above)
            failpoints.hit("database.promote.left-out")
        self._eyes.timeline_changed()
        return (await control.promote(PROMOTE_S)).flushed

    def _leave_out_timelines(self, present: Timeline, above: Timeline) -> None:
        """Have the promotion take a number above *above*: it takes the next one without a history file."""
        layout = self._local.layout
        folder = layout.data / "pg_wal"
        for number in range(present + 1, above + 1):
            path = folder / f"{number:08X}.history"
            if not path.exists():
                layout.write(path, LEFT_OUT, mode=0o600, own=True)
        if above > present:
            sync_folder(folder)

    async def copy(self, source: Source) -> None:
        """See Engine."""
        local = self._local
        try:
            config = replace(local.control.config, upstream=None)
            await clone(local.tools, local.files, config, _upstream(source))
            if local.postmaster.running is not None:
                raise Conflict("A server runs on the data that the copy is to replace; end it first.")
            async with self._folders:
                await asyncio.to_thread(local.layout.put_in_place)
            self._eyes.copied()
        finally:
            self._eyes.data_changed()

    async def rewind(self, source: Source, system_identifier: str) -> None:
        """See Engine."""
        local = self._local
        try:
            await rewind(local.tools, local.files, local.control.config, _upstream(source), system_identifier)
        except CannotRewind as error:
            self._eyes.rewind_refused = str(error)
            raise
        finally:
            self._eyes.data_changed()

    def put_restored_in_place(self) -> None:
        """What `restore` has made becomes this host's data. Fails: `Conflict` when there are data."""
        put_restored_in_place(self._local.layout)
        self._eyes.data_changed()

    async def drop_former(self) -> None:
        """See Engine."""
        async with self._folders:
            await asyncio.to_thread(self._local.layout.drop_former)

    # ---- as primary -----------------------------------------------------------------

    async def make_roles(self, password: str) -> None:
        """See Engine."""
        port = self._local.control.config.port
        await roles.make_roles(self._local.layout, port)
        await roles.set_password(self._local.layout, port, APP_ROLE, password)

    async def set_sync(self, names: SyncNames) -> Lsn:
        """See Engine."""
        return await self._local.control.set_sync(names)

    async def set_slots(self, hosts: tuple[HostId, ...]) -> None:
        """See Engine."""
        self._eyes.slots_changed()
        await self._local.control.set_slots(hosts)

    async def checkpoint(self) -> None:
        """See Engine."""
        session = await Session.open(self._local.layout, self._local.control.config.port, deadline_s=LOOK_S)
        try:
            await session.query("CHECKPOINT", deadline_s=CHECKPOINT_S)
        finally:
            session.drop()

    async def open(self) -> None:
        """See Engine."""
        # Nothing rests on when exactly clients get in, and they are led here only after this.
        await self._local.control.open(is_awaited=False)

    async def tidy(self) -> None:
        """See Engine."""
        postmaster, control = self._local.postmaster, self._local.control
        self._eyes.slots_changed()
        if postmaster.running is None or postmaster.status() != "ready":
            return
        await postmaster.trim_log()
        await self._eyes.look_for_damage()
        if has_standby_mark(self._local):
            await control.advance_slots(SLOTS_KEEP_BYTES)
            return
        began = time.monotonic()
        try:
            await control.check_new_session()
        except NotInTime:  # its postmaster stands still: the sessions there are go on, and get no successors
            self._deaf_since = self._deaf_since or began
            await self._end_if_hung(self._deaf_since)
            raise
        self._deaf_since = None


def _upstream(source: Source) -> Upstream:
    address, _, port = source.address.rpartition(":")
    return Upstream(source.host, address.strip("[]"), int(port))
