"""A campaign: round after round of faults under load, drawn from a seed, and what was wrong.

A round injects a fault, lets it last, heals it, and waits until the cluster is whole again: everybody
votes, is alive, has its lease and has applied the same, all services are ready, all standbys of its database
stream. Meanwhile clients read and write, others insert rows, an owner acts on a resource that verifies
fencing terms, and somebody looks who holds the virtual IP.

Invariant: the same seed and kinds give the same faults in the same order with the same durations;
when exactly they strike is up to the machine.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
import psycopg
from trellis.config_sync.v1.config_sync_pb2 import PutDocumentRequest

from tests.chaos.fault import Fault
from tests.chaos.kinds import COMPANIONS
from tests.chaos.record import Records
from tests.chaos.stage import Stage
from tests.chaos.verdict import Judge, longest_gap_s, owners_of
from tests.harness.database_cluster import DatabaseCluster
from tests.harness.inserts import Inserts
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

#: Generous: the machine may be busy with other things.
WHOLE_S = 90.0
LOADED_S = 30.0
#: From row to row of one client.
INSERT_S = 0.1
#: The kind of a round with two faults.
TWO = "two at once"


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    round: int
    fault: str
    text: str


@dataclass(slots=True)
class Round:
    """What was done, and what it cost."""

    number: int
    fault: str
    kind: str
    begin_ns: int
    end_ns: int = 0


@dataclass(slots=True)
class Report:
    """What came of a campaign."""

    seed: int
    rounds: list[Round] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    histories: int = 0
    longest_unavailable_s: float = 0.0
    unavailable_s: dict[str, float] = field(default_factory=dict)
    acts: int = 0
    #: Acknowledged by the database.
    rows: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """The line that ends a campaign."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "rounds": len(self.rounds),
            "faults": dict(sorted(self.faults.items())),
            "operations": dict(sorted(self.outcomes.items())),
            "histories": self.histories,
            "acts_of_owners": self.acts,
            "rows": self.rows,
            "violations": [
                {"round": each.round, "fault": each.fault, "text": each.text} for each in self.violations
            ],
            "longest_unavailability_s": round(self.longest_unavailable_s, 2),
            "unavailability_s": {kind: round(gap, 2) for kind, gap in sorted(self.unavailable_s.items())},
            "skipped": self.skipped,
        }


