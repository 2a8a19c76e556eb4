"""What the figures of the database's benchmark are made of."""

import json
from pathlib import Path

from benchmarks.acknowledgements import Acknowledgement, Acknowledgements, Reader

MS = 10**6


def acknowledged(*came: tuple[int, str]) -> Acknowledgements:
    """One row a time, numbered from 1."""
    return Acknowledgements(
        tuple(Acknowledgement(at * MS, row, server) for row, (at, server) in enumerate(came, start=1))
    )


def test_an_outage_is_the_longest_gap_that_ended_after_the_fault() -> None:
    """Goal: what was before the fault does not count. Method: a longer gap before it."""
    seen = acknowledged((0, "a"), (900, "a"), (920, "a"), (1320, "b"), (1340, "b"))
    assert seen.outage_ms(930 * MS) == 400
    assert seen.server_at(930 * MS) == "a"


def test_without_an_acknowledgement_after_the_fault_there_is_no_figure() -> None:
    """Goal: an outage that does not end is not shown as none. Method: the fault last."""
    assert acknowledged((0, "a"), (20, "a")).outage_ms(30 * MS) is None


def test_two_servers_that_acknowledge_at_once_are_seen() -> None:
    """Goal: a second primary is not overlooked. Method: the old one last, or the new one."""
    assert acknowledged((0, "a"), (20, "b"), (25, "a")).overlap_ms("a") == 5
    assert acknowledged((0, "a"), (20, "b"), (25, "b")).overlap_ms("a") == -20
    assert acknowledged((0, "a"), (20, "a")).overlap_ms("a") is None


def test_acknowledged_rows_that_are_not_there_are_lost() -> None:
    """Goal: every lost row is named. Method: one of three is there, and one of nobody."""
    assert acknowledged((0, "a"), (20, "a"), (40, "b")).lost([2, 9]) == [1, 3]


def test_a_record_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Goal: half a line counts once it is whole, and no doubt is an acknowledgement. Method: both."""
    record = tmp_path / "acks"
    reader = Reader(record)
    assert reader.read() == Acknowledgements(())
    lines = [
        {"row": 1, "at_ns": 5, "server": "a", "why": ""},
        {"row": 2, "at_ns": 6, "server": "a", "why": "57P01: terminated"},
        {"row": None, "at_ns": 7, "why": "no connection"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    record.write_text(text[:20])
    assert reader.read() == Acknowledgements(())
    record.write_text(text)
    assert reader.read() == Acknowledgements((Acknowledgement(5, 1, "a"),), unsure=1)
