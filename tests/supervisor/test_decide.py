"""The table of an instance's life, exhaustively."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvariantBroken
from mesh.state.service import InstanceState, Restart, RestartWhen
from sidecar.supervisor import decide as module
from sidecar.supervisor.decide import IGNORED, TABLE, decide, describe_exit, restart_delay_ms
from sidecar.supervisor.model import Action, Do, Event, Exit, Goal, Kind, Life

POLICY = Restart(delay_ms_min=100, delay_ms_max=1_000, stable_ms=10_000)
ALIVE = (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.STOPPING)
SECOND = 1_000_000_000


def after(life: Life, *events: Event, policy: Restart = POLICY, now_ns: int = 0) -> tuple[Life, list[Do]]:
    done: list[Do] = []
    for event in events:
        life, actions = decide(life, event, policy=policy, now_ns=now_ns, jitter=0.0)
        done += [action.do for action in actions]
    return life, done


def test_every_pair_of_state_and_event_has_exactly_one_meaning() -> None:
    """Goal: no forgotten and no doubled row. Method: the product of states and events against both tables."""
    resolved = [kind for kind in Kind if kind is not Kind.GONE]
    for pair in itertools.product(InstanceState, resolved):
        assert (pair in TABLE) != (pair in IGNORED), pair
    assert len(TABLE) + len(IGNORED) == len(InstanceState) * len(resolved)


def test_every_row_says_why() -> None:
    """Goal: the diagram made from the table explains itself. Method: no row without a sentence."""
    assert all(row.sentence for row in TABLE.values())
    assert all(IGNORED.values())


@pytest.mark.parametrize("state", InstanceState)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("goal", Goal)
def test_nothing_is_started_beside_something_that_may_live(
    state: InstanceState, kind: Kind, goal: Goal
) -> None:
    """Invariant: SPAWN only where no process can be left."""
    _, actions = decide(Life(state, goal), Event(kind), policy=POLICY, now_ns=0, jitter=0.0)
    if Action(Do.SPAWN) in actions:
        assert state not in ALIVE or kind in (Kind.GONE, Kind.GONE_AGAIN)


@pytest.mark.parametrize("state", [InstanceState.STARTING, InstanceState.RUNNING, InstanceState.STOPPING])
def test_a_fence_kills_at_once_and_leaves_it_stopped(state: InstanceState) -> None:
    """Goal: no grace when another host may act.

    Method: fence in each state with a process; no SIGTERM among the actions.
    """
    life, done = after(Life(state, Goal.RUN), Event(Kind.FENCE), Event(Kind.EXITED), Event(Kind.GONE))
    assert Do.KILL in done
    assert Do.TERM not in done
    assert life.state is InstanceState.STOPPED


def test_a_missing_row_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an unforeseen event is not swallowed. Method: empty the table of ignored events."""
    monkeypatch.setattr(module, "IGNORED", {})
    with pytest.raises(InvariantBroken, match="no row for exited and start"):
        after(Life(InstanceState.EXITED), Event(Kind.START))


def test_the_first_failure_after_a_stable_run_costs_no_delay() -> None:
    """Goal: old failures are forgiven. Method: seven failures, ten stable seconds, one more."""
    life = Life(InstanceState.RUNNING, Goal.RUN, failures=7, started_ns=0)
    exited = Event(Kind.EXITED, "exited with code 1", Exit(code=1))
    life, _ = decide(life, exited, policy=POLICY, now_ns=10 * SECOND, jitter=0.0)
    life, actions = decide(life, Event(Kind.GONE), policy=POLICY, now_ns=10 * SECOND, jitter=0.0)
    assert (life.failures, actions) == (1, (Action(Do.ARM_DELAY, 0),))


def test_failures_in_a_row_double_the_delay() -> None:
    """Goal: a crash loop does not burn the machine, nor wait for ever.

    Method: seven failures against the row of delays.
    """
    life = Life(InstanceState.STARTING, Goal.RUN, generation=1)
    delays = []
    for _ in range(7):
        life, _ = decide(
            life, Event(Kind.EXITED, exit=Exit(code=1)), policy=POLICY, now_ns=SECOND, jitter=0.0
        )
        life, actions = decide(life, Event(Kind.GONE), policy=POLICY, now_ns=SECOND, jitter=0.0)
        delays.append(actions[0].delay_ms)
        life, _ = decide(life, Event(Kind.DELAY_OVER), policy=POLICY, now_ns=SECOND, jitter=0.0)
    assert delays == [0, 100, 200, 400, 800, 1_000, 1_000]
    assert (life.generation, life.restarts) == (8, 7)


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_bounded_and_jitter_takes_at_most_half(failures: int, jitter: float) -> None:
    """Goal: no number of failures overflows or stalls. Method: random failures and jitter."""
    full = restart_delay_ms(failures, POLICY, 0.0)
    assert full / 2 - 1 <= restart_delay_ms(failures, POLICY, jitter) <= full <= POLICY.delay_ms_max


def test_a_fork_that_fails_backs_off() -> None:
    """Goal: want of processes is treated like a crash. Method: SPAWN_FAILED at the start."""
    life, done = after(
        Life(InstanceState.STOPPED), Event(Kind.START), Event(Kind.SPAWN_FAILED, "out of processes")
    )
    assert (life.state, life.reason, done) == (
        InstanceState.BACKOFF,
        "out of processes",
        [Do.SPAWN, Do.ARM_DELAY],
    )


