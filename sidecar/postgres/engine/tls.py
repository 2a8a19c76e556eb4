"""The host's certificate, where PostgreSQL can read it.

The mesh's identity folder is closed to everybody but the sidecar, so key, certificate and
trusted certificates are copied: into a generation of their own, which `current` then names
in one step. The server takes the new ones at its next reload, its receiver and the tools at
their next connection.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from mesh.identity.files import HostIdentity
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.layout import Layout, sync_folder

_CURRENT: Final = "current"


def key_path(layout: Layout) -> Path:
    return layout.tls / _CURRENT / "host.key"


def certificate_path(layout: Layout) -> Path:
    return layout.tls / _CURRENT / "host.pem"


def ca_path(layout: Layout) -> Path:
    return layout.tls / _CURRENT / "ca.pem"


def install_identity(layout: Layout, identity: HostIdentity) -> bool:
    """Make *identity* what the server shows; whether anything changed, so that it must reload.

    Fails: `DiskFull`, `DatabaseFailed`; then the earlier one is still whole.
    """
    with full_disk.trouble_told(layout.tls):
        return _install(layout, identity)


def _install(layout: Layout, identity: HostIdentity) -> bool:
    wanted = (
        (key_path(layout), identity.key_pem),
        (certificate_path(layout), identity.certificate_pem),
        (ca_path(layout), identity.ca_pem),
    )
    if all(path.is_file() and path.read_bytes() == content for path, content in wanted):
        return False
    present = sorted(int(each.name) for each in layout.tls.iterdir() if each.name.isdigit())
    folder = layout.tls / str(present[-1] + 1 if present else 1)
    folder.mkdir(mode=0o750)
    if layout.user:
        os.chown(folder, -1, layout.tls.stat().st_gid)
    for path, content in wanted:
        layout.write(folder / path.name, content, mode=0o600, own=True)
    link = layout.tls / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.rename(layout.tls / _CURRENT)
    sync_folder(layout.tls)
    for old in present:
        shutil.rmtree(layout.tls / str(old))
    return True
