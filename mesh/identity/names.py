"""How the identities of a cluster are written: SPIFFE ids, TLS names, roles.

A host is `spiffe://CLUSTER/host/NAME`, an operator `spiffe://CLUSTER/operator/NAME`,
a service `spiffe://CLUSTER/service/NAME`. Which incarnation of a host a certificate
is for stands in its subject as dnQualifier (X.520 §6.2.9: disambiguating information).
Source: SPIFFE-ID standard §2 (trust domain and path).
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.ids import NAME_PATTERN, ClusterId, HostId, MemberId

_CLUSTER: Final = re.compile(r"[0-9a-f]{32}")


class Role(Enum):
    """What a caller is; the table says what each may call."""

    HOST = "host"
    OPERATOR = "operator"
    SERVICE = "service"
    #: No certificate: only on the listener for joining hosts, and for health.
    ANONYMOUS = "anonymous"


_ROLES: Final = tuple(role.value for role in Role if role is not Role.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as proven by its certificate or by the socket it came through."""

    role: Role
    #: Host, operator or service name; empty when anonymous.
    name: str = ""
    #: Set for hosts only.
    member: MemberId | None = None
    #: Hexadecimal serial of the certificate; empty for sockets.
    serial: str = ""

    def __str__(self) -> str:
        return f"{self.role.value} {self.member or self.name}".rstrip()


ANONYMOUS: Final = Caller(Role.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A name inside one cluster; `str()` is the URI."""

    cluster_id: ClusterId
    role: Role
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.cluster_id}/{self.role.value}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> "SpiffeId":
        """The inverse of `str()`. Fails: `ValueError` for anything it would not have written."""
        steps = uri.removeprefix("spiffe://").split("/")
        if (
            not uri.startswith("spiffe://")
            or len(steps) != 3
            or not _CLUSTER.fullmatch(steps[0])
            or steps[1] not in _ROLES
            or not NAME_PATTERN.fullmatch(steps[2])
        ):
            raise ValueError(f"{uri!r} is not an identity of a Trellis cluster")
        return cls(ClusterId(steps[0]), Role(steps[1]), steps[2])


def tls_name(host: HostId, cluster_id: ClusterId) -> str:
    """What a client expects in the certificate of *host*, wherever it dials it.

    A name of its own, because addresses move between hosts and certificates do not.
    """
    return f"{host}.{cluster_id}.trellis"
