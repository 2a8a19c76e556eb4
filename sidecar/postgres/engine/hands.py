"""The driver's engine (sidecar.postgres.port) with a real PostgreSQL."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from mesh.errors import CannotRewind, Conflict, DatabaseFailed, DataDamaged, InvalidRequest, NotInTime
from mesh.identity.files import HostIdentity
from mesh.ids import FencingTerm, HostId, host_of
from sidecar.postgres.engine import roles, tls
from sidecar.postgres.engine.clone import clone
from sidecar.postgres.engine.config import APP_ROLE, Upstream, slot_name
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.control_data import read_history
from sidecar.postgres.engine.initdb import make_database
from sidecar.postgres.engine.layout import sync_folder
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.local_data import Standing, read_local_data
from sidecar.postgres.engine.observe import Receiver, ServerView
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.engine.rewind import rewind
from sidecar.postgres.model import (
    DataKind,
    LocalData,
    LocalProcess,
    LocalState,
    Lsn,
    ProcessKind,
    SyncNames,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.port import ReceiverSight, ServerProcess, ServerSettings, Sight, Source

LOG = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
#: A server that answers nobody for so long is ended, to be started anew.
HUNG_S: Final = 3.0
KILL_S: Final = 5.0
PROMOTE_S: Final = 60.0
CHECKPOINT_S: Final = 600.0
#: A standby that has not begun to receive by then says why in its log.
_EXPLAIN_S: Final = 3.0
_WAL_GONE: Final = re.compile(r"requested WAL segment \S+ has already been removed|replication slot .* lost")


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
        self._refused: tuple[tuple[tuple[str, str], ...], str] | None = None
        self._needs_restart: tuple[str, ...] = ()
        #: What pg_controldata said, until something is done with the data.
        self._data: LocalData | None = None
        self._history: TimelineHistory | None = None
        self._damaged = ""
        self._rewind_refused = ""
        self._slots: tuple[HostId, ...] | None = None
        self._blind_since: float | None = None
        self._following_since = 0.0
        self._starts = 0
        local.postmaster.on_end = on_end
        tls.install_identity(local.layout, identity())

    @property
    def process(self) -> ServerProcess | None:
        """See Engine."""
        running = self._local.postmaster.running
        return ServerProcess(running.pid, running.start_ticks, running.cgroup) if running else None

    async def recover(self) -> None:
        """See Engine."""
        adopted = await self._local.recover()
        if adopted is not None and not (self._local.layout.data / "standby.signal").exists():
            LOG.warning("database-primary-outlived-its-sidecar", pid=adopted.pid)
            await self.kill_all()

    # ---- looking --------------------------------------------------------------------

    async def look(self, system_identifier: str) -> Sight:
        """See Engine."""
        postmaster = self._local.postmaster
        if postmaster.running is None:
            self._history = None
            if not postmaster.is_gone():
                await postmaster.kill_tree(KILL_S)
            return self._sight_of_data(await self._look_at_data(system_identifier))
        if postmaster.status() != "ready":
            return self._sight_of_start()
        try:
            return await self._look_at_server()
        except (NotInTime, DatabaseFailed):
            await self._blind()
            raise

    async def _look_at_data(self, system_identifier: str) -> LocalData:
        if self._data is None:
            self._data = await read_local_data(self._local.tools, system_identifier)
        return self._with_memory(self._data)

    def _with_memory(self, data: LocalData) -> LocalData:
        return replace(
            data,
            damaged=data.damaged or self._damaged,
            rewind_refused=data.rewind_refused or self._rewind_refused,
            primary_term=self._standing.primary_term,
        )

    def _sight_of_data(self, data: LocalData) -> Sight:
        state = LocalState(data, LocalProcess(), self._standing.sealed_under)
        return Sight(state, version=self._local.binaries.version)

    def _sight_of_start(self) -> Sight:
        """It lets nobody in yet, or no more."""
        progress = self._local.postmaster.progress()
        process = LocalProcess(
            ProcessKind.RECOVERING if progress else ProcessKind.STARTING,
            as_standby=self._has_standby_mark(),
            progress=progress,
        )
        data = self._with_memory(
            replace(self._data or LocalData(DataKind.PRESENT), was_primary=not process.as_standby)
        )
        state = LocalState(data, process, self._standing.sealed_under)
        problem = f"it starts: {progress}" if progress else ""
        return Sight(state, version=self._local.binaries.version, problem=problem)

    def _has_standby_mark(self) -> bool:
        return (self._local.layout.data / "standby.signal").exists()

    async def _blind(self) -> None:
        """It answers nobody. Fails: as `Postmaster.kill_tree`."""
        now = time.monotonic()
        self._blind_since = self._blind_since or now
        if now - self._blind_since > HUNG_S:
            LOG.warning("database-hung", seconds=round(now - self._blind_since, 1))
            await self.kill_all()

    async def _look_at_server(self) -> Sight:
        control = self._local.control
        view = await control.look(LOOK_S)
        self._blind_since = self._data = None
        if self._history is None or self._history.timeline != view.timeline:
            self._history = self._read_history(view.timeline)
        if self._slots is None:
            self._slots = await self._look_at_slots()
        receivers = () if view.is_standby else await control.receivers(LOOK_S)
        data = LocalData(
            DataKind.PRESENT,
            system_identifier=view.system_identifier,
            history=self._history,
            was_primary=not view.is_standby,
        )
        process = LocalProcess(
            ProcessKind.STANDBY if view.is_standby else ProcessKind.PRIMARY,
            as_standby=view.is_standby,
            receives_from=view.receives_from,
            flushed=view.flushed,
            is_open=control.config.is_open and not view.is_standby,
        )
        self._note_lost_wal(view)
        return Sight(
            LocalState(self._with_memory(data), process, self._standing.sealed_under, self._slots),
            tuple(_receiver(each) for each in receivers if each.host is not None and not each.is_stranger),
            started=view.started,
            is_catching_up=view.is_catching_up,
            behind=max(0, view.flushed - view.replayed) if view.is_standby else 0,
            version=self._local.binaries.version,
            problem=self._problem(),
        )

    def _read_history(self, timeline: Timeline) -> TimelineHistory | None:
        try:
            return read_history(self._local.layout.data, timeline)
        except DataDamaged as error:
            self._damaged = str(error)
            return None

    async def _look_at_slots(self) -> tuple[HostId, ...]:
        """Hosts that have a slot here, as far as their names are known."""
        known = {slot_name(host): host for host in self._hosts()}
        return tuple(
            known.get(slot.name, HostId(slot.name.removeprefix("trellis_").replace("_", "-")))
            for slot in await self._local.control.slots(LOOK_S)
            if slot.name.startswith("trellis_")
        )

    def _hosts(self) -> tuple[HostId, ...]:
        return tuple(host_of(member) for member in (self._wanted.members if self._wanted else ()))

    def _note_lost_wal(self, view: ServerView) -> None:
        """A standby whose next WAL nobody has any more is as good as damaged."""
        upstream = self._local.control.config.upstream
        if not view.is_standby or upstream is None or view.receives_from is not None or self._damaged:
            return
        if time.monotonic() - self._following_since > _EXPLAIN_S:
            lines = self._local.postmaster.said()[-50:]
            found = next((line for line in reversed(lines) if _WAL_GONE.search(line)), "")
            if found:
                self._damaged = f"{upstream.host} has not the WAL any more that comes next here"

    def _problem(self) -> str:
        if self._refused is not None:
            return self._refused[1]
        if self._needs_restart:
            return f"{', '.join(self._needs_restart)} come into force with the next start"
        return ""

    # ---- what it reads --------------------------------------------------------------

    async def configure(self, wanted: ServerSettings) -> None:
        """See Engine."""
        self._wanted = wanted
        control, before = self._local.control, self._local.control.config
        if self._local.postmaster.running is None:
            new = replace(before, port=wanted.port, members=wanted.members, parameters=wanted.parameters)
            if new != before:
                control.write(new)
            return
        if self._local.postmaster.status() != "ready":
            return
        if tls.install_identity(self._local.layout, self._identity()) or wanted.members != before.members:
            await control.reload(replace(before, members=wanted.members))
        is_refused = self._refused is not None and self._refused[0] == wanted.parameters
        if wanted.parameters != before.parameters and not is_refused:
            try:
                self._needs_restart = await control.set_parameters(wanted.parameters)
                self._refused = None
            except InvalidRequest as error:
                self._refused = (wanted.parameters, str(error))

    # ---- its life -------------------------------------------------------------------

    async def make(self) -> None:
        """See Engine."""
        try:
            await make_database(self._local.tools)
        finally:
            self._data = None

    def start(self, *, names: SyncNames | None, source: Source | None) -> None:
        """See Engine."""
        config = self._local.control.config
        if self._wanted is not None:
            refused = self._refused[0] if self._refused is not None else None
            parameters = self._wanted.parameters
            if parameters == refused:
                parameters = config.parameters
            config = replace(
                config, port=self._wanted.port, members=self._wanted.members, parameters=parameters
            )
        config = replace(
            config,
            sync=names or config.sync,
            upstream=_upstream(source) if source is not None else None,
        )
        self._explain_last_end()
        self._slots = self._blind_since = None
        self._needs_restart = ()
        self._following_since = time.monotonic()
        self._local.start(as_standby=names is None, config=config)

    def _explain_last_end(self) -> None:
        """A server that ended because of its data must not be started on them again and again."""
        error = self._local.postmaster.last_end()
        if isinstance(error, DataDamaged):
            self._damaged = str(error)
            raise error

    async def stop(self, deadline_s: float) -> None:
        """See Engine."""
        self._local.control.close()
        try:
            await self._local.postmaster.stop(StopMode.FAST, deadline_s=deadline_s, kill_s=KILL_S)
        finally:
            self._data = None

    def kill_now(self) -> None:
        """See Engine."""
        self._local.postmaster.kill_now()

    async def kill_all(self) -> None:
        """See Engine."""
        self._local.control.close()
        try:
            await self._local.postmaster.kill_tree(KILL_S)
        finally:
            self._data = None

    # ---- whose it is ----------------------------------------------------------------

    async def seal(self, fencing_term: FencingTerm) -> None:
        """See Engine."""
        self._standing.seal(fencing_term)
        await self._local.seal(kill_s=KILL_S)

    def note_acting(self, fencing_term: FencingTerm) -> None:
        """See Engine."""
        self._standing.act(fencing_term)

    async def follow(self, source: Source) -> None:
        """See Engine."""
        upstream = _upstream(source)
        if self._local.control.config.upstream != upstream:
            self._following_since = time.monotonic()
            await self._local.control.follow(upstream)

    async def promote(self, names: SyncNames, timeline_above: Timeline) -> Lsn:
        """See Engine."""
        control = self._local.control
        if control.config.sync != names:
            await control.set_sync(names)
        view = await control.look(LOOK_S)
        if view.is_standby:
            self._leave_out_timelines(view.timeline, timeline_above)
        self._history = None
        return (await control.promote(PROMOTE_S)).flushed

    def _leave_out_timelines(self, present: Timeline, above: Timeline) -> None:
        """Have the promotion take a number above *above*: it takes the next one without a history file."""
        layout = self._local.layout
        folder = layout.data / "pg_wal"
        for number in range(present + 1, above + 1):
            path = folder / f"{number:08X}.history"
            if not path.exists():
                layout.write(path, b"# left out by Trellis\n", mode=0o600, own=True)
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
            await asyncio.to_thread(local.layout.put_in_place)
            self._damaged = self._rewind_refused = ""
        finally:
            self._data = None

    async def rewind(self, source: Source, system_identifier: str) -> None:
        """See Engine."""
        local = self._local
        try:
            await rewind(local.tools, local.files, local.control.config, _upstream(source), system_identifier)
        except CannotRewind as error:
            self._rewind_refused = str(error)
            raise
        finally:
            self._data = None

    async def drop_former(self) -> None:
        """See Engine."""
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
        self._slots = None
        await self._local.control.set_slots(hosts)

    async def checkpoint(self) -> None:
        """See Engine."""
        session = await Session.open(self._local.layout, self._local.control.config.port, deadline_s=LOOK_S)
        try:
            await session.query("CHECKPOINT", deadline_s=CHECKPOINT_S)
        finally:
            session.drop()

    async def set_open(self, *, is_open: bool) -> None:
        """See Engine."""
        control = self._local.control
        await (control.open() if is_open else control.shut())

    async def tidy(self) -> None:
        """See Engine."""
        postmaster, control = self._local.postmaster, self._local.control
        self._slots = None
        if postmaster.running is None or postmaster.status() != "ready":
            return
        await postmaster.trim_log()
        if self._has_standby_mark():
            return
        for stranger in await control.end_strangers():
            LOG.warning("database-stranger", name=stranger.name, host=stranger.host, address=stranger.address)
        try:
            await control.check_new_session()
        except NotInTime:  # its postmaster stands still, so sessions that end have no successors
            await self._blind()
            raise


def _upstream(source: Source) -> Upstream:
    address, _, port = source.address.rpartition(":")
    return Upstream(source.host, address.strip("[]"), int(port))


def _receiver(found: Receiver) -> ReceiverSight:
    assert found.host is not None
    return ReceiverSight(found.host, found.state, found.flushed, found.is_standby, found.lag_s)
