"""One ADS stream as an object: what is sent, in which order, and what a refusal changes."""

from sidecar.routing.in_force import InForce
from sidecar.routing.model import (
    ApiListener,
    Cluster,
    Endpoint,
    Endpoints,
    NorthboundListener,
    Route,
    Routes,
    Snapshot,
)
from sidecar.routing.stream import (
    Accepted,
    AdsStream,
    Kind,
    Rejected,
    Report,
    Request,
    Response,
    Version,
    index,
)

LISTENER = NorthboundListener("northbound/host", "127.0.0.1:80", "northbound")
ROUTES = Routes("northbound", (Route("/a.A/", "a"),))


def snapshot(*names: str, at: str = "127.0.0.1:1") -> Snapshot:
    return Snapshot(
        1,
        listeners=(LISTENER,),
        routes=(ROUTES,),
        clusters=tuple(Cluster(name) for name in names),
        endpoints=tuple(Endpoints(name, (Endpoint(at),)) for name in names),
    )


class Peer:
    """The client's end: subscribes as Envoy does and answers what it is sent."""

    def __init__(self, version: str = "") -> None:
        self.stream = AdsStream()
        self.pushes = 0
        #: Nonce of the last response of each kind.
        self.nonces: dict[Kind, str] = {}
        for kind in (Kind.CLUSTER, Kind.LISTENER):
            assert self.stream.on_request(Request(kind, version=version)) is None

    def push(self, pushed: Snapshot, revision: int = 1) -> list[Response]:
        self.pushes += 1
        responses = list(self.stream.take(index(pushed), Version(revision, self.pushes)))
        self.nonces |= {each.kind: each.nonce for each in responses}
        return responses

    def answer(self, response: Response, *names: str, error: str = "") -> Report | None:
        return self.stream.on_request(
            Request(response.kind, names, str(response.version), response.nonce, error)
        )

    def subscribed(self, pushed: Snapshot) -> "Peer":
        """Goes through the first exchange until all four kinds are acknowledged."""
        for response in self.push(pushed):
            self.answer(response)
        names = tuple(each.name for each in pushed.endpoints)
        self.stream.on_request(Request(Kind.ENDPOINTS, names))
        self.stream.on_request(Request(Kind.ROUTES, ("northbound",)))
        for response in self.push(pushed):
            self.answer(response, *(names if response.kind is Kind.ENDPOINTS else ("northbound",)))
        return self


def kinds(responses: list[Response]) -> list[Kind]:
    return [each.kind for each in responses]


def sent(responses: list[Response]) -> list[str]:
    return [resource.name for each in responses for resource in each.resources]


def test_nothing_is_named_before_it_is_known() -> None:
    """Clusters before endpoints, listeners before routes, whatever the order of the requests."""
    stream = AdsStream()
    for kind in (Kind.ROUTES, Kind.LISTENER, Kind.ENDPOINTS, Kind.CLUSTER):
        stream.on_request(Request(kind, ("a", "northbound")))
    everything = index(Snapshot(1, (ApiListener("a", "a"),), (ROUTES,), *(snapshot("a").clusters,)))
    everything[Kind.ENDPOINTS] = {"a": Endpoints("a", ())}
    responses = list(stream.take(everything, Version(1)))
    assert kinds(responses) == [Kind.CLUSTER, Kind.ENDPOINTS, Kind.LISTENER, Kind.ROUTES]


def test_what_has_not_changed_is_not_sent_again() -> None:
    """Goal: a new revision alone costs Envoy nothing. Method: push equal content twice."""
    peer = Peer().subscribed(snapshot("a", "b"))
    assert peer.push(snapshot("a", "b"), revision=2) == []


