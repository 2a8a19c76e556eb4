"""The identity of this host on disk.

    identity/
      cluster.json               cluster and member
      sealing.key                opens the cluster's sealed secrets
      pending.key                key of a join that is under way
      generations/3/host.key, host.pem, ca.pem
      current -> generations/3   moves in one step when a certificate is renewed
      host.key -> current/host.key, host.pem, ca.pem

Invariant: whatever `current` names is complete and durable, at every moment;
`cluster.json` is written last, so its presence means the whole is there.
Everything is readable by the owner only.
"""

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from mesh import failpoints
from mesh.errors import Conflict, Corruption, Denied
from mesh.identity.keys import key_from_pem, key_sha256
from mesh.identity.proof import read_certificate
from mesh.ids import ClusterId, HostId, MemberId, host_of

_GENERATIONS_KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this host is, and what proves it."""

    cluster_id: ClusterId
    member: MemberId
    key_pem: bytes = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    #: Empty on a witness, which holds nothing that is sealed.
    sealing_key: bytes = field(repr=False)

    @property
    def host(self) -> HostId:
        return host_of(self.member)

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_pem)

    def renewed(self, key_pem: bytes, certificate_pem: bytes, ca_pem: bytes) -> "HostIdentity":
        """The same host with a new certificate."""
        return replace(self, key_pem=key_pem, certificate_pem=certificate_pem, ca_pem=ca_pem)


class IdentityFiles:
    """One identity folder. Fails: `OSError` when the disk does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cluster = directory / "cluster.json"
        self._sealing = directory / "sealing.key"
        self._pending = directory / "pending.key"
        self._current = directory / "current"
        self._generations = directory / "generations"

    @property
    def key_path(self) -> Path:
        """Stable path, for Envoy and proxyless clients."""
        return self.directory / "host.key"

    @property
    def certificate_path(self) -> Path:
        return self.directory / "host.pem"

    @property
    def ca_path(self) -> Path:
        return self.directory / "ca.pem"

    def load(self) -> HostIdentity | None:
        """The identity, or None when this host belongs to no cluster.

        Fails: `Corruption` when files are missing, unreadable or do not belong
        together; `Conflict` when others can read the key.
        """
        if not self._cluster.exists():
            return None
        try:
            named = json.loads(self._cluster.read_bytes())
            identity = HostIdentity(
                ClusterId(named["cluster_id"]),
                MemberId(named["member"]),
                self.key_path.read_bytes(),
                self.certificate_path.read_bytes(),
                self.ca_path.read_bytes(),
                self._sealing.read_bytes(),
            )
            check_belongs_together(identity)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise Corruption(str(self.directory), f"the identity cannot be read ({error})") from error
        self._check_private(self.key_path)
        self._check_private(self._sealing)
        return identity

    def save(self, identity: HostIdentity) -> None:
        """Makes *identity* the one of this host, in one step and durably."""
        self._prepare()
        write_private(self._sealing, identity.sealing_key)
        failpoints.hit("identity.before-generation")
        self._save_generation(identity)
        failpoints.hit("identity.before-cluster")
        named = {"cluster_id": identity.cluster_id, "member": identity.member}
        write_private(self._cluster, json.dumps(named, sort_keys=True).encode() + b"\n")
        failpoints.hit("identity.stored")
        self._pending.unlink(missing_ok=True)

    def pending_key(self) -> bytes | None:
        """Key of a join that was begun, so that a repetition is recognised as the same."""
        return self._pending.read_bytes() if self._pending.exists() else None

    def save_pending_key(self, key_pem: bytes) -> None:
        self._prepare()
        write_private(self._pending, key_pem)

    def _prepare(self) -> None:
        for directory in (self.directory, self._generations):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(directory.parent)

    def _save_generation(self, identity: HostIdentity) -> None:
        present = sorted(int(each.name) for each in self._generations.iterdir() if each.name.isdigit())
        number = present[-1] + 1 if present else 1
        folder = self._generations / str(number)
        folder.mkdir(mode=0o700)
        write_private(folder / "host.key", identity.key_pem)
        write_private(folder / "host.pem", identity.certificate_pem)
        write_private(folder / "ca.pem", identity.ca_pem)
        _sync_directory(self._generations)
        for path in (self.key_path, self.certificate_path, self.ca_path):
            _link(path, f"current/{path.name}")
        # A watcher of this folder sees one rename, and then all three files are the new ones.
        _link(self._current, f"generations/{number}")
        _sync_directory(self.directory)
        for old in present[: 1 - _GENERATIONS_KEPT]:
            shutil.rmtree(self._generations / str(old))

    def _check_private(self, path: Path) -> None:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise Conflict(f"{path} can be read by others (mode {mode:o}): chmod 600 {path}, and renew it.")


def check_belongs_together(identity: HostIdentity) -> None:
    """Key, certificate and member match, and one of the trusted certificates signed it.

    Fails: `ValueError`.
    """
    certificate = identity.certificate
    public_key = certificate.public_key()
    own = key_from_pem(identity.key_pem).public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or key_sha256(public_key) != key_sha256(own):
        raise ValueError("the certificate is for another key")
    if not any(_signed_by(certificate, ca) for ca in x509.load_pem_x509_certificates(identity.ca_pem)):
        raise ValueError("none of the trusted certificates signed the host's")
    try:
        proof = read_certificate(identity.certificate_pem)
    except Denied as denied:
        raise ValueError(str(denied)) from denied
    if (proof.spiffe.cluster_id, proof.caller.member) != (identity.cluster_id, identity.member):
        raise ValueError(f"the certificate is of {proof.caller} in cluster {proof.spiffe.cluster_id}")


def _signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file in one step; after a crash it is the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    _sync_directory(path.parent)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and os.readlink(path) == target:
        return
    temporary = path.with_name(path.name + ".link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
