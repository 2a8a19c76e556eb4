"""Secrets at rest: AES-256-GCM under the cluster's sealing key.

The sealed form is replicated and may stand in logs, snapshots and backups; the
key stands only in the identity folder of each member. The name of a secret and
its cluster are authenticated with it, so one cannot be passed off as another.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.errors import Corruption
from mesh.ids import ClusterId

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
#: Name under which the authority's private key is replicated.
CA_KEY: Final = "ca-key"


def new_sealing_key() -> bytes:
    """A fresh key for a new cluster."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, cluster_id: ClusterId, name: str, secret: bytes) -> bytes:
    """The sealed form of *secret*; another one each time."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, secret, _bound(cluster_id, name))


def unseal(key: bytes, cluster_id: ClusterId, name: str, sealed: bytes) -> bytes:
    """The inverse of `seal`. Fails: `Corruption` when anything differs."""
    nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    if sealed[:1] != _VERSION or len(nonce) < _NONCE_BYTES:
        raise Corruption(f"secret {name!r}", "it has no known form")
    try:
        return AESGCM(key).decrypt(nonce, rest, _bound(cluster_id, name))
    except InvalidTag:
        raise Corruption(f"secret {name!r}", "it does not open with this host's sealing key") from None


def _bound(cluster_id: ClusterId, name: str) -> bytes:
    return f"trellis/{cluster_id}/{name}".encode()