class Campaign:
    """Runs rounds on a stage, under load from `with` to the end of its body; then `report` is complete."""

    def __init__(
        self, stage: Stage, seed: int, *, is_short: bool = False, pause_s: float = 0.06, pairs: float = 0.0
    ) -> None:
        self.stage = stage
        self.report = Report(seed)
        self._is_short = is_short
        self._pause_s = pause_s
        self._pairs = pairs
        self._chance = random.Random(seed)
        self._round = 0
        self._now = "before the first fault"
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with ExitStack() as opened:
            self._judge = opened.enter_context(self._clients())
            if self.stage.database is not None:
                opened.enter_context(inserting(self.stage, self.stage.database))
            self._sight = opened.enter_context(seen(self.stage))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._now = "the end"
        try:
            if kind is None:
                self._try("the cluster is whole at the end", lambda: self.stage.cluster.wait_whole(WHOLE_S))
                self._try("an owner acts at the end", self._wait_acting)
                self._judge_rows("at the end")
        finally:
            self._opened.close()
        if kind is None:
            self._try("all hosts have the same state at the end", self._check_same_state)
            self._judge_rest()
            self.report.seconds = time.monotonic() - self._began

    def run(self, kinds: Sequence[type[Fault]], is_over: Callable[[int], bool]) -> None:
        """Every kind once, in a drawn order, then again, until *is_over*, told how many rounds there were."""
        while True:
            for kind in self._chance.sample(kinds, len(kinds)):
                if is_over(self._round):
                    return
                self.one_round(kind)

    def one_round(self, kind: type[Fault]) -> list[Violation]:
        """A fault of this kind comes and goes; what was wrong meanwhile, as far as is known already."""
        before = len(self.report.violations)
        self._round += 1
        # Drawn always, so that what follows does not depend on how things went.
        aims_at_leader, pick = self._chance.random() < 0.5, self._chance.randrange(2)
        seconds = kind.lasts_s[0] if self._is_short else self._chance.uniform(*kind.lasts_s)
        chance = random.Random(self._chance.randrange(1 << 62))
        is_pair = self._chance.random() < self._pairs and not kind.needs_others
        companion = self._chance.choice(COMPANIONS)
        leader = self.stage.cluster.leader() or self.stage.cluster.hosts[0]
        target = leader if aims_at_leader else self.stage.others(leader)[pick]
        fault = kind(self.stage, target, chance)
        role = "leader" if fault.target is leader else "follower"
        if fault.needs_database and fault.target is self.stage.primary():
            role = "primary"
        faults = [fault]
        if is_pair and companion is not kind and not companion.why_not():
            faults.append(companion(self.stage, chance.choice(self.stage.others(fault.target)), chance))
        self._now = f"{' and '.join(map(str, faults))} ({role}), {seconds:.1f} s"
        row = Round(self._round, self._now, TWO if len(faults) > 1 else kind.kind, time.monotonic_ns())
        self.report.faults.update(each.kind for each in faults)
        self._say(f"round {self._round:3}: {self._now}")
        self._apply(faults, seconds)
        self._try("the cluster is whole again", lambda: self.stage.cluster.wait_whole(WHOLE_S))
        self._try("clients write again", self._wait_written)
        self._judge_rows("again")
        row.end_ns = time.monotonic_ns()
        self.report.rounds.append(row)
        found = [*self._judge.judge_until(row.end_ns), *owners_of(self.stage.cluster.resource)]
        for text in [*found, *self.stage.complaints()]:
            self._violated(text)
        took = (row.end_ns - row.begin_ns) / 1e9
        self._say(
            f"           whole after {took:.1f} s; {self._judge.judged} histories judged,"
            f" {len(self.report.violations)} violations"
        )
        return self.report.violations[before:]

    def _apply(self, faults: Sequence[Fault], seconds: float) -> None:
        """The first takes its course; others are there meanwhile."""
        with ExitStack() as healing:
            healing.callback(self._start_ended)
            for fault in faults:
                healing.callback(self._try, f"{fault} can be healed", fault.heal)
                if not self._try(f"{fault} can be injected", fault.inject):
                    return
            self._try(f"{faults[0]} takes its course", lambda: faults[0].hold(seconds))
            # Before anything is healed: what is started then would not be seen to have ended.
            self._check_ended(faults)

    def _check_ended(self, faults: Sequence[Fault]) -> None:
        for host in self.stage.ended():
            if not any(fault.may_end(host) for fault in faults):
                self._violated(f"{host.name}'s sidecar ended by itself: {host.log()[-3:]}")

    def _start_ended(self) -> None:
        for host in self.stage.ended():
            self.stage.start(host)

    # ---- judging --------------------------------------------------------------------

    def _judge_rest(self) -> None:
        judge = self._judge
        found = judge.judge_until(time.monotonic_ns(), at_end=True)
        found += owners_of(self.stage.cluster.resource) + self.stage.complaints()
        found += [
            f"the virtual IP had two holders: {held}" for _, held in self._sight.changes if len(held) > 1
        ]
        for text in found:
            self._violated(text)
        report = self.report
        report.outcomes, report.histories = judge.outcomes, judge.judged
        report.acts = len(self.stage.cluster.resource.acts())
        for each in report.rounds:
            gap = longest_gap_s(judge.answered, each.begin_ns, each.end_ns)
            report.unavailable_s[each.kind] = max(gap, report.unavailable_s.get(each.kind, 0.0))
        if judge.answered:
            whole = (min(judge.answered), max(judge.answered))
            report.longest_unavailable_s = longest_gap_s(judge.answered, *whole)

    def _judge_rows(self, when: str) -> None:
        """The database is whole, every client inserts, and what was acknowledged so far is there."""
        stage = self.stage
        if stage.database is None or stage.inserts is None:
            return
        database, inserts = stage.database, stage.inserts
        self._try(f"the database is whole {when}", lambda: database.wait_whole(WHOLE_S))
        self._try(f"rows are acknowledged {when}", lambda: inserts.wait_progress(within_s=LOADED_S))
        self._try("what the database acknowledged is kept", inserts.check)
        self.report.rows = len(inserts.acks())

    def _wait_written(self) -> None:
        now = time.monotonic_ns()
        wait_for(lambda: self._judge.has_written_since(now), "a write is acknowledged", LOADED_S)

    def _wait_acting(self) -> None:
        now = time.monotonic_ns()
        wait_for(lambda: self.stage.cluster.resource.acted_since(now), "an owner acts", LOADED_S)

    def _check_same_state(self) -> None:
        """A few writes bring every host, restarted or not, to the next index at which states are hashed."""
        leader = self.stage.cluster.wait_leader(within_s=LOADED_S)

        def is_hashed_alike() -> bool:
            leader.documents.PutDocument(PutDocumentRequest(name="chaos/last"), timeout=LOADED_S)
            seen = [host.status() for host in self.stage.cluster.hosts]
            indexes = {status.state_hash_index if status else 0 for status in seen}
            return len(indexes) == 1 and 0 not in indexes

        wait_for(is_hashed_alike, "all hosts have hashed their state at one index", WHOLE_S)
        self.stage.cluster.check_same_state()

    def _try(self, what: str, act: Callable[[], object]) -> bool:
        """Whether it went well; what did not is a violation, and the campaign goes on."""
        try:
            act()
        except (AssertionError, OSError, grpc.RpcError, psycopg.Error) as error:
            self._violated(f"not so: {what}: {error}")
            return False
        return True

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _violated(self, text: str) -> None:
        self.report.violations.append(Violation(self._round, self._now, text))
        self._say(f"VIOLATION in round {self._round} ({self._now}): {text}")

    # ---- load -----------------------------------------------------------------------

    @contextmanager
    def _clients(self) -> Iterator[Judge]:
        """The judge of what clients are told; they run until the end of the body."""
        stage, network = self.stage, self.stage.network
        plans = stage.plans(str(self.report.seed), self._pause_s)
        running = []
        records = Records([stage.cluster.directory / f"{plan.tag}.jsonl" for plan in plans])
        for plan in plans:
            path = stage.cluster.directory / f"{plan.tag}.plan.json"
            plan.write(path)
            inside = network.client if plan.tls else ()
            words = [*inside, sys.executable, "-m", "tests.chaos.clients", str(path)]
            running.append(stage.program(words, f"clients-{plan.tag}"))
        judge = Judge(records, plans[0].prefix)

        def all_ask() -> bool:
            records.follow()
            return len({each.client for each in records.operations.values()}) >= 2 * len(plans[0].doors)

        wait_for(all_ask, "every client has asked for something", LOADED_S)
        try:
            yield judge
        finally:
            for pid in running:
                stage.end(pid)


@contextmanager
def inserting(stage: Stage, database: DatabaseCluster) -> Iterator[None]:
    """Clients that insert by the listeners of all hosts: one whose commits wait for standbys, one not."""
    hosts = database.hosts
    with Inserts(database, *hosts, local=hosts, period_s=INSERT_S) as stage.inserts:
        yield
    stage.inserts = None


@contextmanager
def seen(stage: Stage) -> Iterator[Sight]:
    """Somebody who looks who holds the virtual IP; whoever asked judges what was seen."""
    sight = Sight(stage.cluster)
    sight.start()
    try:
        yield sight
    finally:
        sight.stop()
