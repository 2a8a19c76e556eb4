"""A primary, its standbys and the replicated state, played by a naive twin.

The twin keeps every acknowledged commit with those who hold it, and acknowledges
whatever may be acknowledged as soon as it may: by every configuration that some
process of the primary may still act by. After each move it asks all quorums.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from mesh.ids import HostId
from sidecar.postgres.model import InForce, Lsn, SyncSet
from sidecar.postgres.sync_set import (
    Nothing,
    Publish,
    ReadBarrier,
    SetSyncNames,
    Step,
    covers,
    first_names,
    next_step,
)

Planner = Callable[..., Step]
#: What happens, and two numbers that say to whom and how much.
Move = tuple[str, int, int]
MOVES = (
    ("plan",) * 6
    + ("answer",) * 4
    + ("write", "flush", "flush", "flush", "want", "want", "need", "lose-answer", "late-publication")
    + ("crash", "refresh", "half-set", "fail-over", "decide", "assign")
)


class Lost(AssertionError):
    """A quorum of voters without a holder of an acknowledged commit."""


class Twin:
    """One database with `standbys` standbys; `planner` is what is tested.

    `is_guarded`: an assignment is refused if the published set is not the one it was decided by.
    """

    def __init__(
        self, standbys: int, needed: int, planner: Planner = next_step, *, is_guarded: bool = True
    ) -> None:
        self.is_guarded = is_guarded
        self.hosts = tuple(HostId(f"h{number}") for number in range(standbys + 1))
        self.needed = needed
        self.planner = planner
        self.written = 0
        self.has: dict[HostId, int] = dict.fromkeys(self.hosts, 0)
        #: Commit → those who hold it; only what was acknowledged.
        self.acknowledged: dict[int, set[HostId]] = {}
        self.past = [SyncSet()]
        self.under_way: list[Publish] = []
        self.wanted: tuple[HostId, ...] = ()
        #: A failover that is decided and not assigned: the version it rests on and who is sealed.
        self.decided: tuple[int, tuple[HostId, ...]] | None = None
        self._begin_primaryship(self.hosts[0])

    def _begin_primaryship(self, primary: HostId) -> None:
        self.primary = primary
        names = first_names(self.published, primary, self.needed, self.hosts)
        assert covers(self.published, primary, names)
        self.may_be_in_force = [names]
        self.believed = InForce(primary, names)
        self.view = self.published
        self.is_settled = True
        self.awaited: Publish | None = None
        self.under_way = []

    @property
    def published(self) -> SyncSet:
        return self.past[-1]

    # ---- moves ------------------------------------------------------------------

    def move(self, move: Move) -> None:
        kind, who, much = move
        host = self.hosts[who % len(self.hosts)]
        match kind:
            case "write":
                self.written += 1 + much % 3
                self.has[self.primary] = self.written
            case "flush" if self.decided is None or host not in self.decided[1]:
                self.has[host] = max(self.has[host], self.written - much % 3)
            case "want":
                self.wanted = tuple(each for number, each in enumerate(self.hosts) if who >> number & 1)
            case "need":
                self.needed = 1 + (who + much) % max(1, (len(self.hosts) - 1))
            case "plan" if self.awaited is None:
                self._perform(self.plan(), finished=True)
            case "half-set" if self.awaited is None:
                self._perform(self.plan(), finished=False)
            case "answer" if self.awaited is not None:
                self._deliver(next(n for n, each in enumerate(self.under_way) if each is self.awaited))
            case "lose-answer" if self.awaited is not None:
                self.awaited, self.is_settled = None, False
            case "late-publication" if self.under_way:
                self._deliver(who % len(self.under_way))
            case "crash":
                self._crash(much)
            case "refresh" if self.awaited is None:
                self.view = self.published
            case "fail-over" if much % 4 == 0:
                self._decide(who)
                self._assign()
            case "decide":
                self._decide(who)
            case "assign":
                self._assign()
            case _:
                pass
        self.check()

    def plan(self) -> Step:
        flushed = {host: Lsn(self.has[host]) for host in self.hosts}
        return self.planner(
            self.believed, self.view, self.wanted, self.needed, flushed=flushed, is_settled=self.is_settled
        )

    def _perform(self, step: Step, *, finished: bool) -> None:
        match step:
            case SetSyncNames(names=names) if finished:
                self.may_be_in_force = [names]
                self.believed = InForce(self.primary, names)
            case SetSyncNames(names=names):
                self.may_be_in_force.append(names)
                self._crash(0)
            case ReadBarrier():
                self.believed = replace(self.believed, barrier=Lsn(self.written))
            case Publish():
                self.under_way.append(step)
                self.awaited = step
            case _:
                pass

    def _deliver(self, number: int) -> None:
        asked = self.under_way.pop(number)
        applied = asked.expected_version == self.published.version
        if applied:
            self.past.append(SyncSet(asked.expected_version + 1, asked.voters, asked.quorum))
        if asked is self.awaited:
            self.awaited, self.is_settled, self.view = None, applied, self.published

    def _crash(self, how_stale: int) -> None:
        """The planner forgets all but what it can read: the file, and an applied state that may lag."""
        certain = len(self.may_be_in_force) == 1
        self.believed = InForce(self.primary, self.may_be_in_force[-1], certain)
        self.view = self.past[max(0, len(self.past) - 1 - how_stale % 3)]
        self.is_settled, self.awaited = False, None

    def _decide(self, which: int) -> None:
        """The leader sees the primary fail; some quorum of the voters is sealed."""
        quorums = self._quorums()
        if quorums and self.decided is None:
            self.decided = self.published.version, quorums[which % len(quorums)]

    def _assign(self) -> None:
        """The furthest of those that are sealed becomes primary, or it was all for nothing."""
        if self.decided is None:
            return
        (version, sealed), self.decided = self.decided, None
        if self.is_guarded and version != self.published.version:
            # The old one goes on, under a new number: what was under way is barred, the sealed follow again.
            self.under_way, self.awaited = [], None
            return
        furthest = max(sealed, key=lambda host: (self.has[host], host))
        self.written = self.has[furthest]
        if max(self.acknowledged, default=0) > self.written:
            raise Lost(f"{furthest} was promoted at {self.written}, more was acknowledged")
        for host in self.hosts:
            self.has[host] = min(self.has[host], self.written)
        for commit in self.acknowledged:
            self.acknowledged[commit] = {host for host in self.hosts if self.has[host] >= commit}
        self._begin_primaryship(furthest)

    # ---- what must hold ---------------------------------------------------------

    def _quorums(self) -> Sequence[tuple[HostId, ...]]:
        voters, quorum = self.published.voters, self.published.quorum
        return list(combinations(voters, quorum)) if quorum >= 1 else []

    def check(self) -> None:
        for names in self.may_be_in_force:
            holding = sorted(
                (self.has[host] for host in names.standbys if host != self.primary), reverse=True
            )
            reached = holding[names.needed - 1] if names.needed <= len(holding) else 0
            for commit in range(max(self.acknowledged, default=0) + 1, reached + 1):
                self.acknowledged[commit] = set()
        for commit, holders in self.acknowledged.items():
            holders.update(host for host in self.hosts if self.has[host] >= commit)
        for quorum in self._quorums():
            for commit, holders in self.acknowledged.items():
                if not holders & set(quorum):
                    raise Lost(f"{quorum} of {self.published} lack {commit}, held by {sorted(holders)}")

    def settle(self) -> Step:
        """Everybody works, nothing is interrupted: the step that says there is nothing to do."""
        self.decided = None
        for _ in range(30):
            if self.awaited is not None:
                self.move(("answer", 0, 0))
            self.view = self.published
            for number in range(len(self.hosts)):
                self.move(("flush", number, 0))
            step = self.plan()
            if isinstance(step, Nothing):
                return step
            self.move(("plan", 0, 0))
        raise AssertionError(f"no end: {self.plan()}")


def play(twin: Twin, moves: Sequence[Move]) -> Twin:
    for move in moves:
        twin.move(move)
    return twin
