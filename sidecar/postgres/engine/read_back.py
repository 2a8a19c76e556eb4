"""What an earlier sidecar told a server that goes on running: read from the files that it wrote."""

import re
from dataclasses import replace
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from mesh.ids import HostId
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.config import ServerConfig, Upstream
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.model import SyncNames

_SETTING: Final = re.compile(r"^(\S+) = '(.*)'$", re.MULTILINE)
_SYNC: Final = re.compile(r"ANY (\d+) \((.*)\)")


def read_back(layout: Layout, config: ServerConfig) -> ServerConfig:
    """*config* with the port, the upstream and the synchronous names that stand in the files.

    Without files, or what is not in them: as *config* has it. Fails: `DatabaseFailed`.
    """
    with full_disk.trouble_told(layout.conf):
        path = layout.conf / "postgresql.conf"
        text = path.read_text() if path.exists() else ""
    found = {name: _unquoted(value) for name, value in _SETTING.findall(text)}
    return replace(
        config,
        port=int(found.get("port", config.port)),
        upstream=_upstream(found.get("primary_conninfo", "")),
        sync=_sync(found.get("synchronous_standby_names", "")),
    )


def _unquoted(value: str) -> str:
    return value.replace("''", "'").replace("\\\\", "\\")


def _upstream(conninfo: str) -> Upstream | None:
    parts = conninfo_to_dict(conninfo)
    host, address, port = (parts.get(name) for name in ("host", "hostaddr", "port"))
    if not host or not address or not port:
        return None
    return Upstream(HostId(str(host).partition(".")[0]), str(address), int(port))


def _sync(text: str) -> SyncNames:
    found = _SYNC.fullmatch(text)
    if found is None:
        return SyncNames(0, ())
    return SyncNames(int(found[1]), tuple(HostId(name) for name in re.findall(r'"([^"]+)"', found[2])))
