"""Equal encodings are equal futures: with one table for all paths, and under other names."""

import pytest

from tests.explorer.encode import digest, encode_host
from tests.explorer.host import Disk, act
from tests.explorer.search import State
from tests.explorer.start import start_of
from tests.explorer.table import canonical
from tests.explorer.walks import search_of, walk
from tests.explorer.worlds import WORLDS

#: Worlds whose beginning is symmetric enough for equal states to come up soon.
SYMMETRIC = ("three", "three-led", "election", "rival", "slow-disks", "reads", "transfer", "crash-proof")


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_walk_by_the_table_goes_like_one_without_it(name: str) -> None:
    """Goal: what is left out of the encoding has no future.

    Method: repeat random walks with hosts of their own, which were never exchanged for others that
    are encoded equally, and compare the encodings after every move.
    """
    world = WORLDS[name]
    search = search_of(world)
    table = search.table
    for seed in range(12):
        hosts = list(start_of(world.prologue).hosts)
        for (numbers, *_), (at, move, stalled, _) in walk(search, seed, 70):
            hosts[at] = act(hosts[at], table.moves[move], stalled=stalled).host
            own = digest(encode_host(hosts[at], table.namers[0], world))
            theirs = table.hosts[numbers[at]].host
            assert own == digest(encode_host(theirs, table.namers[0], world))


@pytest.mark.parametrize("name", SYMMETRIC)
def test_states_that_differ_in_names_only_go_on_alike(name: str) -> None:
    """Goal: the core treats all members alike, so one of six orders stands for all.

    Method: states that are different, but have the same key, must lead to the same keys.
    """
    search = search_of(WORLDS[name])
    key_of = canonical(len(search.table.namers))

    def futures(state: State) -> set[bytes]:
        return {key_of(new[4]) for new, _ in search.successors(state)}

    first_with: dict[bytes, State] = {}
    compared = 0
    level = [search.first]
    while level and compared < 150 and len(first_with) < 6000:
        following = []
        for state in level:
            for new, _ in search.successors(state):
                known = first_with.setdefault(key_of(new[4]), new)
                if known is new:
                    following.append(new)
                elif known[0] != new[0] and compared < 150:
                    assert futures(known) == futures(new)
                    compared += 1
        level = following
    assert compared >= 50


def test_a_disk_that_differs_is_another_state() -> None:
    """Goal: durable and volatile state are both part of a state. Method: change one byte's worth of each."""
    search = search_of(WORLDS["three"])
    host = search.table.hosts[0].host.copy()
    namer = search.table.namers[0]
    before = encode_host(host, namer, WORLDS["three"])
    disk = host.disk
    host.disk = Disk(disk.hard_state, disk.snapshot, disk.entries[:-1], disk.synced_commit)
    assert encode_host(host, namer, WORLDS["three"]) != before
