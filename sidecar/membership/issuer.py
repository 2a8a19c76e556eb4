"""Signs certificates with the authority's key, which every member can unseal.

Any member may sign, so admissions and renewals need no particular host, only a
leader that commits their record.
"""

from collections.abc import Callable
from datetime import timedelta

from mesh.errors import Unavailable
from mesh.identity.authority import OPERATOR_LIFETIME, Authority, Issued
from mesh.identity.sealed import CA_KEY, unseal
from mesh.ids import ClusterId, MemberId
from mesh.settings.values import parse_endpoint
from mesh.state import ClusterState


class Issuer:
    """Keeps the unsealed authority in memory, for as long as the sealed one stays the same."""

    def __init__(
        self,
        cluster_id: ClusterId,
        sealing_key: bytes,
        state: Callable[[], ClusterState],
        lifetime: timedelta,
        now_ns: Callable[[], int],
    ) -> None:
        self._cluster_id = cluster_id
        self.sealing_key = sealing_key
        self._state = state
        self._lifetime = lifetime
        self._now_ns = now_ns
        self._loaded: tuple[bytes, bytes, Authority] | None = None

    @property
    def cluster_id(self) -> ClusterId:
        return self._cluster_id

    @property
    def ca_pem(self) -> bytes:
        """The certificates to trust, as replicated."""
        return self._state().ca_pem

    def issue_host(self, member: MemberId, address: str, csr_pem: bytes) -> Issued:
        """A certificate for a member at "ip:port". Fails: `InvalidRequest`, `Unavailable`."""
        ip = parse_endpoint(address).ip
        return self._authority().issue_host(member, ip, csr_pem, self._now_ns(), self._lifetime)

    def issue_operator(self, name: str, csr_pem: bytes, lifetime: timedelta = OPERATOR_LIFETIME) -> Issued:
        """A client certificate for an operator. Fails: `InvalidRequest`, `Unavailable`."""
        return self._authority().issue_operator(name, csr_pem, self._now_ns(), lifetime)

    def _authority(self) -> Authority:
        state = self._state()
        sealed, ca_pem = state.secrets.get(CA_KEY), state.ca_pem
        if sealed is None or not ca_pem:
            raise Unavailable("The cluster's signing key has not reached this host yet; try again shortly.")
        if self._loaded is None or self._loaded[:2] != (sealed, ca_pem):
            key_pem = unseal(self.sealing_key, self._cluster_id, CA_KEY, sealed)
            self._loaded = (sealed, ca_pem, Authority.load(self._cluster_id, ca_pem, key_pem))
        return self._loaded[2]
