"""Ways through a world for tests: at random, from a seed."""

import random
from collections.abc import Iterator

from tests.explorer.search import Event, Search, State
from tests.explorer.start import start_of
from tests.explorer.worlds import World


def search_of(world: World) -> Search:
    return Search(world, start_of(world.prologue))


def walk(search: Search, seed: int, length: int) -> Iterator[tuple[State, Event]]:
    """States on the way, each with the move that led there."""
    dice = random.Random(seed)
    state = search.first
    for _ in range(length):
        successors = search.successors(state)
        if not successors:
            return
        state, event = dice.choice(successors)
        yield state, event
