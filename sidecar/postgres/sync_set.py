"""Which standbys must hold a commit, changed one safe step at a time.

Two things must agree. *In force* at the primary: a commit is acknowledged once
any `needed` of `standbys` have flushed it. *Published* in the replicated state:
a promotion without the primary asks the voters and needs a quorum of them.

Invariant: any published quorum of voters has a holder of every acknowledged
commit among them. Two rules keep it:

1. What is in force is always covered by what is published (`is_covered_by`), so
   growing publishes first, and shrinking publishes last.
2. A new publication either asks for more than the one before (`asks_more`): any
   quorum of it contains a quorum of the former. Or it rests on what is in force,
   and then commits acknowledged before that came into force must be among the
   holders too: `needed` of the standbys have flushed the barrier, a position
   read after it came into force.

What is published changes by compare-and-set on its version. An answer that got
lost leaves a publication under way that may still be applied, and it rests on
what was in force when it left. Hence nothing else is put in force until a later
publication was *applied* (`is_settled`): that raises the version, and whatever
was under way is dead. A refusal settles nothing: one that expects the version
which is there now may still come. A process that starts knows of none, so it is
unsettled, unless it begins a primaryship: the fencing term bars all from before.

Absent here: whether names may be believed. Only standbys authenticated by their
certificate are counted, which pg_hba and pg_ident see to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mesh.ids import HostId
from sidecar.postgres.model import NO_LSN, InForce, Lsn, SyncNames, SyncSet, format_lsn

# ---- what covers what -----------------------------------------------------------


def promises(published: SyncSet) -> bool:
    """Somebody may be promoted by it; a set that cannot be met covers everything."""
    return 1 <= published.quorum <= len(published.voters)


def covers(published: SyncSet, primary: HostId, names: SyncNames) -> bool:
    """Every quorum of voters has a holder of whatever is acknowledged by `names`.

    Of those who acknowledge, at most the standbys that are no voters can be out
    of sight; the primary itself holds everything, voter or not. A quorum that is
    larger than the voters without holders has one.
    """
    if not promises(published):
        return True
    voters = set(published.voters)
    out_of_sight = len(set(names.standbys) - voters)
    holders = max(0, names.needed - out_of_sight) + (primary in voters)
    return published.quorum > len(voters) - holders


def asks_more(former: SyncSet, later: SyncSet) -> bool:
    """Every quorum of `later` contains one of `former`, so it keeps all that `former` promised."""
    if not promises(later):
        return True
    added = set(later.voters) - set(former.voters)
    return (
        promises(former)
        and set(former.voters) <= set(later.voters)
        and later.quorum >= former.quorum + len(added)
    )


def have_flushed(names: SyncNames, flushed: Mapping[HostId, Lsn], lsn: Lsn) -> bool:
    """As many of the standbys as an acknowledgement needs have flushed `lsn`."""
    return sum(flushed.get(host, NO_LSN) >= lsn for host in names.standbys) >= names.needed


def why_closed(in_force: InForce, published: SyncSet, flushed: Mapping[HostId, Lsn], begun_at: Lsn) -> str:
    """Why a primary may not let clients in yet; empty: it may.

    `begun_at` is the end of its recovery, or where it was promoted: up to there
    commits are visible that no standby may have, and a reader must not see what
    the next failover takes back. 0 where that loss was accepted.
    """
    if not in_force.is_certain:
        return "its synchronous standbys are being set"
    if not covers(published, in_force.primary, in_force.names):
        return "a promotion would not ask those who acknowledge for it"
    if not have_flushed(in_force.names, flushed, begun_at):
        names = ", ".join(in_force.names.standbys)
        return f"{in_force.names.needed} of {names} must have its WAL up to {format_lsn(begun_at)} first"
    return ""


# ---- where to begin -------------------------------------------------------------


def first_names(published: SyncSet, primary: HostId, needed: int, data_hosts: Iterable[HostId]) -> SyncNames:
    """What must be in the configuration before `primary` is promoted, made or started.

    As many hosts as the published set allows; if need be more acknowledgements
    than wanted, until `next_step` has published a set of its own. With nobody to
    name it names the primary itself, which waits for ever rather than for nobody.
    """
    if needed == 0 and not promises(published):
        return SyncNames(0, ())
    voters = set(published.voters) - {primary}
    everybody = tuple(sorted({*data_hosts, *voters} - {primary}))
    for standbys in (everybody, tuple(sorted(voters))):
        names = SyncNames(max(needed, 1), standbys)
        if standbys and covers(published, primary, names):
            return names
    standbys = tuple(sorted(voters)) or everybody or (primary,)
    return SyncNames(max(needed, len(voters), 1), standbys)


@dataclass(frozen=True, slots=True)
class StandbyView:
    """One authenticated standby as the primary sees it."""

    host: HostId
    is_streaming: bool
    flushed: Lsn


def fit_standbys(
    names: SyncNames,
    standbys: Iterable[StandbyView],
    flushed_here: Lsn,
    lag_bytes_max: int,
    data_hosts: Iterable[HostId],
) -> tuple[HostId, ...]:
    """The standbys to want: data hosts that stream; a new one only when it has nearly caught up."""
    allowed = set(data_hosts)
    return tuple(
        sorted(
            view.host
            for view in standbys
            if view.host in allowed
            and view.is_streaming
            and (view.host in names.standbys or flushed_here - view.flushed <= lag_bytes_max)
        )
    )


# ---- the next step --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetSyncNames:
    """Put `names` in force and wait until every process of the primary acts by them."""

    names: SyncNames
    reason: str


@dataclass(frozen=True, slots=True)
class ReadBarrier:
    """Read the primary's flushed position now, as the barrier of what is in force."""

    reason: str


