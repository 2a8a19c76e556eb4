"""What the server reads: its parameters, who may connect, and which certificate is whom.

All of it stands in `conf/`, outside the data directory, because a clone and a rewind bring
postgresql.conf and postgresql.auto.conf of another host with them: the one in the data
directory is a single include, and what ALTER SYSTEM left is emptied, at every start.

Invariant: a receiver of WAL proves by a host's certificate, of the incarnation that is a
member now, which host it is; over the network nobody is superuser.
Every writing raises `trellis.revision`: a fresh connection that shows it proves that the
postmaster has loaded everything and has told all its children (see control.py).
Source: PostgreSQL manual, chapters 20 and 21; FACTS measured for the values.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from mesh.errors import Problem
from mesh.identity.names import tls_name
from mesh.ids import ClusterId, HostId, MemberId, host_of, incarnation_of
from sidecar.postgres.engine import full_disk, tls
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.model import SyncNames

ADMIN_ROLE: Final = "trellis_admin"
REPLICATION_ROLE: Final = "trellis_replication"
REWIND_ROLE: Final = "trellis_rewind"
APP_ROLE: Final = "trellis_app"
APP_DATABASE: Final = "trellis"
#: Parameter of our own; any dotted name is allowed in the file.
REVISION: Final = "trellis.revision"

_SLOT_CHARS_MAX: Final = 63
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_KEEPALIVE: Final = "keepalives_idle=1 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=3000"

#: Good for most; a declaration may say otherwise.
DEFAULTS: Final = {
    "checkpoint_timeout": "15min",
    "log_checkpoints": "on",
    "log_lock_waits": "on",
    "max_connections": "200",
    "max_slot_wal_keep_size": "4GB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "1",
    "wal_compression": "on",
    "wal_keep_size": "256MB",
}
#: Of which a standby must have as much as its primary, with what they are where nothing is said.
#: Source: PostgreSQL manual, section 27.4.3, Administrator's overview (of hot standby).
NOT_BELOW_PRIMARY: Final = {
    "max_connections": 100,
    "max_locks_per_transaction": 64,
    "max_prepared_transactions": 0,
    "max_worker_processes": 8,
}
#: A crash restart then takes 0.1 s instead of 0.2 to 1 s: one call instead of one for each file.
_DEFAULTS_14: Final = {"recovery_init_sync_method": "syncfs"}
#: What safety or the manager itself rests on: not for a declaration to change.
FIXED: Final = {
    # Else the warning that a commit was not waited for does not reach its client.
    "client_min_messages": "notice",
    # After a failed flush pages count as written that are not: it must end, and read its WAL.
    "data_sync_retry": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "hot_standby": "on",
    "ignore_checksum_failure": "off",
    "ignore_invalid_pages": "off",
    "lc_messages": "C",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "logging_collector": "off",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "password_encryption": "scram-sha-256",
    # A standby that waits with what it has would hold up every promotion for as long.
    "recovery_min_apply_delay": "0",
    "recovery_target_timeline": "latest",
    # A crash restart shows commits that no standby has: it must start closed, by the manager.
    "restart_after_crash": "off",
    # WAL comes from the primary alone: an archive has that of others, too.
    "restore_command": "",
    "ssl": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "wal_log_hints": "on",
    # At the default of 5 s one promotion in twelve leaves a standby without a primary for 5 s.
    "wal_receiver_timeout": "5s",
    "wal_retrieve_retry_interval": "20ms",
    "wal_sender_timeout": "5s",
    "zero_damaged_pages": "off",
}
_OURS: Final = frozenset(FIXED) | {
    "client_min_messages",
    "cluster_name",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_permissions",
}
#: A recovery target would end a standby's recovery.
_OUR_PREFIXES: Final = ("trellis.", "recovery_target")


Parameters: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Whom WAL is received, cloned or rewound from."""

    host: HostId
    address: str
    port: int

    @property
    def place(self) -> str:
        """Address and port in one text, as hosts tell it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that one host's server is to be told."""

    cluster_id: ClusterId
    host: HostId
    port: int
    listen: tuple[str, ...]
    #: Hosts whose certificates may receive WAL and serve a rewind.
    members: tuple[MemberId, ...]
    parameters: Parameters = ()
    #: Of some, what a standby starts with at least, whatever is declared.
    least: tuple[tuple[str, int], ...] = ()
    #: None: it receives from nobody.
    upstream: Upstream | None = None
    #: Loaded on standbys too: whoever is promoted must not acknowledge alone for a moment.
    sync: SyncNames = field(default_factory=lambda: SyncNames(0, ()))
    #: Clients are let in.
    is_open: bool = False
    #: OS users, besides the database's own, who are superuser through the unix socket.
    local_users: tuple[str, ...] = ("root",)


