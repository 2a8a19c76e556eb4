"""An answer goes back on the lane of its question: it is the only one that is certainly open.

A leader that sends a snapshot to a host which has just started has said nothing on the append lane
yet, and an answer to it there would never arrive. What tells an old leader of a newer term is no
answer in this sense: one that it does not get it finds out for want of a quorum.
"""

import pytest

from mesh.ids import Index, Term
from mesh.raft.model import AppendHeartbeat, Message, SnapshotChunk
from mesh.raft.snapshot import take_snapshot
from mesh.wire.raft import lane_of
from tests.raft.group import THREE, A, B, append, ask, at, drain, member, simple


def chunk(index: int, offset: int = 0) -> SnapshotChunk:
    """All of a snapshot that ends at *index*, or its rest."""
    snapshot = take_snapshot(at(2, index), simple(THREE), b"state")
    return SnapshotChunk(
        sender=B, to=A, term=Term(2), meta=snapshot.meta, offset=offset, data=snapshot.data[offset:]
    )


QUESTIONS: dict[str, Message] = {
    "vote": ask(3, at(2, 9)),
    "append": append(2, at(2, 4), 2),
    "append that does not fit": append(2, at(2, 8), 2),
    "heartbeat": AppendHeartbeat(sender=B, to=A, term=Term(2), commit=Index(1), round=1),
    "snapshot": chunk(9),
    "part of a snapshot": chunk(9, offset=3),
    "snapshot of what is committed": chunk(3),
    "snapshot of what is in the log": chunk(4),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_goes_back_on_the_lane_of_its_question(question: str) -> None:
    """Goal: no answer waits for a stream that nobody opened. Method: each question to a follower."""
    node = member((2, 2, 2), commit=3)
    asked = QUESTIONS[question]
    node.step(asked)
    answers = [each for each in drain(node) if each.to == B]
    assert [lane_of(each) for each in answers] == [(lane_of(asked)[0], True)] * len(answers)
    assert answers


def test_a_follower_that_dies_before_it_says_that_it_installed_is_fed_again() -> None:
    """Goal: a leader never sends the same chunk for ever. Method: the last chunk again, to a follower that
    has the snapshot already; the leader takes the answer for the end of the transfer."""
    node = member((2, 2, 2), commit=4)
    node.step(chunk(4))
    (answer,) = drain(node)
    assert getattr(answer, "installed", False)