def test_a_changed_endpoint_alone_is_sent() -> None:
    """Goal: a flapping instance does not rebuild every cluster. Method: change one of two."""
    peer = Peer().subscribed(snapshot("a", "b"))
    changed = snapshot("a", "b")
    moved = Endpoints("b", ())
    responses = peer.push(Snapshot(2, changed.listeners, changed.routes, changed.clusters, (moved,)))
    assert kinds(responses) == [Kind.ENDPOINTS]
    assert responses[0].resources == (moved,)


def test_a_new_cluster_is_sent_with_all_others() -> None:
    """State of the world: a cluster missing from the response would be removed."""
    peer = Peer().subscribed(snapshot("a"))
    assert sent(peer.push(snapshot("a", "b"))) == ["a", "b"]
    peer.stream.on_request(Request(Kind.ENDPOINTS, ("a", "b"), "", peer.nonces[Kind.ENDPOINTS]))
    assert sent(peer.push(snapshot("a", "b"))) == ["b"]


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    """Envoy builds the cluster anew and waits for endpoints that it has dropped."""
    peer = Peer().subscribed(snapshot("a", "b"))
    before = snapshot("a", "b")
    changed = (Cluster("a", ("host2",)), Cluster("b"))
    responses = peer.push(Snapshot(2, before.listeners, before.routes, changed, before.endpoints))
    assert kinds(responses) == [Kind.CLUSTER, Kind.ENDPOINTS]
    assert [each.name for each in responses[1].resources] == ["a"]


def test_a_changed_cluster_before_any_endpoint_subscription_is_just_sent() -> None:
    """Goal: no endpoints are pushed at a client that asked for none. Method: change before subscribing."""
    peer = Peer()
    peer.push(snapshot("a"))
    assert kinds(peer.push(snapshot("b"))) == [Kind.CLUSTER]


def test_a_refusal_is_reported_and_not_repeated_until_something_changes() -> None:
    """Goal: no loop of push and refusal. Method: refuse, push the same, push another."""
    peer = Peer()
    clusters, _ = peer.push(snapshot("a"))
    report = peer.answer(clusters, error="a: bad")
    assert report == Rejected(Kind.CLUSTER, Version(1, 1), ("a",), "a: bad")
    assert peer.push(snapshot("a")) == []
    assert kinds(peer.push(snapshot("a", "b"))) == [Kind.CLUSTER]


def test_a_refused_kind_can_be_pushed_again() -> None:
    """An address that was in use may be free now."""
    peer = Peer().subscribed(snapshot("a"))
    peer.stream.resend(Kind.LISTENER)
    peer.stream.resend(Kind.LISTENER)
    assert kinds(peer.push(snapshot("a"))) == [Kind.LISTENER]
    AdsStream().resend(Kind.LISTENER)


def test_an_answer_to_an_overtaken_response_is_ignored() -> None:
    """Goal: a late refusal is not charged to the newer version.

    Method: answer the first after the second was sent.
    """
    peer = Peer()
    first, _ = peer.push(snapshot("a"))
    second = peer.push(snapshot("a", "b"))[0]
    assert peer.answer(first, error="late") is None
    assert peer.answer(second) == Accepted(Kind.CLUSTER, Version(1, 2), ("a", "b"))


def test_a_repeated_request_is_answered_again() -> None:
    """A client that dropped a resource and asks for it with the same names means it."""
    peer = Peer().subscribed(snapshot("a"))
    nonce = peer.nonces[Kind.ENDPOINTS]
    peer.stream.on_request(Request(Kind.ENDPOINTS, ("a",), "1.1", nonce))
    assert kinds(peer.push(snapshot("a"))) == [Kind.ENDPOINTS]


def test_an_unsubscribed_name_is_sent_when_it_is_wanted_again() -> None:
    """Goal: a client never waits for what it dropped. Method: subscribe to less, then to all."""
    peer = Peer().subscribed(snapshot("a", "b"))
    nonce = peer.nonces[Kind.ENDPOINTS]
    peer.stream.on_request(Request(Kind.ENDPOINTS, ("a",), "", nonce))
    assert peer.push(snapshot("a", "b")) == []
    peer.stream.on_request(Request(Kind.ENDPOINTS, ("a", "b"), "", nonce))
    assert sent(peer.push(snapshot("a", "b"))) == ["b"]


