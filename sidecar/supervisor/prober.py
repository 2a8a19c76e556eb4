"""Asks the questions of one instance, each in its own rhythm, and keeps the verdicts.

One task per distinct question: readiness and liveness that ask the same are
asked once. Concurrency 1: the next question follows the answer to the last.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from mesh.state.service import Probe, ProbeKind, Probes
from sidecar.supervisor.probes import Target, ask_in_time, asker_for
from sidecar.supervisor.verdict import (
    Question,
    Standing,
    align_s,
    judge,
    pause_ms,
    question_of,
    steady_questions,
)

_UNKNOWN: Final = Standing(well=False)


class Listener(Protocol):
    """Who is told of verdicts."""

    def on_startup_passed(self) -> None:
        """The startup probe has risen."""

    def on_readiness(self) -> None:
        """The readiness verdict, or its reason, has changed."""

    def on_liveness_lost(self, reason: str) -> None:
        """The liveness probe has fallen."""


@dataclass(slots=True)
class _Verdict:
    probe: Probe
    standing: Standing
    reason: str = ""
    question: Question = field(init=False)

    def __post_init__(self) -> None:
        self.question = question_of(self.probe)

    def hear(self, reason: str) -> bool:
        """Take an answer in; return whether the verdict has changed."""
        was = self.standing.well
        self.standing = judge(self.standing, self.probe, ok=not reason)
        self.reason = "" if self.standing.well else reason
        return self.standing.well != was


class Prober:
    """The probes of one start of one instance."""

    def __init__(
        self,
        *,
        name: str,
        probes: Probes,
        target: Target,
        listener: Listener,
        tasks: asyncio.TaskGroup,
        jitter: Callable[[], float],
    ) -> None:
        self._name = name
        self._probes = probes
        self._target = target
        self._listener = listener
        self._tasks = tasks
        self._jitter = jitter
        self._running: list[asyncio.Task[None]] = []
        self._startup = _Verdict(probes.startup, _UNKNOWN) if probes.startup else None
        self._readiness: _Verdict | None = None
        self._liveness: _Verdict | None = None
        self._heard_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether traffic may come, as far as the readiness probe is concerned."""
        return self._readiness is None or self._readiness.standing.well

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        if self._readiness is None or self._readiness.standing.well:
            return ""
        return f"not ready: {self._readiness.reason or 'no answer yet'}"

    def ask_startup(self) -> None:
        """Begin with the startup probe; without one, startup passes at once."""
        if self._startup is None:
            self._listener.on_startup_passed()
        else:
            self._ask(question_of(self._startup.probe))

    def ask_steadily(self) -> None:
        """Startup is over: readiness and liveness from now on."""
        self.stop()
        self._startup = None
        if self._probes.readiness is not None:
            self._readiness = _Verdict(self._probes.readiness, _UNKNOWN)
        if self._probes.liveness is not None:
            self._liveness = _Verdict(self._probes.liveness, Standing(well=True))
        for question in steady_questions(self._probes):
            self._ask(question)

    def stop(self) -> None:
        """Ask nothing more."""
        for task in self._running:
            task.cancel()
        self._running.clear()

    def pushed(self, *, ok: bool) -> None:
        """The service itself says how it is: an answer to every PUSH question."""
        self._heard_at = asyncio.get_running_loop().time()
        for verdict in (self._startup, self._readiness, self._liveness):
            if verdict is not None and verdict.probe.kind is ProbeKind.PUSH:
                self._hear(verdict, "" if ok else "the service says it is not well")

    def _ask(self, question: Question) -> None:
        ask = self._wait_for_silence if question.kind is ProbeKind.PUSH else self._ask_for_ever
        name = f"probe:{self._name}:{question.kind.value}"
        self._running.append(self._tasks.create_task(ask(question), name=name))

    async def _ask_for_ever(self, question: Question) -> None:
        """Bound: one question at a time, each with its own deadline."""
        asker = asker_for(question, self._target)
        tries, answered = 0, False
        clock = asyncio.get_running_loop().time
        count_s = clock() + question.interval_ms / 1000
        try:
            while True:
                reason = await ask_in_time(asker, question.timeout_ms)
                tries += 1
                first = not answered and not reason
                answered = answered or not reason
                # Quick questions of the first moments must not use up liveness: it counts at its own pace.
                counts = answered or clock() >= count_s
                if counts:
                    count_s = clock() + question.interval_ms / 1000
                self._answer(question, reason, for_liveness=counts)
                pause = pause_ms(question, tries=tries, answered=answered, jitter=self._jitter())
                # The first pause is cut at random, so that instances started together drift apart.
                wake_s = clock() + pause / 1000 * (self._jitter() if first else 1)
                if answered:
                    wake_s = align_s(wake_s, question.interval_ms)
                await _sleep_until(wake_s)
        finally:
            asker.close()

    async def _wait_for_silence(self, question: Question) -> None:
        """A push counts as it comes; here only its absence is counted."""
        clock = asyncio.get_running_loop().time
        self._heard_at = clock()
        silence_s = (question.interval_ms + question.timeout_ms) / 1000
        while True:
            await asyncio.sleep(question.interval_ms / 1000)
            silent_s = clock() - self._heard_at
            if silent_s > silence_s:
                self._answer(question, f"no heartbeat pushed for {silent_s:.1f} s")

    def _answer(self, question: Question, reason: str, *, for_liveness: bool = True) -> None:
        for verdict in (self._startup, self._readiness, self._liveness if for_liveness else None):
            if verdict is not None and verdict.question == question:
                self._hear(verdict, reason)

    def _hear(self, verdict: _Verdict, reason: str) -> None:
        changed = verdict.hear(reason)
        if not changed:
            return
        if verdict is self._startup:
            self._listener.on_startup_passed()
        elif verdict is self._readiness:
            self._listener.on_readiness()
        elif not verdict.standing.well:
            self._listener.on_liveness_lost(f"liveness lost: {reason}")


async def _sleep_until(when_s: float) -> None:
    """Sleep to a moment of the loop's clock, exactly, so that equal moments share a wake-up."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_at(when_s, _finish, over)
    try:
        await over
    finally:
        timer.cancel()


def _finish(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)
