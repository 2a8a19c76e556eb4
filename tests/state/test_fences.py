"""Changes that an owner makes: applied while it is the owner, refused from the next assignment on."""

import pytest

from mesh.ids import DocumentName, FencingTerm, Index, OwnedName, ServiceName, owned_service
from mesh.state import Applied, Outcome, Rejected, Request, apply
from mesh.state.commands import (
    ApplyService,
    AssignOwner,
    Batch,
    Command,
    PutDocument,
    StopService,
    Unassign,
)
from mesh.state.model import Fence
from tests.state.model_state import A, B, Cluster, spec

RECONCILER = owned_service(ServiceName("reconciler"))
WRITE = PutDocument(DocumentName("a"), b"1")


def fence(term: int, name: OwnedName = RECONCILER) -> Fence:
    return Fence(name, FencingTerm(term))


def owned(cluster: Cluster, terms: int = 1) -> None:
    """Declared, and assigned so many times."""
    cluster.do(ApplyService(spec("reconciler")))
    for number in range(terms):
        cluster.do(AssignOwner(RECONCILER, (A, B)[number % 2], FencingTerm(number)))


def ask(cluster: Cluster, command: Command, by: Fence) -> Outcome:
    """The outcome; a refusal has changed nothing and is in no journal."""
    before = cluster.state.copy()
    request = Request(command, at_ns=1, fence=by)
    effect = apply(cluster.state, Index(cluster.state.applied + 1), request)
    if isinstance(effect.outcome, Rejected):
        assert not effect.changed.changes
        assert [table.rows for table in cluster.state.tables] == [table.rows for table in before.tables]
    return effect.outcome


def test_the_present_owner_changes_things() -> None:
    """Goal: the fence lets its owner through. Method: the latest term."""
    cluster = Cluster()
    owned(cluster, 2)
    assert isinstance(ask(cluster, WRITE, fence(2)), Applied)


@pytest.mark.parametrize(
    "command",
    [
        WRITE,
        ApplyService(spec("web")),
        StopService(ServiceName("reconciler")),
        Batch((WRITE, ApplyService(spec("web")))),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_overtaken_owner_changes_nothing(command: Command) -> None:
    """Goal: what comes late in the log has no effect, whatever it is. Method: terms below and above the
    present."""
    cluster = Cluster()
    owned(cluster, 2)
    for term in (1, 3):
        refused = ask(cluster, command, fence(term))
        assert isinstance(refused, Rejected)
        assert refused.reason == "STALE_TERM"
        assert dict(refused.metadata)["fencing_term"] == "2"


def test_who_has_given_it_up_or_never_had_it_is_refused() -> None:
    """Goal: only a holder acts. Method: released; a name that nobody was ever given."""
    cluster = Cluster()
    owned(cluster)
    cluster.do(Unassign(RECONCILER, FencingTerm(1)))
    for by in (fence(1), fence(1, OwnedName("service/nobody")), fence(0, OwnedName("service/nobody"))):
        refused = ask(cluster, WRITE, by)
        assert isinstance(refused, Rejected)
        assert refused.reason == "STALE_TERM"


def test_the_order_in_the_log_decides() -> None:
    """Goal: the last change of an owner may come before its successor's assignment, never after. Method:
    one change on each side of it."""
    cluster = Cluster()
    owned(cluster)
    assert isinstance(ask(cluster, WRITE, fence(1)), Applied)
    cluster.do(AssignOwner(RECONCILER, B, FencingTerm(1)))
    assert isinstance(ask(cluster, WRITE, fence(1)), Rejected)
    assert isinstance(ask(cluster, WRITE, fence(2)), Applied)


def test_a_stop_is_of_the_version_that_was_seen() -> None:
    """Goal: nobody stops what was declared anew meanwhile. Method: the version before, the present one,
    none."""
    cluster = Cluster()
    cluster.do(ApplyService(spec("web")))
    cluster.do(ApplyService(spec("web", "echo")))
    web = ServiceName("web")
    refused = cluster.refuse(StopService(web, expected_version=1))
    assert (refused.reason, dict(refused.metadata)["version"]) == ("VERSION_CONFLICT", "2")
    assert cluster.refuse(StopService(web, keep=True, expected_version=1)).reason == "VERSION_CONFLICT"
    cluster.do(StopService(web, keep=True))
    cluster.do(StopService(web, expected_version=2))
    assert web not in cluster.state.services
