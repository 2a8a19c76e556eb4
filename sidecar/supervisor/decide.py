"""What happens next in the life of one instance: a table and the sums around it.

`TABLE` has a row with a human sentence for every pair of state and event that
means something; `IGNORED` lists the pairs that mean nothing and why. Together
they cover every pair, and a test checks that. Time and chance are parameters.

Invariant: SPAWN follows only START, DELAY_OVER, RESTART of something that is
not running, or GONE: a replacement never starts before the earlier tree is
verified empty.

Absent here: which instances should run (reconcile.py), and how it is done
(instance.py).
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mesh.errors import InvariantBroken
from mesh.state.service import InstanceState as S
from mesh.state.service import Restart, RestartWhen
from sidecar.supervisor.model import Action, Do, Event, Exit, Goal, Kind, Life


@dataclass(frozen=True, slots=True)
class Row:
    """The next state, what to do, and the sentence that explains it."""

    to: S
    do: tuple[Do, ...]
    sentence: str


_TERM: Final = (Do.DISARM, Do.PROBE_STOP, Do.TERM, Do.ARM_GRACE)
_KILL: Final = (Do.DISARM, Do.PROBE_STOP, Do.KILL)
_CLEAR: Final = (Do.DISARM, Do.PROBE_STOP, Do.CLEAR)
_WATCH: Final = (Do.ARM_STARTUP, Do.PROBE_STARTUP)

TABLE: Final[Mapping[tuple[S, Kind], Row]] = MappingProxyType(
    {
        (S.STOPPED, Kind.START): Row(S.STARTING, (Do.SPAWN,), "it is wanted: start it"),
        (S.STOPPED, Kind.ADOPT): Row(S.STARTING, _WATCH, "it outlived its sidecar: watch it again"),
        (S.STOPPED, Kind.STOP): Row(S.STOPPED, (Do.FORGET,), "nothing runs: forget it"),
        (S.STOPPED, Kind.FENCE): Row(S.STOPPED, (Do.FORGET,), "nothing runs: forget it"),
        (S.STARTING, Kind.SPAWNED): Row(S.STARTING, _WATCH, "a process runs: ask whether it is up"),
        (S.STARTING, Kind.SPAWN_FAILED): Row(
            S.BACKOFF, (Do.ARM_DELAY,), "no process could be made: try again later"
        ),
        (S.STARTING, Kind.STARTED): Row(
            S.RUNNING, (Do.DISARM, Do.PROBE_STEADY), "it is up: watch readiness and liveness"
        ),
        (S.STARTING, Kind.LATE): Row(S.STOPPING, _TERM, "startup took too long: end it"),
        (S.STARTING, Kind.EXITED): Row(S.STOPPING, _CLEAR, "it ended: clear what it left"),
        (S.STARTING, Kind.STOP): Row(S.STOPPING, _TERM, "not wanted any more: end it"),
        (S.STARTING, Kind.RESTART): Row(S.STOPPING, _TERM, "restart: end it first"),
        (S.STARTING, Kind.FENCE): Row(S.STOPPING, _KILL, "fenced: kill it at once"),
        (S.RUNNING, Kind.UNWELL): Row(S.STOPPING, _TERM, "liveness failed: end it"),
        (S.RUNNING, Kind.EXITED): Row(S.STOPPING, _CLEAR, "it ended: clear what it left"),
        (S.RUNNING, Kind.STOP): Row(S.STOPPING, _TERM, "not wanted any more: end it"),
        (S.RUNNING, Kind.RESTART): Row(S.STOPPING, _TERM, "restart: end it first"),
        (S.RUNNING, Kind.FENCE): Row(S.STOPPING, _KILL, "fenced: kill it at once"),
        (S.BACKOFF, Kind.DELAY_OVER): Row(S.STARTING, (Do.SPAWN,), "waited long enough: start it"),
        (S.BACKOFF, Kind.STOP): Row(S.STOPPED, (Do.DISARM, Do.FORGET), "nothing runs: forget it"),
        (S.BACKOFF, Kind.FENCE): Row(S.STOPPED, (Do.DISARM, Do.FORGET), "nothing runs: forget it"),
        (S.BACKOFF, Kind.RESTART): Row(S.STARTING, (Do.DISARM, Do.SPAWN), "asked to: start now"),
        (S.STOPPING, Kind.EXITED): Row(S.STOPPING, _CLEAR, "it ended: clear what it left"),
        (S.STOPPING, Kind.GRACE_OVER): Row(S.STOPPING, (Do.KILL,), "grace is over: kill the tree"),
        (S.STOPPING, Kind.FENCE): Row(S.STOPPING, _KILL, "fenced: no more grace"),
        (S.STOPPING, Kind.STOP): Row(S.STOPPING, (), "it is ending already"),
        (S.STOPPING, Kind.START): Row(S.STOPPING, (), "wanted again: start when it is gone"),
        (S.STOPPING, Kind.RESTART): Row(S.STOPPING, (), "start when it is gone"),
        (S.STOPPING, Kind.GONE_STOPPED): Row(S.STOPPED, (Do.FORGET,), "all gone, as wanted"),
        (S.STOPPING, Kind.GONE_AGAIN): Row(S.STARTING, (Do.SPAWN,), "all gone: start anew"),
        (S.STOPPING, Kind.GONE_RETRY): Row(S.BACKOFF, (Do.ARM_DELAY,), "it failed: back off"),
        (S.STOPPING, Kind.GONE_FINAL): Row(S.EXITED, (), "its restart policy leaves it there"),
        (S.EXITED, Kind.RESTART): Row(S.STARTING, (Do.SPAWN,), "asked to: start it"),
        (S.EXITED, Kind.STOP): Row(S.STOPPED, (Do.FORGET,), "nothing runs: forget it"),
        (S.EXITED, Kind.FENCE): Row(S.STOPPED, (Do.FORGET,), "nothing runs: forget it"),
    }
)

_GONE: Final = (Kind.GONE_STOPPED, Kind.GONE_AGAIN, Kind.GONE_RETRY, Kind.GONE_FINAL)
_OF_PROCESS: Final = (
    Kind.SPAWNED,
    Kind.SPAWN_FAILED,
    Kind.STARTED,
    Kind.LATE,
    Kind.UNWELL,
    Kind.EXITED,
    Kind.GRACE_OVER,
)
_NO_PROCESS: Final = "no process to speak of: a late echo of one that is gone"
_NOT_NOW: Final = "timers and probes of another phase: a late echo"
_IS_SO: Final = "it is so already"

#: Pairs without an effect, and why.
IGNORED: Final[Mapping[tuple[S, Kind], str]] = MappingProxyType(
    {
        **{
            (state, kind): _NO_PROCESS
            for state in (S.STOPPED, S.BACKOFF, S.EXITED)
            for kind in (*_OF_PROCESS, *_GONE)
        },
        **{(state, Kind.ADOPT): _IS_SO for state in S if state is not S.STOPPED},
        **{(state, Kind.DELAY_OVER): _NOT_NOW for state in S if state is not S.BACKOFF},
        **{(state, kind): _NOT_NOW for state in (S.STARTING, S.RUNNING) for kind in _GONE},
        **{(S.STARTING, kind): _NOT_NOW for kind in (Kind.UNWELL, Kind.GRACE_OVER)},
        **{
            (S.RUNNING, kind): _NOT_NOW
            for kind in (Kind.SPAWNED, Kind.SPAWN_FAILED, Kind.STARTED, Kind.LATE, Kind.GRACE_OVER)
        },
        **{
            (S.STOPPING, kind): _NOT_NOW
            for kind in (Kind.SPAWNED, Kind.SPAWN_FAILED, Kind.STARTED, Kind.LATE, Kind.UNWELL)
        },
        **{(state, Kind.START): _IS_SO for state in (S.STARTING, S.RUNNING, S.BACKOFF, S.EXITED)},
        (S.STOPPED, Kind.RESTART): "nothing runs: the next start is a new one anyway",
    }
)


def decide(
    life: Life, event: Event, *, policy: Restart, now_ns: int, jitter: float
) -> tuple[Life, tuple[Action, ...]]:
    """The life after *event*, and what to do about it.

    `jitter` is in [0, 1). An event that means nothing in this state leaves
    everything as it is.
    """
    kind = _case_of_gone(life, policy) if event.kind is Kind.GONE else event.kind
    row = TABLE.get((life.state, kind))
    if row is None:
        if (life.state, kind) not in IGNORED:
            raise InvariantBroken(f"no row for {life.state.value} and {kind.value}")
        return life, ()
    life = _note(life, kind, event, policy, now_ns)
    actions = tuple(
        Action(do, restart_delay_ms(life.failures, policy, jitter) if do is Do.ARM_DELAY else 0)
        for do in row.do
    )
    if Do.SPAWN in row.do:
        life = _new_start(life, now_ns)
    return replace(life, state=row.to), actions


def restart_delay_ms(failures: int, policy: Restart, jitter: float) -> int:
    """How long to wait before the start that follows *failures* failures in a row.

    The first is free; then the delay doubles up to the policy's bound, and
    jitter takes away up to half of it, so that a crowd does not come back at once.
    """
    if failures <= 1:
        return 0
    doubled = policy.delay_ms_min << min(failures - 2, 30)
    return round(min(doubled, policy.delay_ms_max) * (1 - jitter / 2))


def describe_exit(ended: Exit, memory_bytes_max: int) -> str:
    """One sentence on how a process ended."""
    if ended.out_of_memory:
        return f"killed by the kernel: out of memory, over its limit of {memory_bytes_max} bytes (OOM)"
    if ended.signal:
        return f"killed by signal {ended.signal} ({_signal_name(ended.signal)})"
    if ended.code is None:
        return "ended; its exit code went to an earlier sidecar"
    hint = {126: ": command not executable", 127: ": command not found"}.get(ended.code, "")
    return f"exited with code {ended.code}{hint}"


def _case_of_gone(life: Life, policy: Restart) -> Kind:
    if life.goal is Goal.STOP:
        return Kind.GONE_STOPPED
    if life.planned:
        return Kind.GONE_AGAIN
    clean = life.ended is not None and life.ended.clean
    final = policy.when is RestartWhen.NEVER or (policy.when is RestartWhen.ON_FAILURE and clean)
    return Kind.GONE_FINAL if final else Kind.GONE_RETRY


def _note(life: Life, kind: Kind, event: Event, policy: Restart, now_ns: int) -> Life:
    """Keep what the event says beyond the state."""
    match kind:
        case Kind.START:
            return replace(life, goal=Goal.RUN, planned=life.state is S.STOPPING, reason="")
        case Kind.ADOPT:
            return replace(life, goal=Goal.RUN, started_ns=now_ns, reason="")
        case Kind.RESTART:
            return replace(life, goal=Goal.RUN, planned=True, failures=0, reason=event.reason)
        case Kind.STOP | Kind.FENCE:
            return replace(life, goal=Goal.STOP, planned=False, failures=0, reason=event.reason)
        case Kind.SPAWN_FAILED:
            return replace(life, failures=life.failures + 1, reason=event.reason)
        case Kind.LATE | Kind.UNWELL:
            # What the process does on its way out is our doing, not a clean exit.
            failed = _count_failure(life, policy, now_ns)
            return replace(failed, reason=event.reason, ended=Exit(code=None))
        case Kind.EXITED if life.state is S.STOPPING:
            return replace(life, ended=life.ended or event.exit)
        case Kind.EXITED:
            failed = _count_failure(life, policy, now_ns)
            return replace(failed, reason=event.reason, ended=event.exit)
        case Kind.STARTED:
            return replace(life, reason="")
        case _:
            return life


def _count_failure(life: Life, policy: Restart, now_ns: int) -> Life:
    stable = now_ns - life.started_ns >= policy.stable_ms * 1_000_000
    return replace(life, failures=1 if stable else life.failures + 1)


def _new_start(life: Life, now_ns: int) -> Life:
    return replace(
        life,
        generation=life.generation + 1,
        restarts=life.restarts + (1 if life.generation else 0),
        started_ns=now_ns,
        planned=False,
        ended=None,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time signal"