def slot_name(host: HostId) -> str:
    """The physical slot that holds WAL for *host*; one for each host name."""
    name = "trellis_" + host.replace("-", "_")
    if len(name) <= _SLOT_CHARS_MAX:
        return name
    return f"{name[: _SLOT_CHARS_MAX - 9]}_{zlib.crc32(host.encode()):08x}"


def sync_text(names: SyncNames) -> str:
    """`synchronous_standby_names` for *names*; empty when nobody is needed."""
    if names.needed <= 0:
        return ""
    listed = ", ".join(f'"{host}"' for host in names.standbys)
    return f"ANY {names.needed} ({listed})"


def copying_name(host: HostId) -> str:
    """What a copy for *host* calls itself: pg_basebackup with a slot reports what it has flushed, and
    by the host's own name would count as its standby, with WAL that an interrupted copy loses.
    """
    return f"copy for {host}"


def connection_text(
    layout: Layout, config: ServerConfig, upstream: Upstream, role: str, *, name: str = ""
) -> str:
    """The libpq text by which this host reaches *upstream*, and knows that it is the right one.

    *name*: what it calls itself there; else its host's name, by which it counts as synchronous.
    """
    parts = {
        "host": tls_name(upstream.host, config.cluster_id),
        "hostaddr": upstream.address,
        "port": str(upstream.port),
        "user": role,
        "application_name": name or config.host,
        "sslmode": "verify-full",
        "sslrootcert": str(tls.ca_path(layout)),
        "sslcert": str(tls.certificate_path(layout)),
        "sslkey": str(tls.key_path(layout)),
        "connect_timeout": "2",
    }
    if role != REPLICATION_ROLE:
        parts["dbname"] = "postgres"
    text = " ".join(f"{name}={_libpq_quoted(value)}" for name, value in parts.items())
    return f"{text} {_KEEPALIVE}"


def _libpq_quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return escaped if escaped.replace(".", "").replace("-", "").isalnum() else f"'{escaped}'"


def check_parameters(parameters: Sequence[tuple[str, str]]) -> list[Problem]:
    """What is wrong with declared parameters, before any server sees them."""
    problems = []
    for name, value in parameters:
        path = f"parameters.{name}"
        if not _NAME.fullmatch(name):
            problems.append(Problem(path, "is not the name of a parameter", "work_mem"))
        elif name in _OURS or name.startswith(_OUR_PREFIXES):
            problems.append(Problem(path, "is set by Trellis and cannot be declared", "work_mem"))
        elif any(ord(char) < 32 for char in value):
            problems.append(Problem(path, "its value has a control character", "64MB"))
    return problems


