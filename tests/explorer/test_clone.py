"""A copy of a node is one: it behaves and encodes equally, and shares nothing."""

import copy
from dataclasses import replace

import pytest

from mesh.raft import RawNode
from tests.explorer.clone import check_fields, clone, revive
from tests.explorer.encode import Namer, encode_host
from tests.explorer.host import Host, Move, act
from tests.explorer.violation import Disabled
from tests.explorer.walks import search_of, walk
from tests.explorer.worlds import WORLDS

#: A world in which nothing is left out of the encoding.
EVERYTHING = replace(WORLDS["leases"], has_crash_proof=True)
WALKED = ("three", "snapshots", "transfer", "three-four-three", "leases")


def hosts_and_moves(world: str) -> list[tuple[Host, Move, bool, Namer]]:
    """What comes up on some walks through *world*."""
    search = search_of(WORLDS[world])
    table = search.table
    for seed in range(8):
        for _ in walk(search, seed, 60):
            pass
    namer = table.namers[0]
    return [
        (known.host, table.moves[key >> 1], bool(key & 1), namer)
        for known in table.hosts
        for key in known.steps
    ]


def encoded_after(host: Host, move: Move, namer: Namer, *, stalled: bool) -> object:
    try:
        outcome = act(host, move, stalled=stalled)
    except Disabled as refusal:
        return str(refusal)
    return encode_host(outcome.host, namer, EVERYTHING), outcome.sent


@pytest.mark.parametrize("world", WALKED)
def test_a_clone_does_what_a_deep_copy_does(world: str) -> None:
    """Goal: the copier copies all that matters. Method: the same moves at clones of it and of a deep copy."""
    cases = hosts_and_moves(world)
    assert len(cases) > 200
    for host, move, stalled, namer in cases[::3]:
        deep = copy.deepcopy(host)
        result = encoded_after(deep, move, namer, stalled=stalled)
        assert encoded_after(host, move, namer, stalled=stalled) == result, move


@pytest.mark.parametrize("world", WALKED)
def test_a_move_leaves_the_host_that_was_copied_as_it_was(world: str) -> None:
    """Goal: nothing that changes is shared. Method: encode before and after a move at the copy."""
    for host, move, stalled, namer in hosts_and_moves(world)[::2]:
        before = encode_host(host, namer, EVERYTHING)
        encoded_after(host, move, namer, stalled=stalled)
        assert encode_host(host, namer, EVERYTHING) == before, move


def leading() -> RawNode:
    """A node with everything that a node can have."""
    search = search_of(WORLDS["transfer"])
    return clone(next(known.host.node for known in search.table.hosts if known.is_leader))


def test_a_field_that_the_copier_does_not_know_is_noticed() -> None:
    """Goal: a core that grows can not be searched half blind. Method: fields added here and there."""
    node = leading()
    check_fields(node)
    parts = [node, node._core, node._core.log, node._core._promise, node._core.leadership, node._core.outbox]
    for part in parts:
        part.__dict__["novelty"] = 0
        with pytest.raises(LookupError, match="novelty"):
            check_fields(node)
        del part.__dict__["novelty"]
    check_fields(node)


def test_an_object_that_the_copier_does_not_know_is_noticed() -> None:
    """Goal: as above, for a part of a new kind. Method: put one where a number was."""

    class Novelty:
        pass

    node = leading()
    node._core.__dict__["_now"] = Novelty()
    with pytest.raises(LookupError, match="Novelty"):
        check_fields(node)


def test_a_revived_clone_has_the_handlers_of_the_core() -> None:
    """Goal: no kind of message is unknown to a clone. Method: compare with a node made the ordinary way."""
    node = leading()
    revive(node)
    fresh = RawNode(node._settings, RawNode.bootstrap(node.membership.voters), lambda low, high: high)
    names = {kind: handler.__name__ for kind, handler in node._core._handlers.items()}
    assert names == {kind: handler.__name__ for kind, handler in fresh._core._handlers.items()}
