"""A cluster's authority and the identities it gives out, for tests."""

import time

from mesh.identity.authority import Authority, Issued
from mesh.identity.credentials import Credentials
from mesh.identity.files import HostIdentity
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.ids import ClusterId, MemberId

CLUSTER = ClusterId("ab" * 16)
OTHER_CLUSTER = ClusterId("cd" * 16)
SEALING_KEY = b"k" * 32


def authority(cluster: ClusterId = CLUSTER) -> Authority:
    return Authority.create(cluster, time.time_ns())


def identity(of: Authority, member: str, now_ns: int | None = None) -> tuple[HostIdentity, Issued]:
    key = new_key()
    issued = of.issue_host(
        MemberId(member), "127.0.0.1", make_csr(key, "csr"), time.time_ns() if now_ns is None else now_ns
    )
    made = HostIdentity(
        of.cluster_id,
        MemberId(member),
        key_to_pem(key),
        issued.certificate_pem,
        of.certificate_pem,
        SEALING_KEY,
    )
    return made, issued


def credentials(of: Authority, member: str) -> Credentials:
    return Credentials(identity(of, member)[0])