@pytest.mark.parametrize(
    ("when", "ended", "state"),
    [
        (RestartWhen.ALWAYS, Exit(code=0), InstanceState.BACKOFF),
        (RestartWhen.ON_FAILURE, Exit(code=0), InstanceState.EXITED),
        (RestartWhen.ON_FAILURE, Exit(code=1), InstanceState.BACKOFF),
        (RestartWhen.ON_FAILURE, Exit(code=None, signal=9), InstanceState.BACKOFF),
        (RestartWhen.ON_FAILURE, Exit(code=0, out_of_memory=True), InstanceState.BACKOFF),
        (RestartWhen.ON_FAILURE, Exit(code=None), InstanceState.BACKOFF),
        (RestartWhen.NEVER, Exit(code=1), InstanceState.EXITED),
    ],
)
def test_the_policy_decides_which_ends_are_followed_by_a_start(
    when: RestartWhen, ended: Exit, state: InstanceState
) -> None:
    """Goal: a job that is done stays done, a killed one does not. Method: table of policies and ends."""
    life, _ = after(
        Life(InstanceState.RUNNING, Goal.RUN),
        Event(Kind.EXITED, exit=ended),
        Event(Kind.GONE),
        policy=Restart(when=when),
    )
    assert life.state is state


def test_an_unwell_process_that_then_ends_cleanly_is_still_a_failure() -> None:
    """Goal: exit code 0 after SIGTERM does not hide a lost liveness. Method: policy on-failure."""
    life, _ = after(
        Life(InstanceState.RUNNING, Goal.RUN),
        Event(Kind.UNWELL, "liveness lost"),
        Event(Kind.EXITED, "exited with code 0", Exit(code=0)),
        Event(Kind.GONE),
        policy=Restart(when=RestartWhen.ON_FAILURE),
    )
    assert (life.state, life.reason) == (InstanceState.BACKOFF, "liveness lost")


def test_a_restart_starts_anew_without_delay_whatever_the_policy() -> None:
    """Goal: a person's wish beats policy and backoff.

    Method: restart under NEVER after five failures; all actions.
    """
    life, done = after(
        Life(InstanceState.RUNNING, Goal.RUN, generation=1, failures=5),
        Event(Kind.RESTART, "asked"),
        Event(Kind.GRACE_OVER),
        Event(Kind.EXITED, exit=Exit(code=0)),
        Event(Kind.GONE),
        policy=Restart(when=RestartWhen.NEVER),
    )
    assert (life.state, life.generation, life.failures) == (InstanceState.STARTING, 2, 0)
    assert done == [
        *(Do.DISARM, Do.PROBE_STOP, Do.TERM, Do.ARM_GRACE),
        Do.KILL,
        *(Do.DISARM, Do.PROBE_STOP, Do.CLEAR),
        Do.SPAWN,
    ]


def test_wanted_again_while_stopping_starts_when_it_is_gone() -> None:
    """Goal: a change of mind is not lost. Method: stop, start, then the end."""
    life, done = after(
        Life(InstanceState.RUNNING, Goal.RUN),
        *(Event(Kind.STOP), Event(Kind.START), Event(Kind.EXITED, exit=Exit(code=0)), Event(Kind.GONE)),
    )
    assert life.state is InstanceState.STARTING
    assert done[-1] is Do.SPAWN


def test_unwanted_again_while_stopping_for_a_restart_stays_stopped() -> None:
    """Goal: the last wish counts. Method: restart, stop, then the end."""
    life, done = after(
        Life(InstanceState.RUNNING, Goal.RUN),
        *(Event(Kind.RESTART), Event(Kind.STOP), Event(Kind.EXITED, exit=Exit(code=0)), Event(Kind.GONE)),
    )
    assert (life.state, done[-1]) == (InstanceState.STOPPED, Do.FORGET)


def test_an_adopted_process_is_watched_and_keeps_its_generation() -> None:
    """Goal: a new sidecar does not restart what runs. Method: adopt, then see the probes armed."""
    life, done = after(Life(generation=4), Event(Kind.ADOPT), Event(Kind.STARTED))
    assert (life.state, life.generation) == (InstanceState.RUNNING, 4)
    assert done == [Do.ARM_STARTUP, Do.PROBE_STARTUP, Do.DISARM, Do.PROBE_STEADY]


@pytest.mark.parametrize(
    ("ended", "sentence"),
    [
        (Exit(code=3), "exited with code 3"),
        (Exit(code=127), "exited with code 127: command not found"),
        (Exit(code=126), "exited with code 126: command not executable"),
        (Exit(code=None, signal=9), "killed by signal 9 (SIGKILL)"),
        (Exit(code=None, signal=40), "killed by signal 40 (real-time signal)"),
        (Exit(code=None), "ended; its exit code went to an earlier sidecar"),
    ],
)
def test_an_end_is_told_in_one_sentence(ended: Exit, sentence: str) -> None:
    """Goal: the reason can be read without a manual. Method: table of ends."""
    assert describe_exit(ended, 0) == sentence


def test_an_end_for_want_of_memory_names_the_limit() -> None:
    """Goal: the operator learns which number to raise. Method: an out-of-memory end with a limit."""
    told = describe_exit(Exit(code=None, signal=9, out_of_memory=True), 1 << 20)
    assert told == "killed by the kernel: out of memory, over its limit of 1048576 bytes (OOM)"
