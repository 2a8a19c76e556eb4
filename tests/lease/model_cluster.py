"""A small cluster in simulated real time, run by the real lease and ownership decisions.

Consensus is a deliberately plain model that keeps the promises A to E of
`mesh.lease.grantor`: whole logs travel with heartbeats, there is no pre-vote.
What is true is known here and nowhere else: `Host.acting` says for what a host
*really* acts, and `Cluster.begin_acting` checks that nobody else does.
"""

from collections.abc import Callable
from functools import partial

from mesh.ids import VIP, FencingTerm, HostId, Index, OwnedName, Term
from mesh.lease import hosts as verdicts
from mesh.lease.acting import may_act
from mesh.lease.model import (
    Assign,
    BeatAnswer,
    ElectedBy,
    Election,
    HostView,
    OwnershipSituation,
    RequestRelease,
    Unassign,
    Verdict,
)
from mesh.lease.ownership import decide_ownerships
from mesh.lease.timers import LeaseTimers
from tests.lease.model_host import (
    ELECTION_MAX,
    ELECTION_MIN,
    MARGIN,
    MS,
    REPORTER,
    Host,
    Record,
    Rules,
    TwoActedError,
)
from tests.lease.model_time import SimulatedTime


class Cluster(SimulatedTime):
    """All hosts, what they do, and what is really so."""

    def __init__(self, seed: int, rules: Rules, size: int = 3) -> None:
        super().__init__(seed)
        self.rules = rules
        self.timers = LeaseTimers()
        #: How often a host began to act for something.
        self.moves = 0
        error = self.timers.clock_rate_error_ppm / 1e6
        self.hosts: dict[HostId, Host] = {}
        for number in range(1, size + 1):
            rate = self.random.choice((1.0, 1.0 + error, 1.0 + error * self.random.random()))
            host_id = HostId(f"h{number}")
            offset = self.random.randrange(10**12)
            self.hosts[host_id] = Host(host_id, rate, offset, rules.make_lease(Term(0)))
        for host in self.hosts.values():
            self.start(host)

    # ---- faults -----------------------------------------------------------------

    def start(self, host: Host) -> None:
        host.up, host.frozen = True, False
        host.process += 1
        host.lease = self.rules.make_lease(host.term)
        host.leader, host.is_leader, host.table, host.sequence = None, False, None, 0
        host.heard, host.led, host.inbox, host.proofs = {}, {}, [], {}
        host.commit = self.random.randint(0, host.commit)
        host.state, host.applied = {}, 0
        host.apply_committed()
        host.loyal_from = self.local(host)
        self._await_election(host)
        self.each(host, 100 * MS, self._beat)
        self.each(host, 50 * MS, self._campaign_when_due)
        self.each(host, 10 * MS, self._act)

    def crash(self, host: Host) -> None:
        host.up = False
        host.process += 1
        for name in list(host.acting):
            self.stop(host, name, self.random.choice((0, self.timers.crash_release_ns - MS)))
        for other in self.hosts.values():
            if other is not host and self.random.random() < 0.7:
                self.deliver(host, other, partial(self._proven_dead, other, host))
        self.after(self.random.randrange(200 * MS, 4_000 * MS), lambda: self.start(host))

    def thaw(self, host: Host) -> None:
        if host.up and host.frozen:
            host.frozen = False
            waiting, host.inbox = host.inbox, []
            for act in waiting:
                act()

    def _proven_dead(self, host: Host, dead: Host) -> None:
        if dead.up:
            return
        now = self.local(host)
        host.proofs[dead.id] = now
        host.heard.pop(dead.id, None)
        if host.table is not None:
            host.table.crash_proven(dead.id, now)
        if host.is_leader:
            host.standings[dead.id] = verdicts.crashed(host.standings[dead.id], now)
        elif host.leader == dead.id:
            self.campaign(host, ElectedBy.CRASH_PROOF)

    # ---- consensus, plainly -----------------------------------------------------

    def _await_election(self, host: Host) -> None:
        host.campaign_at = self.local(host) + self.random.randrange(ELECTION_MIN, ELECTION_MAX)

    def _campaign_when_due(self, host: Host) -> None:
        if host.is_leader:
            if self._confirmed_at(host) < self.local(host) - self.rules.steps_down_ns:
                self._step_down(host, host.term)
        elif self.local(host) >= host.campaign_at:
            self.campaign(host, ElectedBy.TIMEOUT)

    def campaign(self, host: Host, by: ElectedBy) -> None:
        self._adopt(host, Term(host.term + 1))
        host.vote, host.votes, host.standing_by = host.id, {host.id}, by
        self._await_election(host)
        term, last = host.term, host.last
        for other in self.hosts.values():
            if other is not host:
                self.deliver(host, other, partial(self._vote, other, host, term, last, by))

    def _vote(self, voter: Host, candidate: Host, term: Term, last: tuple[Term, int], by: ElectedBy) -> None:
        transfer = by is ElectedBy.TRANSFER
        loyal = max([voter.loyal_from, *voter.heard.values()]) + self.rules.loyal_ns > self.local(voter)
        leads = voter.is_leader and self._confirmed_at(voter) + self.rules.loyal_ns > self.local(voter)
        if term < voter.term or (not transfer and (loyal or leads)):
            return
        self._adopt(voter, term)
        if voter.vote not in (None, candidate.id) or last < voter.last:
            return
        voter.vote = candidate.id
        self._await_election(voter)
        if transfer:
            voter.loyal_from = self.local(voter)
        self.deliver(voter, candidate, lambda: self._voted(candidate, voter.id, term))

    def _voted(self, host: Host, voter: HostId, term: Term) -> None:
        if host.term != term or host.is_leader or host.vote != host.id:
            return
        host.votes.add(voter)
        if 2 * len(host.votes) <= len(self.hosts):
            return
        now = self.local(host)
        host.is_leader, host.leader = True, host.id
        predecessor = host.led.get(host.last[0])
        heard_at = 0 if predecessor is None else host.heard.get(predecessor, 0)
        if predecessor is not None and predecessor not in host.heard:  # it was proven dead
            heard_at = host.proofs.get(predecessor, 0)
        host.election = Election(now, self.rules.elected_by(host.standing_by), predecessor, heard_at)
        host.table = None
        host.log.append(Record(term))
        host.rounds, host.round, host.processes = {}, 0, {}
        host.confirmed = dict.fromkeys(self.hosts, 0)
        host.matched = dict.fromkeys(self.hosts, 0)
        host.standings = {other: verdicts.opened(other, now) for other in self.hosts}
        process = host.process

        def lead(every: int, act: Callable[[Host], None]) -> None:
            def turn() -> None:
                if host.is_leader and host.term == term and host.process == process:
                    if not host.frozen:
                        act(host)
                    self.after(every, turn)

            turn()

        lead(50 * MS, self._replicate)
        lead(25 * MS, self._decide)

    def _adopt(self, host: Host, term: Term) -> None:
        if term > host.term:
            self._step_down(host, term)
            host.vote = None
            host.lease.term_seen(term)

    def _step_down(self, host: Host, term: Term) -> None:
        if host.is_leader and self.rules.loyal_to_itself:
            host.loyal_from = self.local(host)
        host.term, host.is_leader, host.table, host.leader = term, False, None, None
        self._await_election(host)

    def _replicate(self, host: Host) -> None:
        host.round += 1
        host.rounds[host.round] = self.local(host)
        host.confirmed[host.id], host.matched[host.id] = host.round, len(host.log)
        term, log, commit, number = host.term, list(host.log), host.commit, host.round
        for other in self.hosts.values():
            if other is not host:
                self.deliver(
                    host,
                    other,
                    partial(self._append, other, host, term, log, commit, number),
                )

    def _append(
        self, host: Host, leader: Host, term: Term, log: list[Record], commit: int, number: int
    ) -> None:
        if term < host.term:
            now_term = host.term
            self.deliver(host, leader, lambda: self._adopt(leader, now_term))
            return
        self._adopt(host, term)
        host.leader = host.led[term] = leader.id
        host.heard[leader.id] = self.local(host)
        self._await_election(host)
        if (host.last[0] != term or len(host.log) < len(log)) and len(log) >= host.commit:
            host.log = list(log)
        if host.last[0] == term:
            host.commit = max(host.commit, min(commit, len(host.log)))
        host.apply_committed()
        matched = len(host.log) if host.last[0] == term else 0
        self.deliver(host, leader, lambda: self._appended(leader, host.id, term, number, matched))

    def _appended(self, host: Host, follower: HostId, term: Term, number: int, matched: int) -> None:
        if host.term != term or not host.is_leader:
            return
        host.confirmed[follower] = max(host.confirmed[follower], number)
        host.matched[follower] = max(host.matched[follower], matched)
        agreed = sorted(host.matched.values(), reverse=True)[len(self.hosts) // 2]
        if agreed > host.commit and host.log[agreed - 1].term == term:
            host.commit = agreed
            host.apply_committed()
            self._applied(host)
        if host.table is not None:
            host.lease.leadership_confirmed(self._confirmed_at(host), self.timers.lease_ns, term)

    def _confirmed_at(self, host: Host) -> int:
        assert host.election is not None
        number = sorted(host.confirmed.values(), reverse=True)[len(self.hosts) // 2]
        return host.rounds.get(number, host.election.at)

    # ---- leases and ownerships: the real decisions ------------------------------

    def _applied(self, host: Host) -> None:
        if host.table is None:
            assert host.election is not None
            host.table = self.rules.make_table(host.id, host.election, self.timers)
            for dead, at in host.proofs.items():
                host.table.crash_proven(dead, at)
        host.table.state_applied(host.state.values(), Index(host.applied))

    def _beat(self, host: Host) -> None:
        leader = None if host.leader is None else self.hosts[host.leader]
        if leader is None:
            return
        host.sequence += 1
        sequence, process, applied = host.sequence, host.process, Index(host.applied)
        host.lease.beat_sent(sequence, self.local(host))
        given_up = [
            (view.name, view.fencing_term)
            for view in host.state.values()
            if view.holder == host.id
            and view.successor not in (None, host.id)
            and view.name not in host.acting
        ]
        self.deliver(host, leader, lambda: self._beaten(leader, host, process, sequence, applied, given_up))

    def _beaten(
        self,
        leader: Host,
        host: Host,
        process: int,
        sequence: int,
        applied: Index,
        given_up: list[tuple[OwnedName, FencingTerm]],
    ) -> None:
        table, now = leader.table, self.local(leader)
        if table is None or process < leader.processes.get(host.id, 0):
            return
        if leader.processes.get(host.id) != process:
            leader.processes[host.id] = process
            table.process_started(host.id)
        leader.standings[host.id] = verdicts.heard(leader.standings[host.id], now, self.timers)
        for name, fencing_term in given_up:
            table.released(host.id, name, fencing_term)
        granted = table.grant(
            host.id, now, quorum_confirmed_at=self._confirmed_at(leader), applied_index=applied
        )
        answer = BeatAnswer(sequence, granted, self.timers.lease_ns, leader.term)
        if host is not leader:
            self.deliver(leader, host, lambda: self._answered(host, answer, process))

    def _answered(self, host: Host, answer: BeatAnswer, process: int) -> None:
        if host.process == process:
            host.lease.answered(answer)

    def _decide(self, host: Host) -> None:
        table, now = host.table, self.local(host)
        if table is None or host.commit < len(host.log):
            return
        standings, _ = verdicts.decide_hosts(list(host.standings.values()), now, self.timers)
        host.standings = {standing.host: standing for standing in standings}
        host.standings[host.id] = verdicts.opened(host.id, now)
        views = tuple(
            HostView(
                standing.host,
                alive=standing.verdict is not Verdict.LOST,
                draining=self.hosts[standing.host].draining,
            )
            for standing in host.standings.values()
        )
        situation = OwnershipSituation(host.id, views, (VIP, REPORTER), tuple(host.state.values()))
        for decision in decide_ownerships(situation, table, now):
            if isinstance(decision, Assign):
                present = host.state.get(decision.name)
                if present is not None:
                    table.reserve(present, decision.holder, now)
            if isinstance(decision, Assign | RequestRelease | Unassign):
                host.log.append(Record(host.term, decision))
        if host.commit < len(host.log):
            self._replicate(host)

    # ---- acting, and the truth about it -----------------------------------------

    def _act(self, host: Host) -> None:
        now = self.local(host)
        if host.lease.until_ns > host.deadline:
            host.deadline = host.lease.until_ns
            self.after(self.real_delay(host, host.deadline), lambda: self._fence(host))
        for name, view in list(host.state.items()):
            allowed = may_act(
                host.id, name, view.fencing_term, host.state.values(), host.lease, now=now, margin=MARGIN
            )
            if allowed and name not in host.stopping:
                self.begin_acting(host, name, view.fencing_term)
            elif not allowed and name in host.acting and name not in host.stopping:
                self.stop(host, name, self.random.choice((0, 20 * MS)))

    def _fence(self, host: Host) -> None:
        """The fence process: runs whatever the sidecar does."""
        if self.local(host) >= host.deadline:
            for name in list(host.acting):
                slowest = self.timers.release_bound_ns - 20 * MS
                self.stop(host, name, self.random.choice((0, slowest)))

    def stop(self, host: Host, name: OwnedName, delay: int) -> None:
        end = self.now + delay
        if host.stopping.get(name, end) < end:
            return
        host.stopping[name] = end

        def stopped() -> None:
            if host.stopping.get(name) == end:
                del host.stopping[name]
                host.acting.pop(name, None)

        self.after(delay, stopped)

    def begin_acting(self, host: Host, name: OwnedName, fencing_term: FencingTerm) -> None:
        if host.acting.get(name) == fencing_term:
            return
        for other in self.hosts.values():
            if other is not host and name in other.acting:
                raise TwoActedError(
                    f"at {self.now / 1e9:.3f} s {host.id} begins to act for {name} as owner {fencing_term}"
                    f" while {other.id} still acts as owner {other.acting[name]}"
                )
        if name not in host.acting:
            self.moves += 1
        host.acting[name] = fencing_term
