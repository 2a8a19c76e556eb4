"""Names and numbers that identify things, as types of their own.

A plain `str` or `int` never crosses a function's border where one of these is
meant; mypy keeps them apart, and they cost nothing at run time.
"""

import re
from functools import lru_cache
from typing import Final, NewType

#: Random 128-bit hex text chosen by `trellis init`; two clusters never share it.
ClusterId = NewType("ClusterId", str)
#: The operator's name for a machine, unique in its cluster: "host1".
HostId = NewType("HostId", str)
#: How often a host name has joined; a wiped disk comes back with a higher one.
Incarnation = NewType("Incarnation", int)
#: One incarnation of one host as Raft sees it: "host1.1".
MemberId = NewType("MemberId", str)
#: Raft epoch.
Term = NewType("Term", int)
#: Position in the replicated log, from 1; 0 means before the first entry.
Index = NewType("Index", int)
#: Name of a declared service: "echo".
ServiceName = NewType("ServiceName", str)
#: One running copy of a service: "echo@host2#0".
InstanceId = NewType("InstanceId", str)
#: Name of an exclusive thing: "vip", "service/reporter".
OwnedName = NewType("OwnedName", str)
#: Strictly rises for one owned name whenever its owner changes.
FencingTerm = NewType("FencingTerm", int)
#: Name of a replicated document: "network/dns".
DocumentName = NewType("DocumentName", str)
#: Which client a command came from, for exactly-once application.
SessionId = NewType("SessionId", str)

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DOCUMENT_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")

VIP: Final = OwnedName("vip")
#: The right to run PostgreSQL as primary; its fencing term numbers the primaryships.
PRIMARY: Final = OwnedName("postgres-primary")


def member_id(host: HostId, incarnation: Incarnation) -> MemberId:
    """The Raft member that this incarnation of this host is."""
    return MemberId(f"{host}.{incarnation}")


@lru_cache(maxsize=1024)
def host_of(member: MemberId) -> HostId:
    """The host a member runs on."""
    return HostId(member.rpartition(".")[0])


@lru_cache(maxsize=1024)
def incarnation_of(member: MemberId) -> Incarnation:
    """Which incarnation of its host a member is."""
    return Incarnation(int(member.rpartition(".")[2]))


def owned_service(name: ServiceName) -> OwnedName:
    """The owned name under which an active-standby service is held."""
    return OwnedName(f"service/{name}")


def instance_id(service: ServiceName, host: HostId, ordinal: int) -> InstanceId:
    """The identity of one copy of a service on one host."""
    return InstanceId(f"{service}@{host}#{ordinal}")
