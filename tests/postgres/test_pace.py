"""How soon a driver tries again, and what it calls trouble."""

import asyncio

from mesh.errors import DatabaseFailed
from sidecar.postgres.model import Do
from sidecar.postgres.pace import Pace


async def test_what_failed_waits_longer_each_time_until_it_works() -> None:
    """Goal: no busy loop on what cannot be had. Method: three failures, then a success."""
    pace = Pace()
    for _ in range(3):
        pace.failed(Do.REWIND, DatabaseFailed("refused"))
    assert pace.must_wait(Do.REWIND)
    assert not pace.must_wait(Do.CLONE)
    assert pace.trouble == "refused"
    pace.worked(Do.REWIND)
    assert not pace.must_wait(Do.REWIND)
    assert pace.trouble == ""


async def test_what_failed_and_is_not_wanted_any_more_is_no_trouble_any_more() -> None:
    """Goal: a healthy standby does not tell of the rewind that could not be. Method: another is wanted."""
    pace = Pace()
    pace.failed(Do.REWIND, DatabaseFailed("refused"))
    pace.wants(Do.REWIND)
    assert pace.trouble == "refused"
    pace.wants(Do.CLONE)
    assert pace.trouble == ""


async def test_a_look_at_what_does_not_change_is_taken_less_and_less_often() -> None:
    """Goal: waiting costs nothing. Method: pauses without news; then news."""
    pace = Pace()
    pauses = []
    for _ in range(30):
        pace.worked(Do.CONFIGURE_SYNC, is_news=False)
        pauses.append(pace.pause_s(is_settled=False))
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * pauses[0]
    pace.worked(Do.FOLLOW)
    assert pace.pause_s(is_settled=False) < 2 * pauses[0]


async def test_a_bug_in_what_goes_on_beside_comes_out_at_the_next_turn() -> None:
    """Goal: nothing is swallowed. Method: a long work that ends by a bug."""
    pace, ended = Pace(), asyncio.Event()

    async def work() -> None:
        raise ZeroDivisionError

    pace.begin(Do.CLONE, work(), ended.set)
    assert pace.does is Do.CLONE
    await ended.wait()
    try:
        pace.check()
    except ZeroDivisionError:
        return
    raise AssertionError("the bug was lost")
