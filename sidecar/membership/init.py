"""`trellis init`: makes a new cluster of one host.

Crash-safe: `identity/cluster.json` is written last. Before it, the host belongs
to no cluster and the command may be repeated; what an interrupted run left is
overwritten, as nothing of it was ever used.
"""

import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from mesh import failpoints
from mesh.errors import Conflict, InvalidRequest
from mesh.identity.authority import Authority
from mesh.identity.files import HostIdentity, IdentityFiles
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.identity.sealed import CA_KEY, new_sealing_key, seal
from mesh.ids import ClusterId, Incarnation, member_id
from mesh.settings.directories import DATA_MODE, check_directories, make_directory
from mesh.settings.model import HostSettings
from mesh.settings.ports import check_ports
from sidecar.membership.founding import Founding, save_founding
from sidecar.membership.version import own_version

_REFUSED: Final = "This host cannot begin a cluster with these settings."


def founding_path(settings: HostSettings) -> Path:
    """Where the founding record of this host stands."""
    return settings.host.data_dir / "founding.json"


def raft_dir(settings: HostSettings) -> Path:
    """Where the log of this host's member stands."""
    return settings.host.data_dir / "raft"


def initialise(settings: HostSettings, now_ns: Callable[[], int] = time.time_ns) -> ClusterId:
    """Makes a cluster with this host as its first member; returns its id.

    Fails: `Conflict` when the data directory belongs to a cluster or holds a log;
    `InvalidRequest` when addresses, ports or directories cannot be had.
    """
    files = IdentityFiles(settings.identity_dir)
    unusable = check_directories(settings)
    if not unusable:  # or what is in them cannot be looked at either
        check_unused(settings, files)
    if problems := (*unusable, *check_ports(settings)):
        raise InvalidRequest(_REFUSED, problems)
    identity, founding = _make(settings, now_ns())
    if problems := make_directory("host.data_dir", settings.host.data_dir, DATA_MODE):
        raise InvalidRequest(_REFUSED, problems)
    save_founding(founding_path(settings), founding)
    failpoints.hit("init.founding-stored")
    files.save(identity)
    return identity.cluster_id


def check_unused(settings: HostSettings, files: IdentityFiles) -> None:
    """Fails: `Conflict` unless the data directory belongs to no cluster."""
    present = files.load()
    if present is not None:
        raise Conflict(
            f"{settings.host.data_dir} already belongs to cluster {present.cluster_id} as {present.member}."
            " A host is of one cluster only: to begin anew, stop it and move that directory away.",
            cluster_id=present.cluster_id,
            member=present.member,
        )
    log = raft_dir(settings)
    if log.is_dir() and any(log.iterdir()):
        raise Conflict(
            f"{log} holds a log, but {files.directory} has no identity for it."
            " Restore the identity, or move the whole data directory away and join as a new incarnation.",
        )


def _make(settings: HostSettings, now_ns: int) -> tuple[HostIdentity, Founding]:
    cluster_id = ClusterId(secrets.token_hex(16))
    member = member_id(settings.host_id, Incarnation(1))
    authority, sealing_key, key = Authority.create(cluster_id, now_ns), new_sealing_key(), new_key()
    issued = authority.issue_host(
        member,
        settings.mesh.address.ip,
        make_csr(key, settings.host.name),
        now_ns,
        timedelta(hours=settings.mesh.certificate_hours),
    )
    identity = HostIdentity(
        cluster_id,
        member,
        key_to_pem(key),
        issued.certificate_pem,
        authority.certificate_pem,
        sealing_key,
    )
    founding = Founding(
        cluster_id=cluster_id,
        member=member,
        address=str(settings.mesh.address),
        northbound=str(settings.northbound.address),
        virtual_address=str(settings.virtual_ip.endpoint) if settings.virtual_ip else "",
        version=own_version(),
        certificate_serial=issued.serial,
        key_sha256=issued.key_sha256,
        ca_pem=authority.certificate_pem.decode("ascii"),
        sealed_ca_key=seal(sealing_key, cluster_id, CA_KEY, authority.key_pem).hex(),
    )
    return identity, founding