def test_a_client_that_names_what_does_not_exist_is_told_so() -> None:
    """A gRPC client waits 15 s for a listener unless an empty response says there is none."""
    stream = AdsStream()
    stream.on_request(Request(Kind.LISTENER, ("no-such",)))
    responses = list(stream.take(index(snapshot("a")), Version(1, 1)))
    assert kinds(responses) == [Kind.LISTENER]
    assert sent(responses) == []


def test_a_client_is_sent_what_it_named_and_nothing_else() -> None:
    """Goal: a client of one service does not learn all. Method: name one of two clusters."""
    stream = AdsStream()
    stream.on_request(Request(Kind.CLUSTER, ("b",)))
    assert sent(list(stream.take(index(snapshot("a", "b")), Version(1, 1)))) == ["b"]


def test_nothing_older_than_what_the_client_holds_is_sent() -> None:
    """Goal: a restarted sidecar that lags takes nothing away.

    Method: a peer that holds 9.3, pushes of 8 and 9.
    """
    peer = Peer(version="9.3")
    assert peer.push(snapshot(), revision=8) == []
    assert peer.stream.is_held(Version(8))
    assert kinds(peer.push(snapshot("a"), revision=9)) == [Kind.CLUSTER, Kind.LISTENER]


def test_a_version_of_another_server_holds_nothing_back() -> None:
    """Goal: foreign text is no version to wait for. Method: malformed versions, then there and back."""
    for text in ("", "hello", "1", "1.x", "x.1", "-1.2", "²."):
        assert Version.parse(text) == Version(0)
    assert Version.parse(str(Version(12, 3))) == Version(12, 3)


# ---- in force -------------------------------------------------------------------


def taken(kind: Kind, serial: int, *names: str) -> Accepted:
    return Accepted(kind, Version(1, serial), names)


def test_a_listener_is_open_once_it_has_its_routes() -> None:
    """Goal: readiness is not told before a call can be answered.

    Method: listener, then routes, then something else.
    """
    force = InForce()
    force.on_opened(1)
    force.on_report(taken(Kind.LISTENER, 1, "northbound/host"))
    assert force.listening == frozenset()
    force.on_report(taken(Kind.ROUTES, 1, "northbound"))
    assert force.listening == {"northbound/host"}
    force.on_report(taken(Kind.CLUSTER, 2, "a"))
    assert force.listening == {"northbound/host"}


def test_a_refused_listener_is_not_open_and_the_others_are() -> None:
    """Goal: one address that cannot be bound closes no other. Method: a refusal that names one of two."""
    force = InForce()
    force.on_report(taken(Kind.ROUTES, 1, "northbound"))
    names = ("northbound/host", "northbound/vip")
    force.on_report(Rejected(Kind.LISTENER, Version(1, 1), names, "northbound/vip: cannot bind"))
    assert force.listening == {"northbound/host"}


def test_refused_routes_open_nothing_and_opening_again_needs_new_routes() -> None:
    """Goal: after a fence, old routes do not count as open.

    Method: refusal, stale routes, new routes, exit.
    """
    force = InForce()
    force.on_report(taken(Kind.LISTENER, 1, "northbound/host"))
    force.on_report(Rejected(Kind.ROUTES, Version(1, 1), ("northbound",), "bad"))
    assert force.listening == frozenset()
    force.on_report(taken(Kind.ROUTES, 2, "northbound"))
    force.on_opened(3)
    assert force.listening == frozenset()
    force.on_report(taken(Kind.ROUTES, 3, "northbound"))
    assert force.listening == {"northbound/host"}
    force.on_exit()
    assert force.listening == frozenset()
