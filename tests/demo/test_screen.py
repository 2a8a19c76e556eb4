"""The picture is made from the board alone, whatever is missing on it."""

from rich.console import Console

from sidecar.demo.board import Board
from sidecar.demo.calls import Call
from sidecar.demo.phases import Sight
from sidecar.demo.screen import bars, draw


def drawn(board: Board) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as printed:
        console.print(draw(board))
    return printed.get()


def board() -> Board:
    return Board(("host1", "host2", "host3"), "127.0.0.100:7480", lambda _at, _text: None)


def test_an_empty_board_can_be_drawn() -> None:
    """Goal: the first frame does not crash the demo. Method: nothing seen yet."""
    assert "host3" in drawn(board())


def test_the_leader_its_lease_and_what_it_owns_are_shown() -> None:
    """Goal: a viewer sees what is at stake. Method: one sight, one kill, one call."""
    full = board()
    full.sights["host2"] = Sight(
        0, "host2", "leader", 4, "host2", 1100.0, 7, frozenset(), {"vip": ("host2", 5)}, {}
    )
    full.killed.add("host1")
    full.say("host1 is gone")
    full.ledger.add(Call(full.started_ns, full.started_ns, idempotent=True, code="OK", host="host2"))
    for text in ("leader", "1100 ms", "vip", "killed", "host1 is gone", "1 made"):
        assert text in drawn(full)


def test_anything_above_zero_can_be_seen_in_a_bar() -> None:
    """Goal: a small dip is not drawn as an outage. Method: values at and between the edges."""
    assert bars([0.0, 0.01, 0.5, 1.0, 3.0]) == " ▁▄██"
