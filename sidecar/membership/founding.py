"""What `trellis init` leaves for the first leadership of a new cluster.

The first member starts its log with itself as the only voter. As leader it
proposes `Founding.command`; repeated, it changes nothing, so there is no need
to know whether an earlier attempt got through. The file is removed once it did.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mesh.errors import Corruption
from mesh.identity.files import write_private
from mesh.identity.sealed import CA_KEY
from mesh.ids import ClusterId, HostId, MemberId, incarnation_of
from mesh.state.commands import Batch, InitCluster, PutSecret
from mesh.state.model import Member, MemberRole


@dataclass(frozen=True, slots=True)
class Founding:
    """The first content of the replicated state."""

    cluster_id: ClusterId
    member: MemberId
    address: str
    northbound: str
    virtual_address: str
    version: str
    certificate_serial: str
    key_sha256: str
    ca_pem: str
    #: The authority's private key under the cluster's sealing key, hexadecimal.
    sealed_ca_key: str

    @property
    def command(self) -> Batch:
        """To be proposed by the first leader until it is applied."""
        member = Member(
            member=self.member,
            host=HostId(self.member.rpartition(".")[0]),
            incarnation=incarnation_of(self.member),
            role=MemberRole.VOTER,
            address=self.address,
            northbound=self.northbound,
            version=self.version,
            certificate_serial=self.certificate_serial,
            key_sha256=self.key_sha256,
        )
        begin = InitCluster(self.cluster_id, member, self.virtual_address, self.ca_pem.encode())
        return Batch((begin, PutSecret(CA_KEY, bytes.fromhex(self.sealed_ca_key))))


class Founded(Protocol):
    """What this host must still give the cluster that it founded."""

    def command(self) -> Batch | None:
        """To be proposed; None when there is nothing, or no longer. Fails: `Corruption`."""

    def forget(self) -> None:
        """The cluster exists; nothing is left to be done."""


class FoundingFile:
    """The file that `trellis init` leaves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def command(self) -> Batch | None:
        """See Founded."""
        founding = load_founding(self._path)
        return None if founding is None else founding.command

    def forget(self) -> None:
        """See Founded."""
        forget_founding(self._path)


def save_founding(path: Path, founding: Founding) -> None:
    """Durably; readable by the owner only."""
    write_private(path, json.dumps(asdict(founding), sort_keys=True).encode())


def load_founding(path: Path) -> Founding | None:
    """None when this host did not found its cluster, or has done so long ago.

    Fails: `Corruption`.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return Founding(**content)
    except (ValueError, TypeError) as error:
        raise Corruption(str(path), f"the founding record cannot be read ({error})") from error


def forget_founding(path: Path) -> None:
    """The cluster exists; nothing is left to be done."""
    path.unlink(missing_ok=True)
