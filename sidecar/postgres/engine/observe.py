"""What a running server says of itself, as values.

The queries work in every state of the server and in all supported versions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from mesh.ids import HostId, MemberId, host_of
from sidecar.postgres.engine.config import copying_name
from sidecar.postgres.model import NO_LSN, Lsn, Timeline, parse_lsn

#: In recovery the timeline is the receiver's, else that of the newest segment with the last
#: position in it: a .history file may be there before any record of its timeline.
SERVER_SQL: Final[LiteralString] = """
WITH s AS (
  SELECT pg_is_in_recovery() AS standby,
         GREATEST(COALESCE(pg_last_wal_receive_lsn(), '0/0'),
                  COALESCE(pg_last_wal_replay_lsn(), '0/0')) AS have
), n AS (SELECT setting::bigint AS size FROM pg_settings WHERE name = 'wal_segment_size')
SELECT s.standby,
       (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN s.standby
            THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT max(('x' || substr(w.name, 1, 8))::bit(32)::int)
                             FROM pg_ls_waldir() w, n
                            WHERE w.name ~ '^[0-9A-F]{24}$'
                              AND ('x' || substr(w.name, 9, 8))::bit(32)::bigint * 4294967296
                                  + ('x' || substr(w.name, 17, 8))::bit(32)::bigint * n.size
                                  <= GREATEST(s.have - '0/0'::pg_lsn - 1, 0)))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
       CASE WHEN s.standby THEN s.have::text ELSE pg_current_wal_flush_lsn()::text END,
       COALESCE(pg_last_wal_replay_lsn(), '0/0')::text,
       COALESCE((SELECT conninfo FROM pg_stat_wal_receiver), ''),
       COALESCE((SELECT status FROM pg_stat_wal_receiver), ''),
       EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
       COALESCE((SELECT COALESCE(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'startup'), ''),
       current_setting('synchronous_standby_names'),
       current_setting('trellis.revision', true),
       pg_postmaster_start_time()::text,
       CASE WHEN s.standby THEN pg_is_wal_replay_paused() ELSE false END
  FROM s
"""

RECEIVERS_SQL: Final[LiteralString] = """
SELECT r.pid, r.application_name, COALESCE(c.client_dn, ''), COALESCE(r.client_addr::text, ''), r.state,
       COALESCE(r.sent_lsn, '0/0')::text, COALESCE(r.write_lsn, '0/0')::text,
       COALESCE(r.flush_lsn, '0/0')::text, COALESCE(r.replay_lsn, '0/0')::text,
       r.sync_state, r.sync_priority, COALESCE(extract(epoch FROM r.replay_lag), 0)::float8,
       COALESCE((SELECT s.slot_name FROM pg_replication_slots s WHERE s.active_pid = r.pid), '')
  FROM pg_stat_replication r LEFT JOIN pg_stat_ssl c ON c.pid = r.pid
 ORDER BY r.application_name, r.pid
"""

SLOTS_SQL: Final[LiteralString] = """
SELECT slot_name, active, COALESCE(restart_lsn, '0/0')::text, COALESCE(wal_status, ''),
       COALESCE(active_pid, 0)
  FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name
"""

BAD_PAGES_SQL: Final[LiteralString] = """
SELECT datname, checksum_failures, date_trunc('second', checksum_last_failure)::text
  FROM pg_stat_database WHERE checksum_failures > 0 ORDER BY datname
"""

_SENDER: Final = re.compile(r"(?:^|\s)host='?([a-z0-9-]+)\.")
_COMMON_NAME: Final = re.compile(r"(?:^|[/,])CN=([^/,]+)")
_INCARNATION: Final = re.compile(r"(?:^|[/,])dnQualifier=([1-9][0-9]*)(?:$|[/,])")
#: The server shows so much of a subject (NAMEDATALEN - 1) and cuts off the rest, first the incarnation.
_SUBJECT_BYTES: Final = 63
#: The startup process waits for more WAL and has replayed all whole records that there are.
_AT_THE_END: Final = frozenset({"RecoveryWalStream", "RecoveryRetrieveRetryInterval"})


@dataclass(frozen=True, slots=True)
class ServerView:
    """One look at the server."""

    is_standby: bool
    system_identifier: str
    timeline: Timeline
    #: Standby: what it has durably, received or found; primary: what it has flushed.
    flushed: Lsn
    replayed: Lsn
    #: Whose WAL its receiver is connected to; None: no receiver, or not connected yet.
    receives_from: HostId | None
    is_streaming: bool
    #: A receiver process lives, in whatever state.
    has_receiver: bool
    #: Standby: it still reads WAL that it has.
    is_catching_up: bool
    #: As the server shows it.
    sync_names: str
    revision: int
    #: Changes with every start of the postmaster.
    started: str
    is_replay_paused: bool = False


@dataclass(frozen=True, slots=True)
class Receiver:
    """One connection that receives WAL from this server."""

    pid: int
    #: What it calls itself, which is what counts for `synchronous_standby_names`.
    name: str
    #: The host that its certificate proves; None without one.
    host: HostId | None
    address: str
    state: str
    sent: Lsn
    written: Lsn
    flushed: Lsn
    replayed: Lsn
    sync_state: str
    sync_priority: int
    lag_s: float
    slot: str
    #: As what its certificate was issued; None where the server does not show the incarnation: a long name.
    member: MemberId | None = None

    def is_stranger_among(self, members: Sequence[MemberId]) -> bool:
        """It bears a name that is not its own, or is none of *members* (any more): end it.

        Sessions outlive what pg_ident.conf says of them. No members: they are not known yet.
        """
        if self.is_stranger or not members:
            return self.is_stranger
        if self.member is not None:
            return self.member not in members
        return self.host not in [host_of(each) for each in members]

    @property
    def is_stranger(self) -> bool:
        """It bears a name that its certificate does not prove. What it acknowledges must not count."""
        return self.host != self.name and not self.is_copy

    @property
    def is_copy(self) -> bool:
        """It receives for a clone, a backup or an archive, and never counts."""
        return self.host is not None and self.name == copying_name(self.host)

    @property
    def is_standby(self) -> bool:
        """It counts where its name stands among the synchronous ones."""
        return self.host == self.name and self.state == "streaming"


@dataclass(frozen=True, slots=True)
class Slot:
    """What keeps WAL for a standby."""

    name: str
    is_active: bool
    #: 0: it keeps nothing yet.
    keeps_from: Lsn
    #: "lost": the standby that it was for must be cloned anew.
    wal_status: str
    pid: int

    @property
    def is_lost(self) -> bool:
        """It keeps nothing any more, and nobody uses it."""
        return self.wal_status == "lost" and not self.is_active


def server_view(row: tuple[Any, ...]) -> ServerView:
    """The one row of SERVER_SQL."""
    sender = _SENDER.search(row[5])
    return ServerView(
        is_standby=row[0],
        system_identifier=row[1],
        timeline=Timeline(row[2] or 0),
        flushed=parse_lsn(row[3]),
        replayed=parse_lsn(row[4]),
        receives_from=HostId(sender[1]) if sender and row[6] == "streaming" else None,
        is_streaming=row[6] == "streaming",
        has_receiver=row[7],
        # Not by positions: what was received last may be the beginning of a record, which is never replayed.
        is_catching_up=row[0] and row[8] not in _AT_THE_END,
        sync_names=row[9],
        revision=int(row[10] or 0),
        started=row[11],
        is_replay_paused=row[12],
    )


def receiver(row: tuple[Any, ...]) -> Receiver:
    """A row of RECEIVERS_SQL."""
    proven, is_whole = _COMMON_NAME.search(row[2]), len(row[2].encode()) < _SUBJECT_BYTES
    incarnation = _INCARNATION.search(row[2]) if is_whole else None
    if is_whole and incarnation is None:
        proven = None  # an operator may be called as a host, and versions before 14 let it in as that
    return Receiver(
        pid=row[0],
        name=row[1],
        host=HostId(proven[1]) if proven else None,
        address=row[3],
        state=row[4] or "",
        sent=parse_lsn(row[5]),
        written=parse_lsn(row[6]),
        flushed=parse_lsn(row[7]),
        replayed=parse_lsn(row[8]),
        sync_state=row[9] or "",
        sync_priority=row[10] or 0,
        lag_s=row[11],
        slot=row[12],
        member=MemberId(f"{proven[1]}.{incarnation[1]}") if proven and incarnation else None,
    )


def slot(row: tuple[Any, ...]) -> Slot:
    """A row of SLOTS_SQL."""
    keeps = parse_lsn(row[2])
    return Slot(row[0], row[1], keeps if keeps else NO_LSN, row[3], row[4])
