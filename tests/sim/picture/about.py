"""What the page of a run says in words and figures: settings, counters, and what was measured."""

from collections import Counter
from typing import Any, Final

from mesh.ids import HostId
from tests.sim.outages import Outages
from tests.sim.percentiles import spread
from tests.sim.phases import Outcome, Run
from tests.sim.picture.page import About
from tests.sim.picture.recorder import RESULTS, Recorder

MS: Final = 1_000_000


def about(
    run: Run,
    outcome: Outcome,
    recorder: Recorder,
    outages: Outages,
    again: str,
    violation: dict[str, Any] | None,
) -> About:
    """Of a run that is over."""
    world = run.world
    names = list(world.machines)
    return About(
        seed=outcome.seed,
        again=again,
        trace_hash=outcome.trace_hash,
        events=outcome.events,
        simulated_s=outcome.simulated_s,
        settings=_settings(run),
        counters=outcome.faults,
        figures=_figures(recorder, outages),
        notes={name: _note(run, name, number) for number, name in enumerate(names)},
        violation=violation,
    )


def _note(run: Run, name: HostId, number: int) -> str:
    plan, machine = run.world.plan, run.world.machines[name]
    if machine.is_witness:
        return "witness, joins later"
    return "founder" if number < plan.voters else "joins later"


def _settings(run: Run) -> list[tuple[str, str]]:
    plan = run.world.plan
    timing, raft = plan.timing, plan.raft
    leases, tick = timing.leases, timing.tick_ns // MS
    kinds = {**run.faults.kinds, **run.operations.kinds}
    rates = " ".join(f"{rate:+d}" for rate in plan.rates_ppm)
    return [
        ("tick", f"{tick} ms"),
        ("heartbeat", f"{leases.heartbeat_ns // MS} ms"),
        ("lease", f"{leases.lease_ns // MS} ms, margin {timing.margin_ns // MS} ms"),
        ("election timeout", f"{raft.election_ticks_min * tick} to {raft.election_ticks_max * tick} ms"),
        ("release bound", f"{leases.release_bound_ns // MS} ms"),
        ("clock error declared", f"{leases.clock_rate_error_ppm} ppm"),
        ("clock rates", f"{rates} ppm" if rates else "exact"),
        ("snapshot after", f"{plan.driver.snapshot_entries} entries"),
        ("append, chunk", f"{raft.append_bytes_max} bytes, {raft.chunk_bytes} bytes"),
        (
            "what this seed drew",
            ", ".join(f"{kind} (each {mean:g} s)" for kind, mean in kinds.items()) or "nothing",
        ),
    ]


def _figures(recorder: Recorder, outages: Outages) -> list[tuple[str, str]]:
    results = Counter(request[2] for request in recorder.requests.values())
    asked = ", ".join(
        f"{results[number]} {name or 'never answered'}" for name, number in RESULTS.items() if results[number]
    )
    told = [("requests of clients", asked or "none"), ("terms with a leader", str(outages.elections))]
    for label, is_owner in (("without a leader", False), ("without an owner", True)):
        for calm, when in ((True, "while a majority was well"), (False, "while faults went on")):
            found = [gap.ms for gap in outages.gaps if bool(gap.name) == is_owner and gap.is_calm == calm]
            told.append((f"{label}, {when}", spread(found)))
    return told
