"""Speaking with the server of this host: what it is told, each time until it was seen to obey.

A reload counts as loaded when a *fresh* connection shows its revision: the postmaster accepts
nobody between reading its files and telling its children, so by then every child has the signal.
A walsender that confirms WAL written after that has loaded it too.

Order: files are written first and are right for the next start, whatever happens then.
"""

import asyncio
import signal
import time
from dataclasses import replace
from typing import Any, Final, LiteralString

from mesh import failpoints
from mesh.errors import Conflict, DatabaseFailed, InvalidRequest, NotInTime, Problem
from mesh.ids import HostId
from sidecar.postgres.engine import observe
from sidecar.postgres.engine.config import (
    NOT_BELOW_PRIMARY,
    ConfigFiles,
    ServerConfig,
    Upstream,
    check_parameters,
    slot_name,
    sync_text,
)
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.process import Postmaster
from sidecar.postgres.model import Lsn, SyncNames, format_lsn, parse_lsn

QUERY_S: Final = 2.0
RELOAD_S: Final = 5.0
_LOOK_S_MIN, _LOOK_S_MAX = 0.001, 0.02
#: WAL is deleted in segments of that size.
_ADVANCE_BYTES: Final = 16 << 20
#: What waited for a start and was then taken out of the files still counts as pending to PostgreSQL.
_WAITING_SQL: Final[LiteralString] = """
SELECT s.name,
       CASE WHEN s.name = ANY (%s) AND w.said ~ '^[0-9]+$'
            THEN s.setting::bigint > w.said::bigint ELSE false END
  FROM pg_settings s CROSS JOIN LATERAL (
         SELECT COALESCE((SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name
                           ORDER BY f.seqno DESC LIMIT 1), s.boot_val) AS said) w
 WHERE s.pending_restart
   AND (s.setting IS DISTINCT FROM s.boot_val
        OR EXISTS (SELECT FROM pg_file_settings f WHERE f.name = s.name))
 ORDER BY s.name
"""


