"""Who becomes primary when the present one is gone or gives way, or why nobody does.

The leader asks every data host it can reach to seal itself: to receive nothing
more from this primaryship. From what they report it concludes who certainly has
every acknowledged commit:

1. the last primary ended cleanly, and a host has all of its WAL; or
2. a quorum of the published voters is sealed: one of them has everything, and so
   has the furthest of them; or
3. the last primary itself is back with its data: it goes on; or
4. somebody accepted the loss, for this primaryship and no other: the furthest of
   those who answer. Else nobody is promoted, and the reason says who is missing.

Invariant: a report counts only if it was sealed at the present fencing term, of
this database, undamaged, final, and on a line that a recorded promotion made.

Order: a choice holds for the record it names. The command that assigns the
ownership must be refused if another set was published or another primaryship
recorded meanwhile: the old primary may have done so after the leader looked, and
only the assignment bars it. Clients are let in after `RecordPromotion`, so
whatever was acknowledged was acknowledged on the recorded timeline.

Absent here: when the old holder's lease is over (mesh.lease; sealing does not
wait for it, the assignment does).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from mesh.ids import FencingTerm, HostId
from sidecar.postgres.history import Position, further, has
from sidecar.postgres.model import NO_TERM, Lsn, SealReport, SyncSet, Timeline, format_lsn
from sidecar.postgres.sync_set import promises


class Standing(Enum):
    """What the leader thinks of the holder as primary."""

    #: Alive, and its database serves or is being given time.
    WELL = "well"
    #: Alive, but its database cannot serve and is given up.
    UNFIT = "unfit"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FailoverView:
    """All that the leader looks at."""

    leader: HostId
    #: Hosts that hold data, and those of them that are not lost.
    data_hosts: tuple[HostId, ...]
    alive: tuple[HostId, ...]
    holder: HostId
    fencing_term: FencingTerm
    standing: Standing
    # As recorded in the replicated state.
    system_identifier: str
    timeline: Timeline
    primary_term: FencingTerm
    published: SyncSet
    #: Newest report of each host.
    reports: Mapping[HostId, SealReport]
    #: Primaryship whose loss somebody accepted; 0: none.
    accepted_loss: FencingTerm = NO_TERM
    #: A switchover to this host is under way.
    successor: HostId | None = None


@dataclass(frozen=True, slots=True)
class FailoverStep:
    """Whom to ask to seal now, and who is to own the primaryship if that is known."""

    reason: str
    seal: tuple[HostId, ...] = ()
    #: Assign it a new number, also if it is the holder. None: leave the ownership as it is.
    chosen: HostId | None = None
    #: The choice holds only while this is the published version and this the newest recorded primaryship.
    published_version: int = 0
    recorded_term: FencingTerm = NO_TERM
    #: Data hosts whose word is missing.
    missing: tuple[HostId, ...] = ()
    loss_accepted: bool = False
    #: What it was decided from, for the journal.
    facts: tuple[tuple[str, str], ...] = ()


def decide_failover(view: FailoverView) -> FailoverStep:
    """The next step of the leader; called again on every news."""
    if not view.system_identifier:
        return FailoverStep("the database is not made yet")
    stopped = _is_sealed(view, view.holder)
    if view.standing is Standing.WELL and not stopped:
        if view.successor not in (None, view.holder):
            return FailoverStep(f"{view.holder} hands over to {view.successor}: it stops first")
        sealed = [host for host in sorted(view.reports) if _is_sealed(view, host)]
        if sealed:
            reason = f"{view.holder} goes on under a new number: {', '.join(sealed)} follow this one no more"
            return FailoverStep(reason, (), view.holder, view.published.version, view.primary_term)
        return FailoverStep(f"{view.holder} is primary and well")
    seal = tuple(host for host in sorted(view.alive) if not _is_sealed(view, host))
    if view.standing is Standing.WELL and view.successor in seal:
        return FailoverStep(f"{view.successor} takes over: its word is awaited", seal)
    found = _choose(view)
    return FailoverStep(
        found.reason,
        seal,
        found.chosen,
        view.published.version,
        view.primary_term,
        found.missing,
        found.loss_accepted,
        _facts(view),
    )


def target_of(view: FailoverView, step: FailoverStep) -> HostId | None:
    """Who is to own the primaryship now; None: the ownership stays as it is, whoever may be asked for it.

    So while it is handed over, and until somebody is chosen, nobody is given it.
    """
    if step.chosen is not None:
        return step.chosen
    if not view.system_identifier:
        return view.holder
    is_left_alone = view.standing is Standing.WELL and not _is_sealed(view, view.holder)
    return view.holder if is_left_alone and view.successor in (None, view.holder) else None


# ---- which reports count --------------------------------------------------------


def why_not_counted(view: FailoverView, host: HostId) -> str:
    """Why the word of a host proves nothing; empty: it counts."""
    report = view.reports.get(host)
    if host not in view.alive:
        return "is lost"
    if report is None:
        return "has not answered"
    if report.fencing_term < view.fencing_term:
        return f"is sealed at {report.fencing_term}, not at {view.fencing_term}"
    if report.system_identifier != view.system_identifier:
        return f"holds another database ({report.system_identifier})"
    if report.damaged:
        return f"is damaged: {report.damaged}"
    if report.catching_up:
        return "still reads WAL that it has"
    if 0 < report.primary_term < view.primary_term:
        return f"was primary number {report.primary_term} and has followed nobody since"
    # Only a primaryship that was assigned and has not recorded itself may have begun another timeline.
    if report.history.timeline > view.timeline and view.fencing_term <= view.primary_term:
        return f"is on timeline {report.history.timeline}, which no recorded promotion made"
    return ""


def _is_sealed(view: FailoverView, host: HostId) -> bool:
    report = view.reports.get(host)
    return report is not None and report.fencing_term >= view.fencing_term


# ---- who has everything ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    reason: str
    chosen: HostId | None = None
    missing: tuple[HostId, ...] = ()
    loss_accepted: bool = False


def _choose(view: FailoverView) -> _Found:
    words = [view.reports[host] for host in sorted(view.reports) if not why_not_counted(view, host)]
    # Those that were overtaken do not count, so these hold all: nobody has let clients in after them.
    lasts = [report for report in words if report.primary_term > 0]
    standbys = [report for report in words if report.primary_term == 0]
    known = standbys + [report for report in lasts if report.ended_cleanly]
    for last in lasts:
        heirs = [each for each in standbys if last.ended_cleanly and has(_position(each), _position(last))]
        if heirs:
            chosen = _preferred(view, heirs).host
            return _Found(f"{last.host} ended cleanly, and {chosen} has all of its WAL", chosen)
    voters = view.published.voters
    counted = [report for report in known if report.host in voters]
    split = ""
    if promises(view.published) and len(counted) >= view.published.quorum:
        best = _furthest(view, counted)
        if best is not None:
            asked = ", ".join(report.host for report in counted)
            return _Found(
                f"{best.host} is the furthest of {asked}: every acknowledged commit is there", best.host
            )
        split = "their histories went apart and neither is older"
    if lasts:
        last = lasts[0]
        return _Found(f"{last.host} was the last primary and has its data: it goes on", last.host)
    if view.accepted_loss == view.fencing_term and known:
        best = _furthest(view, known) or max(known, key=lambda report: _rank(view, report))
        reason = f"{best.host} is the furthest of those that answer; the loss was accepted"
        return _Found(reason, best.host, loss_accepted=True)
    return _refused(view, counted, split)


def _position(report: SealReport) -> Position:
    return Position(report.history, report.flushed)


def _preferred(view: FailoverView, equals: Iterable[SealReport]) -> SealReport:
    order = (view.successor, view.leader)
    rank = {host: number for number, host in enumerate(order) if host is not None}
    return min(equals, key=lambda report: (rank.get(report.host, len(order)), report.host))


def _furthest(view: FailoverView, reports: list[SealReport]) -> SealReport | None:
    """The report that wins over every other; None: two of them went apart, or there is none."""
    winners = [one for one in reports if all(_wins(view, one, other) for other in reports)]
    return _preferred(view, winners) if winners else None


def _wins(view: FailoverView, one: SealReport, other: SealReport) -> bool:
    """`one` is as good as `other` or better; the recorded timeline wins over a branch that left its line."""
    found = further(_position(one), _position(other))
    if found is not None:
        return found == _position(one)
    # Both went on beyond what they share, so this one has all of that.
    return one.history.timeline == view.timeline > other.history.timeline


def _rank(view: FailoverView, report: SealReport) -> tuple[bool, Lsn, bool, str]:
    """Order of those whose histories cannot be compared, when any loss is accepted."""
    return (report.history.timeline == view.timeline, report.flushed, report.host == view.leader, report.host)


# ---- words ----------------------------------------------------------------------


def _refused(view: FailoverView, counted: list[SealReport], split: str) -> _Found:
    if split:
        hosts = ", ".join(report.host for report in counted)
        return _Found(f"nobody is promoted: {hosts}: {split}; look at them and accept a loss for one")
    published = view.published
    have = {report.host for report in counted}
    missing = tuple(host for host in published.voters if host not in have)
    whys = "; ".join(f"{host} {why_not_counted(view, host)}" for host in missing)
    if not promises(published):
        reason = f"nobody is promoted: only {view.holder} is known to have every acknowledged commit"
        return _Found(f"{reason}; bring it back, or accept the loss", missing=(view.holder,))
    voters = ", ".join(published.voters)
    return _Found(
        f"nobody is promoted: {len(have)} of the {published.quorum} needed of {voters} count; {whys};"
        f" bring one of them or {view.holder} back, or accept the loss",
        missing=missing,
    )


def _facts(view: FailoverView) -> tuple[tuple[str, str], ...]:
    published = view.published
    said = []
    for host in sorted({*view.data_hosts, *view.reports}):
        report = view.reports.get(host)
        why = why_not_counted(view, host)
        at = f"{report.history.timeline}@{format_lsn(report.flushed)}" if report is not None else ""
        said.append((f"report-{host}", f"{at} {why}".strip()))
    return (
        ("holder", view.holder),
        ("standing", view.standing.value),
        ("fencing_term", str(view.fencing_term)),
        ("published", f"{published.quorum} of {','.join(published.voters)} version {published.version}"),
        *said,
    )


# ---- switchover -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SuccessorView:
    """The host that is to take over, as last seen."""

    host: HostId
    is_alive: bool
    is_streaming: bool
    timeline: Timeline
    lag_bytes: int
    damaged: str = ""


def why_no_switchover(view: FailoverView, successor: SuccessorView, lag_bytes_max: int) -> str:
    """Why a switchover to this host is refused; empty: it may begin."""
    host = successor.host
    if host == view.holder:
        return f"{host} is the primary already"
    if view.standing is not Standing.WELL:
        return f"{view.holder} is {view.standing.value}: that is a failover, not a switchover"
    if host not in view.published.voters:
        return f"{host} is no synchronous standby; wait until it has caught up"
    if not successor.is_alive:
        return f"{host} is lost"
    if successor.damaged:
        return f"{host} is damaged: {successor.damaged}"
    if not successor.is_streaming or successor.timeline != view.timeline:
        return f"{host} does not stream from {view.holder}"
    if successor.lag_bytes > lag_bytes_max:
        return f"{host} is {successor.lag_bytes} bytes behind, at most {lag_bytes_max} is allowed; wait"
    return ""
