"""What one ADS stream has been sent and what it is to be sent next.

State of the world, aggregated: clusters, then endpoints, then listeners, then
routes, so that nothing is named before it is known. For endpoints and routes
only what changed is sent; the protocol demands the full set for the other two.

Invariant: nothing older than what the client already has is ever sent: a client
that comes back says which version it holds, and the stream stays silent until
the snapshot has reached that revision.

Source: xDS REST and gRPC protocol, "Streaming gRPC subscriptions"; shape after
go-control-plane `pkg/server/stream/v3/subscription.go`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sidecar.routing.model import Cluster, ProxylessCluster, Resource, Snapshot


class Kind(Enum):
    """The resource types, in the order in which they are sent."""

    CLUSTER = "clusters"
    ENDPOINTS = "endpoints"
    LISTENER = "listeners"
    ROUTES = "routes"


#: Types whose every response must hold all resources of the subscription.
FULL = frozenset({Kind.CLUSTER, Kind.LISTENER})


@dataclass(frozen=True, slots=True)
class Version:
    """`revision` is the applied index of the snapshot, `serial` counts pushes of this sidecar."""

    revision: int
    serial: int = 0

    def __str__(self) -> str:
        return f"{self.revision}.{self.serial}"

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Version(0) for anything this server has not written."""
        revision, _, serial = text.partition(".")
        if not (revision.isascii() and revision.isdigit() and serial.isascii() and serial.isdigit()):
            return cls(0)
        return cls(int(revision), int(serial))


@dataclass(frozen=True, slots=True)
class Request:
    """One DiscoveryRequest, as far as it matters here."""

    kind: Kind
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    #: Not empty: the response of `nonce` was refused, with this reason.
    error: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One DiscoveryResponse."""

    kind: Kind
    version: Version
    nonce: str
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client has put `names`, everything of this kind it holds, into force."""

    kind: Kind
    version: Version
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client keeps its last good state of what `reason` names, and takes the rest of `names`."""

    kind: Kind
    version: Version
    names: tuple[str, ...]
    reason: str


Report = Accepted | Rejected


def index(snapshot: Snapshot) -> dict[Kind, dict[str, Resource]]:
    """The resources of a snapshot by kind and name."""
    kinds: Mapping[Kind, Sequence[Resource]] = {
        Kind.CLUSTER: snapshot.clusters,
        Kind.ENDPOINTS: snapshot.endpoints,
        Kind.LISTENER: snapshot.listeners,
        Kind.ROUTES: snapshot.routes,
    }
    return {kind: {each.name: each for each in resources} for kind, resources in kinds.items()}


@dataclass(slots=True)
class _Subscription:
    """One kind on one stream."""

    names: frozenset[str]
    #: Everything, whatever its name: a first request that names nothing, of a full kind.
    wildcard: bool
    nonce: str = ""
    pending: Version | None = None
    sent: dict[str, Resource] = field(default_factory=dict)
    #: A full kind must be answered even when nothing differs.
    due: bool = True

    def wanted(self, resources: Mapping[str, Resource]) -> dict[str, Resource]:
        if self.wildcard:
            return dict(resources)
        return {name: resources[name] for name in sorted(self.names) if name in resources}

    def forget(self) -> None:
        """The client has lost what it was sent, or is to be told again."""
        self.sent = {}
        self.due = True


class AdsStream:
    """The server's side of one stream."""

    def __init__(self) -> None:
        self._subscriptions: dict[Kind, _Subscription] = {}
        self._nonces = 0
        self._floor = 0

    def on_request(self, request: Request) -> Report | None:
        """Takes a subscription, an acknowledgement or a refusal; stale ones are ignored."""
        subscription = self._subscriptions.get(request.kind)
        if subscription is None:
            self._floor = max(self._floor, Version.parse(request.version).revision)
            wildcard = request.kind in FULL and (not request.names or "*" in request.names)
            self._subscriptions[request.kind] = _Subscription(frozenset(request.names), wildcard)
            return None
        if request.nonce != subscription.nonce:
            return None
        answered, subscription.pending = subscription.pending, None
        names = tuple(subscription.sent)
        self._subscribe(subscription, request.names, is_answer=answered is not None)
        if answered is None:
            return None
        if request.error:
            return Rejected(request.kind, answered, names, request.error)
        return Accepted(request.kind, answered, names)

    def _subscribe(self, subscription: _Subscription, names: Iterable[str], *, is_answer: bool) -> None:
        """Adopts the new names; a repeated request means that the client dropped what it had."""
        wanted = frozenset(names)
        if wanted == subscription.names:
            if not is_answer:
                subscription.forget()
            return
        for name in sorted(subscription.names - wanted):
            subscription.sent.pop(name, None)
        subscription.due = subscription.due or not wanted <= subscription.names
        subscription.names = wanted

    def resend(self, kind: Kind) -> None:
        """Sends everything of this kind again, though it has not changed."""
        if kind in self._subscriptions:
            self._subscriptions[kind].forget()

    def is_held(self, version: Version) -> bool:
        """The client already has something newer than this."""
        return version.revision < self._floor

    def take(self, resources: Mapping[Kind, Mapping[str, Resource]], version: Version) -> Iterator[Response]:
        """What must be sent now so that the client comes to hold `resources`."""
        if self.is_held(version):
            return
        for kind in Kind:
            subscription = self._subscriptions.get(kind)
            if subscription is None:
                continue
            wanted = subscription.wanted(resources[kind])
            chosen = _chosen(kind, subscription, wanted)
            if chosen is None:
                continue
            if kind is Kind.CLUSTER:
                self._forget_endpoints(subscription.sent, chosen)
            self._nonces += 1
            subscription.nonce = str(self._nonces)
            subscription.sent, subscription.pending, subscription.due = wanted, version, False
            yield Response(kind, version, subscription.nonce, chosen)

    def _forget_endpoints(self, sent: Mapping[str, Resource], chosen: Iterable[Resource]) -> None:
        """A cluster that changed is built anew by the client and waits for its endpoints again."""
        endpoints = self._subscriptions.get(Kind.ENDPOINTS)
        if endpoints is None:
            return
        for each in chosen:
            if isinstance(each, Cluster | ProxylessCluster) and sent.get(each.name) != each:
                endpoints.sent.pop(each.name, None)


def _chosen(
    kind: Kind, subscription: _Subscription, wanted: Mapping[str, Resource]
) -> tuple[Resource, ...] | None:
    """What a response must hold; None: no response is needed."""
    if kind in FULL:
        return tuple(wanted.values()) if subscription.due or wanted != subscription.sent else None
    sent = subscription.sent
    return tuple(each for name, each in wanted.items() if sent.get(name) != each) or None
