"""What the driver sees of a real PostgreSQL: its data directory, its start, its server.

What cannot be read again (why it was given up, what a rewind said) is remembered until a copy replaces it.
"""

import re
import time
from dataclasses import replace
from typing import Final

from mesh.errors import DataDamaged
from mesh.ids import HostId
from sidecar.postgres.engine.config import slot_name, sync_text
from sidecar.postgres.engine.control_data import read_history
from sidecar.postgres.engine.initdb import forget_made, was_made_here
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.local_data import Standing, read_local_data
from sidecar.postgres.engine.observe import Receiver, ServerView
from sidecar.postgres.model import (
    DataKind,
    LocalData,
    LocalProcess,
    LocalState,
    ProcessKind,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.port import ReceiverSight, Sight

LOOK_S: Final = 1.0
KILL_S: Final = 5.0
#: A standby that has not begun to receive by then says why in its log.
_EXPLAIN_S: Final = 3.0
_PAUSED: Final = (
    "its replay is paused, so it shows old data: SELECT pg_wal_replay_resume() lets it go on,"
    " unless a parameter is lower than on the primary (postgres.log)"
)
_WAL_GONE: Final = re.compile(r"requested WAL segment \S+ has already been removed|replication slot .* lost")


class Eyes:
    """Looks, and remembers between looks what is costly to find out again."""

    def __init__(self, local: LocalPostgres, standing: Standing) -> None:
        self._local = local
        self._standing = standing
        #: The hosts that may have a slot here.
        self.hosts: tuple[HostId, ...] = ()
        #: Why the data must not be used; empty: nothing wrong is known.
        self.damaged = ""
        self.rewind_refused = ""
        #: What its server said of pages that failed their checksums, and which start of it that was.
        self.bad_pages = self._bad_in = ""
        self._started = ""
        #: At the last look, somebody received WAL under a name that is not its own.
        self.has_strangers = False
        #: What the control file said, until something is done with the data.
        self._data: LocalData | None = None
        #: Its database was seen to be the recorded one.
        self._is_recorded = False
        #: It was seen to let sessions in.
        self._is_consistent = False
        self._history: TimelineHistory | None = None
        self._slots: tuple[HostId, ...] | None = None
        self._following_since = 0.0
        #: The last synchronous names that it was told and had loaded.
        self._names: str | None = None

    # ---- what is not as it was ------------------------------------------------------

    def data_changed(self) -> None:
        """Something was done with the data directory."""
        self._data, self._is_consistent = None, False

    def timeline_changed(self) -> None:
        """It is about to write another timeline."""
        self._history = None

    def slots_changed(self) -> None:
        """They are to be read again."""
        self._slots = None

    def follows_another(self) -> None:
        """It was told now whom to receive from."""
        self._following_since = time.monotonic()

    def copied(self) -> None:
        """Other data are in place: nothing of what was found of the last ones holds."""
        self.damaged = self.rewind_refused = self.bad_pages = ""

    async def look_for_damage(self) -> None:
        """Ask the server, which must let sessions in. It forgets by a crash, so an earlier word stays until
        the same start of it has none; `pg_stat_reset` takes it back. Fails: as `Control.bad_pages`.
        """
        told = await self._local.control.bad_pages()
        if told or self._bad_in == self._started:
            self.bad_pages, self._bad_in = told, self._started

    @property
    def least(self) -> tuple[tuple[str, int], ...]:
        """See LocalData; as of the last look at data without a server."""
        return self._data.least if self._data is not None else ()

    # ---- looking --------------------------------------------------------------------

    async def look(self, system_identifier: str, problem: str) -> Sight:
        """See Engine. *problem* is told of a server that runs."""
        postmaster = self._local.postmaster
        if postmaster.running is None:
            self._history = None
            if not postmaster.is_gone():
                await postmaster.kill_tree(KILL_S)
            return self._sight_of_data(await self._look_at_data(system_identifier))
        if postmaster.status() != "ready":
            return self._sight_of_start()
        return await self._look_at_server(problem)

    async def _look_at_data(self, system_identifier: str) -> LocalData:
        if self._data is None:
            self._data = await read_local_data(self._local.layout, system_identifier)
        data = self._data
        self._note_recorded(data, system_identifier)
        is_other = system_identifier and data.system_identifier not in ("", system_identifier)
        if is_other and not data.is_leftover and was_made_here(self._local.layout, data.system_identifier):
            why = "it was made here, and then the cluster's database was made on another host"
            data = replace(data, system_identifier="", damaged=why)
        return self._with_memory(data)

    def _note_recorded(self, data: LocalData, system_identifier: str) -> None:
        """The cluster's database is on record, and here: what was made before means nothing any more."""
        if system_identifier and data.system_identifier == system_identifier and not self._is_recorded:
            forget_made(self._local.layout)
            self._is_recorded = True

    def _with_memory(self, data: LocalData) -> LocalData:
        return replace(
            data,
            damaged=data.damaged or self.damaged,
            rewind_refused=data.rewind_refused or self.rewind_refused,
            primary_term=self._standing.primary_term,
        )

    def _sight_of_data(self, data: LocalData) -> Sight:
        state = LocalState(data, LocalProcess(), self._standing.sealed_under)
        return Sight(state, version=self._local.binaries.version, problem=self._local.postmaster.why_ended)

    def _sight_of_start(self) -> Sight:
        """It lets nobody in yet, or no more."""
        progress = self._local.postmaster.progress()
        upstream = self._local.control.config.upstream
        process = LocalProcess(
            ProcessKind.RECOVERING if progress else ProcessKind.STARTING,
            as_standby=has_standby_mark(self._local),
            told=(upstream.host, upstream.place) if upstream is not None else None,
            progress=progress,
        )
        data = self._with_memory(
            replace(self._data or LocalData(DataKind.PRESENT), was_primary=not process.as_standby)
        )
        state = LocalState(data, process, self._standing.sealed_under)
        problem = f"it starts: {progress}" if progress else ""
        return Sight(state, version=self._local.binaries.version, problem=problem)

    async def _look_at_server(self, problem: str) -> Sight:
        control = self._local.control
        view = await control.look(LOOK_S)
        self._data, self._started = None, view.started
        if not self._is_consistent:
            if self._local.layout.rewound_note.exists():
                self._local.layout.drop_note(self._local.layout.rewound_note)
            self._is_consistent = True
        if self._history is None or self._history.timeline != view.timeline:
            self._history = self._read_history(view.timeline)
        if self._slots is None:
            self._slots = await self._look_at_slots()
        receivers = () if view.is_standby else await control.receivers(LOOK_S)
        self.has_strangers = any(each.is_stranger_among(control.config.members) for each in receivers)
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
            has_other_names=not view.is_standby and self._are_others(view.sync_names),
        )
        self._note_lost_wal(view)
        return Sight(
            LocalState(self._with_memory(data), process, self._standing.sealed_under, self._slots),
            tuple(
                _receiver(each)
                for each in receivers
                if each.host == each.name and not each.is_stranger_among(control.config.members)
            ),
            started=view.started,
            is_catching_up=view.is_catching_up,
            behind=max(0, view.flushed - view.replayed) if view.is_standby else 0,
            version=self._local.binaries.version,
            problem=problem or (_PAUSED if view.is_replay_paused else ""),
        )

    def _are_others(self, names: str) -> bool:
        """It was never told these; those of before stay in force until it has loaded the last."""
        told = sync_text(self._local.control.config.sync)
        if names == told:
            self._names = told
        return names not in (told, self._names)

    def _read_history(self, timeline: Timeline) -> TimelineHistory | None:
        try:
            return read_history(self._local.layout.data, timeline)
        except DataDamaged as error:
            self.damaged = str(error)
            return None

    async def _look_at_slots(self) -> tuple[HostId, ...]:
        """Hosts that have a slot here which keeps WAL, as far as their names are known."""
        known = {slot_name(host): host for host in self.hosts}
        return tuple(
            known.get(slot.name, HostId(slot.name.removeprefix("trellis_").replace("_", "-")))
            for slot in await self._local.control.slots(LOOK_S)
            if slot.name.startswith("trellis_") and not slot.is_lost
        )

    def _note_lost_wal(self, view: ServerView) -> None:
        """A standby whose next WAL nobody has any more is as good as damaged."""
        upstream = self._local.control.config.upstream
        if not view.is_standby or upstream is None or view.receives_from is not None or self.damaged:
            return
        if time.monotonic() - self._following_since > _EXPLAIN_S:
            lines = self._local.postmaster.said()[-50:]
            found = next((line for line in reversed(lines) if _WAL_GONE.search(line)), "")
            if found:
                self.damaged = f"{upstream.host} has not the WAL any more that comes next here"


def has_standby_mark(local: LocalPostgres) -> bool:
    """Its data are a standby's."""
    return (local.layout.data / "standby.signal").exists()


def _receiver(found: Receiver) -> ReceiverSight:
    assert found.host is not None
    return ReceiverSight(found.host, found.state, found.flushed, found.is_standby, found.lag_s)
