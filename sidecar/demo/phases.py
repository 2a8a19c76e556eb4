"""When each step of a failover happened, from what was seen on the surviving hosts.

Pure: `note` takes one observation after the other; nothing here looks at a clock.
"""

from dataclasses import dataclass, field
from typing import Final

from mesh.ids import PRIMARY

MS: Final = 10**6


@dataclass(frozen=True, slots=True)
class Sight:
    """What one host said about the cluster at one moment."""

    at_ns: int
    host: str
    role: str
    term: int
    leader: str
    #: What is left of the host's own lease; 0 when it has none.
    lease_ms: float
    #: Log index applied there.
    applied_index: int
    #: Hosts that vote.
    voters: frozenset[str]
    #: Owned name → (owner, fencing term).
    owners: dict[str, tuple[str, int]]
    #: Service → hosts with a ready instance.
    ready: dict[str, frozenset[str]]


#: The steps in their usual order, with what people read about them.
STEPS: Final = {
    "leader_noticed_dead": "a survivor stands for election",
    "leader_elected": "new leader",
    "vip_owned": "virtual IP given to it (committed)",
    "vip_listening": "virtual IP accepts connections again",
    "answered": "northbound calls are answered again",
    "reporter_owned": "reporter given to another host (committed)",
    "reporter_running": "reporter runs there",
    "database_owned": "database given to another host (committed)",
    "deployed": "deployments are acknowledged again",
}


@dataclass(slots=True)
class Failover:
    """One failover, from the kill of the old leader."""

    killed_ns: int
    old_leader: str
    old_term: int
    #: Fencing terms before the kill.
    old_terms: dict[str, int]
    new_leader: str = ""
    #: Step → when it was first seen.
    seen_ns: dict[str, int] = field(default_factory=dict)

    def note(self, sight: Sight) -> list[str]:
        """Take in an observation; return the steps that it shows for the first time."""
        reached = [step for step in self._shown_by(sight) if step not in self.seen_ns]
        for step in reached:
            self.seen_ns[step] = sight.at_ns
        return reached

    def note_step(self, step: str, at_ns: int) -> None:
        """Take in a step that was seen in another way."""
        self.seen_ns.setdefault(step, at_ns)

    def _shown_by(self, sight: Sight) -> list[str]:
        steps = []
        if sight.leader != self.old_leader or sight.term > self.old_term:
            steps.append("leader_noticed_dead")
        # A follower that knows the new leader is as good a witness as the leader itself.
        if sight.leader not in ("", self.old_leader) and sight.term > self.old_term:
            self.new_leader = self.new_leader or sight.leader
            steps.append("leader_elected")
        if self._moved(sight, "vip"):
            steps.append("vip_owned")
        if self._moved(sight, "service/reporter"):
            steps.append("reporter_owned")
            owner = sight.owners["service/reporter"][0]
            if owner in sight.ready.get("reporter", frozenset()):
                steps.append("reporter_running")
        if self._moved(sight, PRIMARY):
            steps.append("database_owned")
        return steps

    def _moved(self, sight: Sight, name: str) -> bool:
        owner, fencing_term = sight.owners.get(name, ("", 0))
        return owner not in ("", self.old_leader) and fencing_term > self.old_terms.get(name, 0)

    def is_complete(self, wanted: tuple[str, ...] = tuple(STEPS)) -> bool:
        """Every wanted step was seen."""
        return all(step in self.seen_ns for step in wanted)

    def step_ms(self, step: str) -> float | None:
        """Milliseconds from the kill to the step; `None` when it was not seen."""
        at_ns = self.seen_ns.get(step)
        return None if at_ns is None else round((at_ns - self.killed_ns) / MS, 1)
