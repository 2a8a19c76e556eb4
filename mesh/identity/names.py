"""How the identities of a cluster are written: SPIFFE ids, TLS names, roles.

A host is `spiffe://CLUSTER/host/NAME/INCARNATION`, an operator
`spiffe://CLUSTER/operator/NAME`, a service `spiffe://CLUSTER/service/NAME`.
Source: SPIFFE-ID standard §2 (trust domain and path).
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.ids import NAME_PATTERN, ClusterId, HostId, MemberId, host_of, incarnation_of

_CLUSTER: Final = re.compile(r"[0-9a-f]{32}")
_INCARNATION: Final = re.compile(r"[1-9][0-9]{0,8}")
#: What Envoy compares with to let in any host of a cluster.
HOST_PREFIX: Final = "spiffe://{cluster_id}/host/"


class Role(Enum):
    """What a caller is; the table says what each may call."""

    HOST = "host"
    OPERATOR = "operator"
    SERVICE = "service"
    #: No certificate: only on the listener for joining hosts, and for health.
    ANONYMOUS = "anonymous"


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
    #: A member for hosts ("host1.1"), else the plain name.
    name: str

    def __str__(self) -> str:
        if self.role is Role.HOST:
            member = MemberId(self.name)
            return f"spiffe://{self.cluster_id}/host/{host_of(member)}/{incarnation_of(member)}"
        return f"spiffe://{self.cluster_id}/{self.role.value}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> "SpiffeId":
        """The inverse of `str()`. Fails: `ValueError` for anything it would not have written."""
        cluster_id, _, path = uri.removeprefix("spiffe://").partition("/")
        steps = path.split("/")
        try:
            role = Role(steps[0])
        except ValueError:
            raise ValueError(f"{uri!r} names no role") from None
        is_host = role is Role.HOST
        if (
            not uri.startswith("spiffe://")
            or not _CLUSTER.fullmatch(cluster_id)
            or role is Role.ANONYMOUS
            or len(steps) != (3 if is_host else 2)
            or not NAME_PATTERN.fullmatch(steps[1])
            or (is_host and not _INCARNATION.fullmatch(steps[2]))
        ):
            raise ValueError(f"{uri!r} is not an identity of a Trellis cluster")
        return cls(ClusterId(cluster_id), role, f"{steps[1]}.{steps[2]}" if is_host else steps[1])

    def caller(self, serial: str) -> Caller:
        """The caller that a certificate of this name, with this serial, proves."""
        if self.role is Role.HOST:
            member = MemberId(self.name)
            return Caller(Role.HOST, host_of(member), member, serial)
        return Caller(self.role, self.name, None, serial)


def tls_name(host: HostId, cluster_id: ClusterId) -> str:
    """What a client expects in the certificate of *host*, wherever it dials it.

    A name of its own, because addresses move between hosts and certificates do not.
    """
    return f"{host}.{cluster_id}.trellis"
