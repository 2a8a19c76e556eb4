"""Seal reports come over the wire as they left, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trellis.database.v1 import database_pb2 as pb

from mesh.errors import InvalidRequest
from mesh.ids import FencingTerm, HostId
from mesh.limits import TIMELINES_MAX
from sidecar.postgres.model import Ancestor, Lsn, SealReport, Timeline, TimelineHistory
from sidecar.postgres.wire import decode_seal_report, encode_seal_report

text = st.text(max_size=12)
lsns = st.integers(0, 2**64 - 1).map(Lsn)
terms = st.integers(0, 2**40).map(FencingTerm)


@st.composite
def histories(draw: st.DrawFn) -> TimelineHistory:
    numbers = sorted(draw(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=5)))
    ends = sorted(draw(lsns) for _ in numbers[1:])
    ancestors = [Ancestor(Timeline(number), end) for number, end in zip(numbers, ends, strict=False)]
    return TimelineHistory(Timeline(numbers[-1]), tuple(ancestors))


reports = st.builds(
    SealReport,
    host=st.sampled_from(["host1", "host2"]).map(HostId),
    fencing_term=terms,
    system_identifier=text,
    history=histories(),
    flushed=lsns,
    damaged=text,
    catching_up=st.booleans(),
    primary_term=terms,
    ended_cleanly=st.booleans(),
)


@given(reports)
def test_every_report_comes_back_as_it_was(report: SealReport) -> None:
    """Goal: who is promoted is chosen from what hosts have. Method: random reports, through bytes."""
    data = encode_seal_report(report).SerializeToString()
    assert decode_seal_report(pb.SealReport.FromString(data)) == report


def test_a_host_without_data_reports_too() -> None:
    """Goal: an empty host is told from one that does not answer. Method: timeline 0, nothing else."""
    report = SealReport(HostId("host1"), FencingTerm(3), "", TimelineHistory(Timeline(0)), Lsn(0))
    assert decode_seal_report(encode_seal_report(report)) == report


@pytest.mark.parametrize(
    "switches",
    [[(2, 10), (1, 20)], [(1, 20), (2, 10)], [(1, 10), (1, 20)], [(3, 10)], [(4, 10)]],
    ids=["timelines fall", "positions fall", "one comes twice", "its own", "a later one"],
)
def test_a_history_that_cannot_be_is_refused(switches: list[tuple[int, int]]) -> None:
    """Goal: no position is compared over a line that never was. Method: each way to break the order."""
    message = pb.SealReport(
        timeline=3, history=[pb.TimelineSwitch(timeline=number, lsn=lsn) for number, lsn in switches]
    )
    with pytest.raises(InvalidRequest, match="followed each other"):
        decode_seal_report(message)


def test_a_long_history_keeps_its_newest_timelines() -> None:
    """Goal: a message is bounded, and what is compared is recent. Method: more than fit; then too many."""
    count = TIMELINES_MAX + 5
    ancestors = tuple(Ancestor(Timeline(number), Lsn(number)) for number in range(1, count + 1))
    history = TimelineHistory(Timeline(count + 1), ancestors)
    message = encode_seal_report(SealReport(HostId("host1"), FencingTerm(1), "7", history, Lsn(9_999)))
    assert decode_seal_report(message).history.ancestors == ancestors[5:]
    message.history.insert(0, pb.TimelineSwitch(timeline=1, lsn=1))
    with pytest.raises(InvalidRequest, match="too long"):
        decode_seal_report(message)
