"""The join token: everything a new host needs to find, recognise and convince a cluster.

It carries the CA certificates whole, so the very first connection is already
verified, and the addresses of the join listeners. Only a hash of its secret is
replicated. Whoever holds the text may join once: treat it as a password.
"""

import base64
import binascii
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.errors import InvalidRequest, Problem
from mesh.ids import ClusterId, HostId

_PREFIX: Final = "trellis-join-"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class TokenText:
    """What `trellis token` prints and `trellis join` takes."""

    cluster_id: ClusterId
    secret: str = field(repr=False)
    ca_pem: bytes = field(repr=False)
    #: Join listeners by host: "10.0.0.1:7401".
    addresses: tuple[tuple[HostId, str], ...]

    def encode(self) -> str:
        """One line of text without blanks."""
        content = {
            "v": _VERSION,
            "cluster": self.cluster_id,
            "secret": self.secret,
            "ca": self.ca_pem.decode("ascii"),
            "hosts": dict(self.addresses),
        }
        packed = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "TokenText":
        """The inverse of `encode`; surrounding blanks and line breaks inside are ignored.

        Fails: `InvalidRequest` when it is no token, cut short, or of a newer Trellis.
        """
        packed = "".join(text.split())
        if not packed.startswith(_PREFIX):
            raise _refused(f"does not begin with {_PREFIX!r}")
        try:
            raw = base64.urlsafe_b64decode(packed[len(_PREFIX) :] + "==")
            content: Any = json.loads(raw)
            if content["v"] != _VERSION:
                raise _refused(f"is of version {content['v']}, and this Trellis knows {_VERSION}")
            return cls(
                ClusterId(str(content["cluster"])),
                str(content["secret"]),
                str(content["ca"]).encode("ascii"),
                tuple(sorted((HostId(str(host)), str(at)) for host, at in content["hosts"].items())),
            )
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
            raise _refused("is damaged or cut short; copy the whole line") from None


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest("The join token cannot be used.", [Problem("token", problem, "trellis token")])


def new_secret() -> str:
    """256 bits of chance, as text."""
    return secrets.token_urlsafe(32)


def secret_sha256(secret: str) -> str:
    """What the cluster knows of a secret. A plain hash is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
