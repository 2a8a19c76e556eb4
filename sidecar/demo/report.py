"""The end of a demo: what the failover took, in a table for people and an object for programs."""

from dataclasses import asdict, dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.demo.calls import CallLedger
from sidecar.demo.phases import MS, STEPS, Failover


@dataclass(frozen=True, slots=True)
class Deployments:
    """What became of the deployments, which are rows of the database."""

    acknowledged: int
    lost: int
    #: Longest time without an acknowledgement, around the kill.
    longest_wait_ms: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo found."""

    failover: Failover
    ledger: CallLedger
    #: Longest time without an answer around the kill.
    gap: tuple[int, int]
    acknowledged: int
    acknowledged_lost: int
    #: Every step of the failover was seen in time, and calls were answered again.
    took_over: bool
    #: The killed host follows again and runs its instances; milliseconds from its start.
    returned_ms: float | None
    #: None: the demo had no database.
    deployments: Deployments | None = None

    @property
    def recovered(self) -> bool:
        """The cluster is whole again."""
        return self.took_over and self.returned_ms is not None

    @property
    def outage_ms(self) -> float:
        """Longest time without an answered call."""
        return round((self.gap[1] - self.gap[0]) / MS, 1)

    @property
    def exit_code(self) -> int:
        """0 only when nothing acknowledged is lost and the cluster is whole."""
        lost = self.acknowledged_lost + (self.deployments.lost if self.deployments is not None else 0)
        return 0 if self.recovered and lost == 0 else 1


def as_json(outcome: Outcome) -> dict[str, object]:
    """The object that `--json` ends with."""
    failover, ledger = outcome.failover, outcome.ledger
    return {
        "leader_ms": failover.step_ms("leader_elected"),
        "outage_ms": outcome.outage_ms,
        "calls": ledger.calls,
        "failed_calls": ledger.failed,
        "failed_idempotent_calls": ledger.failed_idempotent,
        "acknowledged_lost": outcome.acknowledged_lost,
        "acknowledged": outcome.acknowledged,
        "recovered": outcome.recovered,
        "deployments": None if outcome.deployments is None else asdict(outcome.deployments),
        "old_leader": failover.old_leader,
        "new_leader": failover.new_leader or None,
        "phases_ms": {step: failover.step_ms(step) for step in STEPS},
        "returned_ms": outcome.returned_ms,
        "codes": dict(sorted(ledger.codes.items())),
        "answered_by": dict(sorted(ledger.by_host.items())),
        "latency_ms": {
            "p50": round(ledger.percentile_ms(0.5), 2),
            "p99": round(ledger.percentile_ms(0.99), 2),
        },
    }


def as_view(outcome: Outcome) -> RenderableType:
    """The table and the verdict that people read."""
    failover = outcome.failover
    table = Table(title="The failover, from the kill", title_justify="left", box=None, pad_edge=False)
    table.add_column("after", justify="right")
    table.add_column("what")
    table.add_row("0 ms", f"{failover.old_leader}'s sidecar is killed (SIGKILL)")
    seen = {step: failover.step_ms(step) for step in STEPS}
    # An address that was never seen closed was perhaps closed for less than a look.
    dark = {"vip_listening"} | ({"database_owned", "deployed"} if outcome.deployments is None else set())
    shown_steps = [step for step in STEPS if seen[step] is not None or step not in dark]
    ordered = sorted(shown_steps, key=lambda step: (seen[step] is None, seen[step] or 0.0))
    for step in ordered:
        shown = f"{seen[step]:.0f} ms" if seen[step] is not None else "not seen"
        who = f": {failover.new_leader}" if step == "leader_elected" and failover.new_leader else ""
        table.add_row(shown, STEPS[step] + who)
    return Group(Text(), table, Text(), verdict(outcome))


def verdict(outcome: Outcome) -> Text:
    """What it means, in a few lines."""
    ledger = outcome.ledger
    good = outcome.exit_code == 0
    text = Text()
    text.append(
        "Recovered. " if outcome.recovered else "NOT recovered. ", style="bold green" if good else "bold red"
    )
    text.append(
        f"{ledger.calls} northbound calls at {ledger.percentile_ms(0.5):.1f} ms (median):"
        f" {ledger.failed} failed, of those {ledger.failed_idempotent} that are safe to repeat;"
        f" longest time without an answer {outcome.outage_ms:.0f} ms.\n"
    )
    text.append(f"{outcome.acknowledged} acknowledged writes: {outcome.acknowledged_lost} lost. ")
    if outcome.deployments is not None:
        made = outcome.deployments
        text.append(
            f"{made.acknowledged} acknowledged deployments, kept in PostgreSQL: {made.lost} lost;"
            f" longest wait for one {made.longest_wait_ms:.0f} ms.\n"
        )
    host = outcome.failover.old_leader
    if outcome.returned_ms is not None:
        does = "follows and serves" if outcome.deployments is None else "follows, serves and streams"
        text.append(f"{host} {does} again, {outcome.returned_ms:.0f} ms after its restart.")
    else:
        text.append(f"{host} did not come back in time.", style="red")
    return text