@dataclass(frozen=True, slots=True)
class WaitFlushed:
    """Wait until enough standbys have flushed `lsn`."""

    lsn: Lsn
    reason: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Propose the set; applied only if the version is still `expected_version`.

    Also when voters and quorum are what they were: the version must rise.
    """

    voters: tuple[HostId, ...]
    quorum: int
    expected_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """All is as wanted, or nothing can be done about it now."""

    reason: str


Step: TypeAlias = SetSyncNames | ReadBarrier | WaitFlushed | Publish | Nothing


def next_step(
    in_force: InForce,
    published: SyncSet,
    wanted: Iterable[HostId],
    needed: int,
    *,
    flushed: Mapping[HostId, Lsn],
    is_settled: bool,
) -> Step:
    """One step towards `needed` acknowledgements from the `wanted` standbys.

    Safe to follow from any state, and to forget after any step. `wanted` may
    change at any time. With fewer wanted than needed the last ones stay, and
    writes wait for them.
    """
    if not in_force.is_certain:
        return SetSyncNames(in_force.names, "it was changed, and some processes may not know yet")
    target, shortage = _target(in_force, wanted, needed)
    if target == in_force.names and covers(published, in_force.primary, target):
        return _publish_target(in_force, published, flushed, shortage)
    if not covers(published, in_force.primary, target):
        if covers(published, in_force.primary, in_force.names):
            return _publish_more(in_force.primary, published, target)
        target = first_names(published, in_force.primary, needed, target.standbys)
    if not is_settled:
        return Publish(
            published.voters,
            published.quorum,
            published.version,
            "an earlier publication may be under way: raise the version first",
        )
    return SetSyncNames(target, "what is published covers these standbys")


def _target(in_force: InForce, wanted: Iterable[HostId], needed: int) -> tuple[SyncNames, str]:
    """The names to end with, and why these are not the wanted ones."""
    if needed == 0:
        return SyncNames(0, ()), ""
    fit = tuple(sorted(set(wanted) - {in_force.primary}))
    if len(fit) >= needed:
        return SyncNames(needed, fit), ""
    shortage = f"{len(fit)} of {needed} needed standbys are fit: the last ones stay, writes wait for them"
    last = in_force.names
    return (SyncNames(needed, last.standbys) if len(last.standbys) >= needed else last), shortage


def _publish_target(
    in_force: InForce, published: SyncSet, flushed: Mapping[HostId, Lsn], shortage: str
) -> Step:
    final = _resting_on(in_force, published.version)
    if final == published:
        return Nothing(shortage or "in force and published agree")
    if not asks_more(published, final):
        if in_force.barrier is None:
            return ReadBarrier("commits acknowledged before must be there too")
        if not have_flushed(in_force.names, flushed, in_force.barrier):
            return WaitFlushed(in_force.barrier, "commits acknowledged before must be there too")
    return Publish(final.voters, final.quorum, published.version, "it rests on what is in force")


def _resting_on(in_force: InForce, version: int) -> SyncSet:
    """The smallest quorum of the standbys in force; nothing where it could not be met."""
    names = in_force.names
    voters = tuple(host for host in names.standbys if host != in_force.primary)
    quorum = len(voters) - names.needed + 1
    if names.needed == 0 or quorum < 1:
        return SyncSet(version)
    return SyncSet(version, voters, quorum)


def _publish_more(primary: HostId, published: SyncSet, target: SyncNames) -> Publish:
    """A set that covers what is in force and the target, and keeps what was promised."""
    if target.needed == 0:
        return Publish((), 0, published.version, "no standby will be needed: nobody may be promoted")
    voters = {*published.voters, *target.standbys} - ({primary} - set(published.voters))
    kept = published.quorum + len(voters) - len(published.voters)
    covering = len(voters) - target.needed - (primary in voters) + 1
    return Publish(
        tuple(sorted(voters)), max(kept, covering), published.version, "ask more before more may acknowledge"
    )
