"""Goal: never two hosts act for one thing at the same real time. Method: simulation with the
real decisions under clocks of different rates, slow and cut links, crashes, restarts on old
states, frozen sidecars, drains and transfers; and the same with rules broken on purpose."""

from collections.abc import Callable
from random import Random

import pytest

from mesh.ids import FencingTerm, HostId, Index
from mesh.lease.grantor import LeaseTable
from mesh.lease.holder import HostLease
from mesh.lease.model import BeatAnswer, ElectedBy, OwnershipView
from tests.lease.model_cluster import Cluster
from tests.lease.model_host import MS, Host, Rules, TwoActedError

SECOND = 1000 * MS


KINDS = ("crash", "freeze", "cut", "cut", "pair", "one-link", "drain", "transfer", "slow") + 4 * ("heal",)


def fault(cluster: Cluster, random: Random) -> None:
    """One fault, or the end of one, drawn by chance."""
    hosts = list(cluster.hosts.values())
    host = random.choice(hosts)
    leader = next((each for each in hosts if each.is_leader and each.up), None)
    owner = next((each for each in hosts if each.acting and not each.is_leader), None)
    victim = random.choice([each for each in (leader, owner, host) if each is not None])
    kind = random.choice(KINDS)
    if kind == "crash" and victim.up and sum(each.up for each in hosts) == len(hosts):
        cluster.crash(victim)
    elif kind == "freeze" and victim.up:
        victim.frozen = True
        cluster.after(random.randrange(100 * MS, 4 * SECOND), lambda: cluster.thaw(victim))
    elif kind == "cut":
        cluster.cut |= {frozenset((victim.id, other.id)) for other in hosts if other is not victim}
    elif kind == "pair":
        pair = {victim.id, random.choice(hosts).id}
        cluster.cut |= {frozenset((one, other.id)) for one in pair for other in hosts if other.id not in pair}
    elif kind == "one-link":
        cluster.cut.add(frozenset(each.id for each in random.sample(hosts, 2)))
    elif kind == "heal":
        cluster.cut.clear()
    elif kind == "drain":
        victim.draining = not victim.draining
    elif kind == "transfer" and leader is not None and host is not leader:
        transfer(cluster, leader, host)
    elif kind == "slow":
        cluster.slow = not cluster.slow


def transfer(cluster: Cluster, leader: Host, to: Host) -> None:
    term = leader.term

    def timeout_now() -> None:
        if to.term == term:
            cluster.campaign(to, ElectedBy.TRANSFER)

    if len(to.log) == len(leader.log):
        cluster.deliver(leader, to, timeout_now)


def simulate(seed: int, rules: Rules, seconds: int = 60, size: int = 3) -> Cluster:
    cluster = Cluster(seed, rules, size)
    random = Random(seed + 1)

    def disturb() -> None:
        fault(cluster, random)
        cluster.after(random.randrange(100 * MS, 3 * SECOND), disturb)

    cluster.after(5 * SECOND, disturb)
    cluster.run(seconds * SECOND)
    return cluster


@pytest.mark.parametrize(
    ("size", "seeds"),
    [
        (3, range(5)),
        (5, range(2)),
        pytest.param(3, range(5, 100), marks=pytest.mark.integration),
        pytest.param(5, range(2, 50), marks=pytest.mark.integration),
    ],
)
def test_never_two_hosts_act_at_the_same_time(size: int, seeds: range) -> None:
    """Goal: split brain is impossible, not rare.

    Method: seeds; the cluster raises when two act, and must have moved things.
    """
    moves = sum(simulate(seed, Rules(), size=size).moves for seed in seeds)
    assert moves > 3 * len(seeds), "the simulation must move ownerships to prove anything"


def test_without_faults_both_things_find_one_owner_and_keep_it() -> None:
    """Goal: safety is not bought by doing nothing, nor peace by moving things about.

    Method: 30 quiet seconds.
    """
    cluster = Cluster(7, Rules())
    cluster.run(30 * SECOND)
    assert cluster.moves == 2
    leader = next(host for host in cluster.hosts.values() if host.is_leader)
    assert len(leader.acting) == 2


class Early(LeaseTable):
    """Reassigns 0.3 s before the lease has certainly run out."""

    def may_reassign(self, ownership: OwnershipView) -> int:
        return super().may_reassign(ownership) - 300 * MS


class OnSuspicion(LeaseTable):
    """Reassigns at once."""

    def may_reassign(self, ownership: OwnershipView) -> int:
        return 0


class WithoutQuorum(LeaseTable):
    """Grants although nobody has confirmed the leadership for long."""

    def is_confirmed(self, now: int, quorum_confirmed_at: int | None) -> bool:
        return True


class WithoutBarrier(LeaseTable):
    """Grants hosts that have not applied the newest ownerships."""

    def grant(self, host: HostId, now: int, *, quorum_confirmed_at: int | None, applied_index: Index) -> bool:
        return super().grant(host, now, quorum_confirmed_at=quorum_confirmed_at, applied_index=Index(1 << 60))


class BelievesStaleReleases(LeaseTable):
    """Takes any release for one of the present ownership."""

    def released(self, host: HostId, name: object, fencing_term: FencingTerm) -> None:
        for view in self._ownerships or ():
            super().released(view.holder, view.name, view.fencing_term)


class FromReceipt(HostLease):
    """Counts the lease from when the answer came, as if it had taken no time."""

    def answered(self, answer: BeatAnswer) -> bool:
        longer = super().answered(answer)
        if longer:
            self._until += 600 * MS
        return longer


BROKEN: dict[str, Callable[[], Rules]] = {
    "reassigns 0.3 s early": lambda: Rules(make_table=Early),
    "reassigns on suspicion": lambda: Rules(make_table=OnSuspicion),
    "grants without a quorum": lambda: Rules(make_table=WithoutQuorum, steps_down_ns=60 * SECOND),
    "grants hosts with an old state": lambda: Rules(make_table=WithoutBarrier),
    "believes stale releases": lambda: Rules(make_table=BelievesStaleReleases),
    "counts the lease from the answer": lambda: Rules(make_lease=FromReceipt),
    "takes a transfer for an ordinary election": lambda: Rules(elected_by=lambda _: ElectedBy.TIMEOUT),
    "votes while a leader may be alive": lambda: Rules(loyal_ns=0),
    "votes at once after it stepped down": lambda: Rules(loyal_to_itself=False),
}
SLOW_TO_CATCH = ("grants without a quorum",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.integration if name in SLOW_TO_CATCH else ()) for name in BROKEN],
)
def test_the_simulation_catches_rules_that_are_broken(name: str) -> None:
    """Proves that the check above can fail."""
    for seed in range(200):
        try:
            simulate(seed, BROKEN[name](), size=5 if name == "grants without a quorum" else 3)
        except TwoActedError as caught:
            print(f"{name}: seed {seed}: {caught}")
            return
    pytest.fail(f"nothing caught: {name}")
