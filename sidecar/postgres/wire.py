"""Seal reports on the wire, between hosts.

Fails: `InvalidRequest` when a report cannot be what PostgreSQL wrote: a wrong
order of timelines would make positions look comparable that are not.
"""

from trellis.database.v1 import database_pb2 as pb

from mesh.errors import InvalidRequest, Problem
from mesh.ids import FencingTerm, HostId
from mesh.limits import TIMELINES_MAX
from sidecar.postgres.model import Ancestor, Lsn, SealReport, Timeline, TimelineHistory


def encode_seal_report(report: SealReport) -> pb.SealReport:
    """Of a history that is longer than the bound, the newest timelines."""
    return pb.SealReport(
        host=report.host,
        fencing_term=report.fencing_term,
        system_identifier=report.system_identifier,
        timeline=report.history.timeline,
        history=[
            pb.TimelineSwitch(timeline=each.timeline, lsn=each.end)
            for each in report.history.ancestors[-TIMELINES_MAX:]
        ],
        flushed_lsn=report.flushed,
        damaged=report.damaged,
        catching_up=report.catching_up,
        ended_cleanly=report.ended_cleanly,
        primary_term=report.primary_term,
    )


def decode_seal_report(message: pb.SealReport) -> SealReport:
    """The inverse of `encode_seal_report`."""
    ancestors = tuple(Ancestor(Timeline(each.timeline), Lsn(each.lsn)) for each in message.history)
    history = TimelineHistory(Timeline(message.timeline), ancestors)
    _check(history)
    return SealReport(
        host=HostId(message.host),
        fencing_term=FencingTerm(message.fencing_term),
        system_identifier=message.system_identifier,
        history=history,
        flushed=Lsn(message.flushed_lsn),
        damaged=message.damaged,
        catching_up=message.catching_up,
        primary_term=FencingTerm(message.primary_term),
        ended_cleanly=message.ended_cleanly,
    )


def _check(history: TimelineHistory) -> None:
    numbers = [each.timeline for each in history.ancestors] + [history.timeline]
    ends = [each.end for each in history.ancestors]
    if numbers != sorted(set(numbers)) or ends != sorted(ends):
        problem = Problem("history", "is not in rising order of timelines and positions")
        raise InvalidRequest("A seal report names timelines that cannot have followed each other.", [problem])
    if len(ends) > TIMELINES_MAX:
        problem = Problem("history", f"has {len(ends)} timelines; at most {TIMELINES_MAX}")
        raise InvalidRequest("A seal report is too long.", [problem])