def at_least(parameters: Parameters, least: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Those of *least* that are above what the files would say."""
    said = {**DEFAULTS, **dict(parameters)}
    wanted = {name: said.get(name, str(value)) for name, value in NOT_BELOW_PRIMARY.items()}
    return tuple((name, n) for name, n in least if wanted[name].isdecimal() and int(wanted[name]) < n)


# ---- the files --------------------------------------------------------------------


def parameters_text(layout: Layout, config: ServerConfig, revision: int, major: int) -> str:
    """The parameters' file. Order: defaults, the declaration, then what is not to be changed."""
    upstream = config.upstream
    conninfo = connection_text(layout, config, upstream, REPLICATION_ROLE) if upstream else ""
    settings = {
        **DEFAULTS,
        **(_DEFAULTS_14 if major >= 14 else {}),
        **dict(config.parameters),
        **FIXED,
        "cluster_name": config.host,
        "hba_file": str(layout.conf / "pg_hba.conf"),
        "ident_file": str(layout.conf / "pg_ident.conf"),
        "listen_addresses": ",".join(config.listen),
        "port": str(config.port),
        "primary_conninfo": conninfo,
        "primary_slot_name": slot_name(config.host) if upstream else "",
        "ssl_ca_file": str(tls.ca_path(layout)),
        "ssl_cert_file": str(tls.certificate_path(layout)),
        "ssl_key_file": str(tls.key_path(layout)),
        "synchronous_standby_names": sync_text(config.sync),
        "unix_socket_directories": str(layout.socket_folder),
        "unix_socket_permissions": "0770",
        REVISION: str(revision),
    }
    settings |= {name: str(least) for name, least in config.least}
    lines = [f"{name} = {_quoted(value)}" for name, value in sorted(settings.items())]
    return "\n".join(["# Written by Trellis at every change: declare parameters instead.", *lines, ""])


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def hba_text(major: int, *, is_open: bool) -> str:
    """Who may connect, the first line that fits decides."""
    # Before version 14 a certificate is known by its common name only.
    by_name = "cert clientname=DN map=hosts" if major >= 14 else "cert map=hosts"
    clients = "scram-sha-256" if is_open else "reject"
    return "\n".join(
        [
            f"local all {ADMIN_ROLE} peer map=local",
            f"local all all {clients}",
            f"hostssl replication {REPLICATION_ROLE} all {by_name}",
            f"hostssl postgres {REWIND_ROLE} all {by_name}",
            f"host all {ADMIN_ROLE},{REPLICATION_ROLE},{REWIND_ROLE} all reject",
            "host replication all all reject",
            f"hostssl all all all {clients}",
            "host all all all reject",
            "",
        ]
    )


def ident_text(major: int, config: ServerConfig, own_user: str) -> str:
    """Which OS users and which certificates are which roles."""
    users = sorted({own_user, *config.local_users})
    lines = [f'local "{user}" {ADMIN_ROLE}' for user in users]
    for member in sorted(config.members):
        subject = host_of(member)
        if major >= 14:  # RFC 2253: the last part of the subject first
            subject = HostId(f"dnQualifier={incarnation_of(member)},CN={subject}")
        lines += [f'hosts "{subject}" {role}' for role in (REPLICATION_ROLE, REWIND_ROLE)]
    return "\n".join([*lines, ""])


class ConfigFiles:
    """The files of one host's server, and which revision they are."""

    def __init__(self, layout: Layout, major: int) -> None:
        self._layout = layout
        self._major = major
        self.revision = self._last_revision()

    def _last_revision(self) -> int:
        with full_disk.trouble_told(self._layout.conf):
            path = self._layout.conf / "postgresql.conf"
            text = path.read_text() if path.exists() else ""
        found = re.search(rf"^{re.escape(REVISION)} = '(\d+)'$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def write(self, config: ServerConfig) -> int:
        """Write what differs of all three; returns the revision that a server shows once it has loaded them.

        Order: who may connect first, the file with the revision last. Not durable: every start writes them
        anew, and no server reads them before. Fails: `DiskFull`, `DatabaseFailed`.
        """
        layout, major = self._layout, self._major
        self.revision += 1
        self._write("pg_ident.conf", ident_text(major, config, layout.user_name))
        self._write("pg_hba.conf", hba_text(major, is_open=config.is_open))
        self._write("postgresql.conf", parameters_text(layout, config, self.revision, major))
        return self.revision

    def _write(self, name: str, text: str) -> None:
        path = self._layout.conf / name
        with full_disk.trouble_told(self._layout.conf):
            is_there = path.exists() and path.read_bytes() == text.encode()
        if not is_there:
            self._layout.write(path, text.encode(), durable=False)

    def point(self, data: Path) -> None:
        """Have the server that uses *data* read our files, and nothing that came with a clone."""
        include = f"include = {_quoted(str(self._layout.conf / 'postgresql.conf'))}\n"
        self._layout.write(data / "postgresql.conf", include.encode(), mode=0o600, own=True)
        self._layout.write(data / "postgresql.auto.conf", b"", mode=0o600, own=True)

    def mark_standby(self, data: Path, *, is_standby: bool) -> None:
        """A server that finds the mark receives WAL and is never a primary by itself."""
        mark = data / "standby.signal"
        if is_standby:
            self._layout.write(mark, b"", mode=0o600, own=True)
        else:
            with full_disk.trouble_told(data):
                mark.unlink(missing_ok=True)