class Control:
    """One server's control. Used by one task at a time.

    Every method: fails with `NotInTime`, `DatabaseFailed` (the server is gone or refuses) or
    `DiskFull`; the kept connection is opened again by the next one. Cancellation drops it.
    """

    def __init__(
        self, layout: Layout, files: ConfigFiles, postmaster: Postmaster, config: ServerConfig
    ) -> None:
        self.config = config
        self._layout = layout
        self._files = files
        self._postmaster = postmaster
        self._session: Session | None = None

    # ---- the connection ------------------------------------------------------------

    async def _query(
        self, text: LiteralString, values: tuple[object, ...] = (), *, deadline_s: float = QUERY_S
    ) -> list[tuple[Any, ...]]:
        began = time.monotonic()
        if self._session is None or self._session.is_closed:
            self._session = await Session.open(self._layout, self.config.port, deadline_s=deadline_s)
        left_s = max(deadline_s - (time.monotonic() - began), 0.001)
        return await self._session.query(text, values, deadline_s=left_s)

    def close(self) -> None:
        """Drop the kept connection."""
        if self._session is not None:
            self._session.drop()
            self._session = None

    async def check_new_session(self, deadline_s: float = QUERY_S) -> None:
        """Whether new sessions are let in: a frozen postmaster serves the old ones only."""
        session = await Session.open(self._layout, self.config.port, deadline_s=deadline_s)
        session.drop()

    # ---- looking -------------------------------------------------------------------

    async def look(self, deadline_s: float = QUERY_S) -> observe.ServerView:
        """The server's own state, in one round trip."""
        rows = await self._query(observe.SERVER_SQL, deadline_s=deadline_s)
        return observe.server_view(rows[0])

    async def receivers(self, deadline_s: float = QUERY_S) -> tuple[observe.Receiver, ...]:
        """Who receives WAL from here, strangers among them."""
        return tuple(
            observe.receiver(row) for row in await self._query(observe.RECEIVERS_SQL, deadline_s=deadline_s)
        )

    async def slots(self, deadline_s: float = QUERY_S) -> tuple[observe.Slot, ...]:
        return tuple(observe.slot(row) for row in await self._query(observe.SLOTS_SQL, deadline_s=deadline_s))

    # ---- files and reload ----------------------------------------------------------

    def write(self, config: ServerConfig) -> int:
        """Write the files for a server that does not run, or before `reload`."""
        revision = self._files.write(config)
        self.config = config
        return revision

    async def reload(self, config: ServerConfig, deadline_s: float = RELOAD_S) -> None:
        """Have *config* loaded; returns when the postmaster has it and has told all its children.

        Fails: `InvalidRequest` when the server refuses a parameter; then files and server are as before.
        """
        before = self.config
        problems = await self._load(config, deadline_s)
        if problems:
            await self._load(before, deadline_s)
            raise InvalidRequest("PostgreSQL refuses the parameters; the former ones stay.", problems)

    async def _load(self, config: ServerConfig, deadline_s: float) -> list[Problem]:
        """Write, signal, and look until loaded or refused; what is refused."""
        revision, deadline = self.write(config), time.monotonic() + deadline_s
        self._postmaster.signal(signal.SIGHUP)
        pause = _LOOK_S_MIN
        while True:
            session = await Session.open(self._layout, self.config.port, deadline_s=_left(deadline))
            try:
                loaded, problems = await _what_is_loaded(session, revision, deadline)
            finally:
                session.drop()
            if loaded or problems:
                return problems
            if time.monotonic() > deadline:
                raise NotInTime(f"PostgreSQL has not loaded its files within {deadline_s:g} s.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_S_MAX)

    async def set_parameters(self, parameters: tuple[tuple[str, str], ...]) -> dict[str, bool]:
        """Load declared parameters; returns those that need a restart to come into force, and whether a
        standby cannot have them so before its primary has.

        Fails: `InvalidRequest`; then the former ones stay.
        """
        problems = check_parameters(parameters)
        if problems:
            raise InvalidRequest("These parameters cannot be declared.", problems)
        await self.reload(replace(self.config, parameters=parameters, least=()))
        rows = await self._query(_WAITING_SQL, ([*NOT_BELOW_PRIMARY],))
        return dict(rows)

    # ---- damage --------------------------------------------------------------------

    async def bad_pages(self) -> str:
        """What it says of pages that failed their checksums when it read them; empty: none did."""
        rows = await self._query(observe.BAD_PAGES_SQL)
        told = [f"{count} times in {name or 'what all share'}, last {last}" for name, count, last in rows]
        return "; ".join(told)

    # ---- the synchronous set -------------------------------------------------------

    async def set_sync(self, names: SyncNames, deadline_s: float = RELOAD_S, confirm_s: float = 0.5) -> Lsn:
        """Have *names* in force in every process; returns a position that was written after that.

        A walsender that has not confirmed that position after *confirm_s* is ended: it comes
        back with the new names. What ALTER SYSTEM says instead is taken back, with all else that it says.
        Fails: `Conflict` when something overrides the names even so.
        """
        await self.reload(replace(self.config, sync=names), deadline_s)
        view = await self.look()
        if view.sync_names != sync_text(names):
            self._files.point(self._layout.data)
            await self.reload(self.config, deadline_s)
            view = await self.look()
        if view.sync_names != sync_text(names):
            raise Conflict(
                f"synchronous_standby_names is {view.sync_names!r} instead of {sync_text(names)!r}:"
                " something overrides it; run ALTER SYSTEM RESET ALL and start PostgreSQL anew."
            )
        if view.is_standby:
            return view.flushed
        barrier = await self.write_barrier()
        await self._all_confirm(barrier, confirm_s, deadline_s)
        return barrier

    async def write_barrier(self) -> Lsn:
        """Write something small and flush it; returns the position behind it."""
        await self._query("SELECT pg_logical_emit_message(true, 'trellis', 'barrier')")
        return parse_lsn((await self._query("SELECT pg_current_wal_flush_lsn()::text"))[0][0])

    async def _all_confirm(self, barrier: Lsn, confirm_s: float, deadline_s: float) -> None:
        old = {each.pid for each in await self.receivers() if each.state != "backup" and not each.is_copy}
        began, pause, ended = time.monotonic(), _LOOK_S_MIN, False
        while old:
            present = {each.pid: each.flushed for each in await self.receivers()}
            old = {pid for pid in old if pid in present and present[pid] < barrier}
            passed_s = time.monotonic() - began
            if old and passed_s > deadline_s:
                raise NotInTime("A walsender neither confirms nor ends; the names may not be in force in it.")
            if old and not ended and passed_s > confirm_s:
                await self._query(
                    "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", (sorted(old),)
                )
                ended = True
            if old:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LOOK_S_MAX)

    async def end_strangers(self) -> tuple[observe.Receiver, ...]:
        """End receivers that do not prove their name, or are no members (any more); returns them."""
        members = self.config.members
        found = tuple(each for each in await self.receivers() if each.is_stranger_among(members))
        if found:
            pids = [each.pid for each in found]
            await self._query("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", (pids,))
        return found

    # ---- whom to receive from ------------------------------------------------------

    async def seal(self, deadline_s: float = RELOAD_S, sync: SyncNames | None = None) -> observe.ServerView:
        """Receive from nobody any more; what is returned was read after the receiver was gone.

        Durable: a server that starts again stays sealed until `follow`. *sync*: loaded by the way.
        Replay that somebody has paused goes on: what it has is needed now.
        """
        deadline = time.monotonic() + deadline_s
        await self.reload(replace(self.config, upstream=None, sync=sync or self.config.sync), deadline_s)
        looks, pause = 0, _LOOK_S_MIN
        while True:
            view = await self.look(_left(deadline))
            if view.is_replay_paused:  # then it does not hear that it is to receive nothing
                await self._query("SELECT pg_wal_replay_resume()", deadline_s=_left(deadline))
            # Twice: the startup process may just have asked for one more receiver before it heard.
            looks = 0 if view.has_receiver else looks + 1
            if looks == 2:
                return view
            if time.monotonic() > deadline:
                raise NotInTime(f"The receiver of WAL has not ended within {deadline_s:g} s; not sealed.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_S_MAX)

    async def follow(self, upstream: Upstream, deadline_s: float = RELOAD_S) -> None:
        """Receive from *upstream* from now on. Whether that succeeds, `wait_streaming` tells."""
        await self.reload(replace(self.config, upstream=upstream), deadline_s)

    async def wait_streaming(self, deadline_s: float) -> observe.ServerView:
        """Until WAL comes from the host it is to follow. Fails: `NotInTime` with the receiver's words."""
        deadline, pause = time.monotonic() + deadline_s, _LOOK_S_MIN
        upstream = self.config.upstream
        while True:
            view = await self.look(_left(deadline))
            if upstream is not None and view.receives_from == upstream.host:
                return view
            if time.monotonic() > deadline:
                whom = upstream.host if upstream else "nobody"
                raise NotInTime(f"No WAL from {whom} within {deadline_s:g} s: {self._receiver_words()}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_S_MAX)

    def _receiver_words(self) -> str:
        lines = self._postmaster.said()
        about = [line for line in lines if "FATAL" in line or "primary" in line or "ERROR" in line]
        return about[-1] if about else "its log has no reason"

    # ---- becoming and being the primary --------------------------------------------

    async def promote(self, deadline_s: float) -> observe.ServerView:
        """Make the standby the primary of a new timeline; the names of `set_sync` hold from its first commit.

        By file and signal, and looking: `pg_promote` polls every 100 ms. Fails: `Conflict` when it
        receives WAL still (seal it first); `NotInTime`, and it may yet become the primary.
        """
        view = await self.look()
        if not view.is_standby:
            return view
        if view.has_receiver or self.config.upstream is not None:
            raise Conflict("This standby still receives WAL; it is not promoted before it is sealed.")
        self._layout.write(self._layout.data / "promote", b"", mode=0o600, own=True, durable=False)
        failpoints.hit("database.promote.file-written")
        self._postmaster.signal(signal.SIGUSR1)
        failpoints.hit("database.promote.signalled")
        began, pause = time.monotonic(), _LOOK_S_MIN
        deadline = began + deadline_s
        while (await self._query("SELECT pg_is_in_recovery()", deadline_s=_left(deadline)))[0][0]:
            if time.monotonic() > deadline:
                raise NotInTime(
                    f"Not promoted within {deadline_s:g} s ({self._postmaster.progress()}).",
                    progress=self._postmaster.progress(),
                )
            await asyncio.sleep(pause)
            # Nobody writes until then: looked for more often while it is short.
            pause = min(1.5 * pause, max(_LOOK_S_MIN, (time.monotonic() - began) / 10), _LOOK_S_MAX)
        return await self.look()

    async def checkpoint(self, deadline_s: float) -> None:
        """Write a checkpoint now: before a switchover, and after a promotion before others rewind."""
        await self._query("CHECKPOINT", deadline_s=deadline_s)

    async def open(self, *, is_awaited: bool = True) -> None:
        """Let clients in; not *is_awaited*: it was told, and the next reload sees whether it obeyed."""
        if is_awaited:
            await self.reload(replace(self.config, is_open=True))
        else:
            self.write(replace(self.config, is_open=True))
            self._postmaster.signal(signal.SIGHUP)

    # ---- slots ---------------------------------------------------------------------

    async def set_slots(self, hosts: tuple[HostId, ...]) -> None:
        """One slot for each of *hosts*, that keeps WAL from now on, and none of ours for others.

        One that has lost its WAL is made anew. Fails: `Conflict` when one to be dropped is in use.
        """
        wanted = {slot_name(host) for host in hosts}
        present = {each.name: each for each in await self.slots()}
        for name in sorted(wanted & present.keys()):
            if present[name].is_lost:
                await self._query("SELECT pg_drop_replication_slot(%s)", (name,))
                del present[name]
        for name in sorted(wanted - present.keys()):
            await self._query("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
        for name in sorted(present.keys() - wanted):
            if not name.startswith("trellis_"):
                continue
            if present[name].is_active:
                raise Conflict(f"Slot {name} is in use by process {present[name].pid}; it is not dropped.")
            await self._query("SELECT pg_drop_replication_slot(%s)", (name,))

    async def advance_slots(self, kept_bytes: int) -> None:
        """Have a standby's slots keep that much, or half of what slots may, before what it has replayed.

        Nobody receives by them before it is promoted: by themselves they keep all that comes, and are lost.
        """
        view = await self.look()
        if not view.is_standby:
            return
        asked: LiteralString = "SELECT pg_size_bytes(current_setting('max_slot_wal_keep_size'))"
        most = (await self._query(asked))[0][0]
        up_to = view.replayed - (min(kept_bytes, most // 2) if most >= 0 else kept_bytes)
        for each in await self.slots():
            is_ours = each.name.startswith("trellis_") and not each.is_active and each.keeps_from
            if is_ours and each.keeps_from + _ADVANCE_BYTES <= up_to:
                moved: LiteralString = "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)"
                await self._query(moved, (each.name, format_lsn(Lsn(up_to))))


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.05)


async def _what_is_loaded(session: Session, revision: int, deadline: float) -> tuple[bool, list[Problem]]:
    """Whether the postmaster has loaded *revision*, and what is wrong in the files.

    A wrong value leaves the other parameters loaded, an unknown name none of them; who waits for
    a restart is no problem. Fails: `DatabaseFailed` for a pg_hba.conf that is not understood.
    """
    shown: LiteralString = "SELECT current_setting('trellis.revision', true)"
    loaded = await session.query(shown, deadline_s=_left(deadline)) == [(str(revision),)]
    text: LiteralString = (
        "SELECT f.name, f.setting, f.error FROM pg_file_settings f LEFT JOIN pg_settings s USING (name)"
        " WHERE f.error IS NOT NULL AND s.pending_restart IS NOT TRUE"
        " AND f.error NOT LIKE '%without restarting the server'"
    )
    rows = await session.query(text, deadline_s=_left(deadline))
    problems = [Problem(f"parameters.{name}", f"{setting!r}: {error}") for name, setting, error in rows]
    rules: LiteralString = "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL"
    rows = await session.query(rules, deadline_s=_left(deadline))
    if loaded and rows:
        raise DatabaseFailed(f"PostgreSQL refuses pg_hba.conf, line {rows[0][0]}: {rows[0][1]}")
    return loaded, problems
