"""One instance: performs what `decide` says and reports what happens as events.

One owner for its process, timer, probes and port, so there are no locks. Every
event is handled to its end before the next; a change is told before the
actions that follow from it are performed, so an endpoint disappears before
the replacement is even started.
"""

import asyncio
import os
import signal
import time
from collections import deque
from dataclasses import replace

from mesh import failpoints
from mesh.adapters.cgroup import Leaf
from mesh.adapters.child import Child, Launch, spawn
from mesh.errors import Unavailable
from mesh.state.service import InstanceState, InstanceStatus
from sidecar.supervisor.decide import decide, describe_exit
from sidecar.supervisor.model import (
    Action,
    Assignment,
    Do,
    Event,
    ExclusiveHandle,
    Exit,
    Goal,
    Kind,
    Life,
)
from sidecar.supervisor.prober import Prober
from sidecar.supervisor.probes import Target
from sidecar.supervisor.process import check_command, limit_address_space
from sidecar.supervisor.records import Record, file_stem
from sidecar.supervisor.site import Site
from sidecar.supervisor.surroundings import address_text, environment_of, make_state_dir, state_dir_of
from sidecar.supervisor.tree import CLEAR_S_MAX, CLEAR_S_MIN, Tree


class Instance:
    """One running copy of a service, from its assignment until nothing of it is left."""

    def __init__(self, assignment: Assignment, site: Site, *, generation: int = 0) -> None:
        self.id = assignment.instance
        #: What the next start uses; `_started` is what the present process was started with.
        self.assignment = assignment
        self.wanted = True
        self.waiting = ""
        self.life = Life(generation=generation)
        self._started = assignment
        self._site = site
        self._stem = file_stem(self.id)
        self._leaf = Leaf(site.hierarchies, self._stem)
        self._tree: Tree | None = None
        self._child: Child | None = None
        self._oom_before = 0
        self._prober: Prober | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._port = 0
        self._ingress = 0
        self._seen: tuple[object, ...] = ()
        self._status: InstanceStatus | None = None
        self._inbox: deque[Event] = deque()
        self._busy = False

    # ---- what others see ---------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it may get traffic: RUNNING, and readiness holds."""
        running = self.life.state is InstanceState.RUNNING
        return running and self._prober is not None and self._prober.ready

    @property
    def at_rest(self) -> bool:
        """Nothing of it runs, and nothing is to."""
        return self.life.state is InstanceState.STOPPED and self.life.goal is Goal.STOP

    def status(self) -> InstanceStatus:
        """What the host reports of it; the same object until something has changed.

        Many ask, several times a second, and compare with what they were told last.
        """
        reason = self.life.reason or self.waiting
        if self.life.state is InstanceState.RUNNING and self._prober is not None:
            reason = reason or self._prober.reason
        pid = self._child.pid if self._child is not None else 0
        life, ports = self.life, (self._port, self._ingress)
        seen = (self._started, life.generation, life.state, life.restarts, self.ready, pid, reason, ports)
        if self._status is None or seen != self._seen:
            self._seen, self._status = seen, self._make_status(pid, reason)
        return self._status

    def _make_status(self, pid: int, reason: str) -> InstanceStatus:
        settings, spec = self._site.settings, self._started.spec
        ingress = settings.ingress_address or settings.listen_address
        return InstanceStatus(
            instance=self.id,
            service=spec.name,
            host=settings.host,
            generation=self.life.generation,
            state=self.life.state,
            ready=self.ready,
            pid=pid,
            restarts=self.life.restarts,
            address=address_text(settings.listen_address, self._port),
            ingress=address_text(ingress, self._ingress) if spec.routed else "",
            reason=reason,
            spec_version=self._started.spec_version,
            restart_nonce=self._started.restart_nonce,
        )

    # ---- events --------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Let something happen to it, with everything that follows at once."""
        self._inbox.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                self._handle_one(self._inbox.popleft())
        finally:
            self._busy = False

    def _handle_one(self, event: Event) -> None:
        before = self.life
        self.life, actions = decide(
            before,
            event,
            policy=self.assignment.spec.restart,
            now_ns=time.monotonic_ns(),
            jitter=self._site.jitter(),
        )
        if self.life != before:
            self._site.on_change(self)
        for action in actions:
            self._perform(action)

    def on_startup_passed(self) -> None:
        self.handle(Event(Kind.STARTED))

    def on_readiness(self) -> None:
        self._site.on_change(self)

    def on_liveness_lost(self, reason: str) -> None:
        self.handle(Event(Kind.UNWELL, reason))

    def pushed(self, *, ok: bool) -> None:
        """The service itself says how it is."""
        if self._prober is not None:
            self._prober.pushed(ok=ok)

    # ---- actions -------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        spec = self._started.spec
        match action.do:
            case Do.SPAWN:
                self._start()
            case Do.TERM:
                self._terminate()
            case Do.KILL:
                if self._tree is not None:
                    self._tree.kill(self._child)
            case Do.CLEAR:
                self._clear()
            case Do.PROBE_STARTUP:
                self._prober = self._new_prober()
                self._prober.ask_startup()
            case Do.PROBE_STEADY if self._prober is not None:
                self._prober.ask_steadily()
                self._site.on_change(self)
            case Do.PROBE_STOP if self._prober is not None:
                self._prober.stop()
            case Do.ARM_STARTUP if spec.probes.startup is not None:
                late = f"startup took longer than {spec.probes.startup_deadline_ms} ms"
                self._arm(spec.probes.startup_deadline_ms, Event(Kind.LATE, late))
            case Do.ARM_GRACE:
                self._arm(spec.grace_ms, Event(Kind.GRACE_OVER))
            case Do.ARM_DELAY:
                self._arm(action.delay_ms, Event(Kind.DELAY_OVER))
            case Do.DISARM:
                self._disarm()
            case Do.FORGET:
                self._forget()
            case _:
                pass

    def _start(self) -> None:
        self._started = self.assignment
        problem = check_command(self.assignment.spec)
        if problem is not None:
            self.handle(Event(Kind.SPAWN_FAILED, f"could not be started: {problem}"))
            return
        try:
            self._spawn()
        except (OSError, Unavailable) as error:
            self.handle(Event(Kind.SPAWN_FAILED, f"could not be started: {error}"))
        else:
            self.handle(Event(Kind.SPAWNED))

    def _spawn(self) -> None:
        """Order: record written, then fence told. Fails: OSError, Unavailable; then nothing runs."""
        site, spec = self._site, self.assignment.spec
        if self.assignment.exclusive and not site.may_act():
            raise Unavailable("the lease of this host has run out")
        self._port = site.ports.give(self.id)
        if spec.routed and not self._ingress:
            self._ingress = site.ports.give(f"{self.id}/ingress")
        limited = self._leaf.make(spec.memory_bytes_max)
        self._oom_before = self._leaf.oom_kills()
        make_state_dir(site.settings, self.assignment)
        output = site.logs.open(self.id)
        failpoints.hit("supervisor.before-spawn")
        try:
            child = spawn(
                Launch(
                    command=spec.command,
                    environment=environment_of(
                        site.settings, self.assignment, self._port, self.life.generation
                    ),
                    directory=spec.directory or str(state_dir_of(site.settings, self.assignment)),
                    user=spec.user,
                    dies_with_parent=self.assignment.exclusive,
                    groups=self._leaf.entrances(),
                    output=output,
                )
            )
        finally:
            os.close(output)
        try:
            failpoints.hit("supervisor.spawned")
            if spec.memory_bytes_max and not limited:
                limit_address_space(child.pid, spec.memory_bytes_max)
            site.records.write(self._record(child))
            failpoints.hit("supervisor.recorded")
        except OSError:  # a process without a record would run beside its replacement
            Tree(self.id, site.settings.socket_path, self._leaf, child.pid).undo(child)
            raise
        self._take(child)

    def _take(self, child: Child, *, inherited: bool = False) -> None:
        """Make *child* the main process from now on."""
        self._child = child
        socket_path = self._site.settings.socket_path
        self._tree = Tree(self.id, socket_path, self._leaf, child.pid, inherited=inherited)
        if self.assignment.exclusive:
            cgroup = str(self._leaf.path or "")
            self._site.on_exclusive(self.id, ExclusiveHandle(child.pid, child.start_ticks, cgroup))
        asyncio.get_running_loop().add_reader(child.pidfd, self._on_exit)

    def adopt(self, record: Record, child: Child) -> None:
        """Go on with a process that an earlier sidecar started."""
        self._started = replace(
            self.assignment,
            spec_version=record.spec_version,
            restart_nonce=record.restart_nonce,
        )
        self._port, self._ingress = record.port, record.ingress
        self._site.ports.hold(self.id, record.port)
        if record.ingress:
            self._site.ports.hold(f"{self.id}/ingress", record.ingress)
        os.close(self._site.logs.open(self.id))
        self._take(child, inherited=True)
        self.handle(Event(Kind.ADOPT))

    @property
    def started_with(self) -> Assignment:
        """What its present or last process was started with."""
        return self._started

    def _on_exit(self) -> None:
        child = self._child
        assert child is not None
        asyncio.get_running_loop().remove_reader(child.pidfd)
        killed = self._leaf.oom_kills() > self._oom_before
        how = child.ended()
        ended = Exit(how.code, how.signal, out_of_memory=killed)
        reason = describe_exit(ended, self._started.spec.memory_bytes_max)
        self.handle(Event(Kind.EXITED, reason, ended))

    def _terminate(self) -> None:
        if self._child is not None:
            self._child.signal_group(signal.SIGTERM)
            # A stopped process would sleep through its grace.
            self._child.signal_group(signal.SIGCONT)

    def _clear(self, pause_s: float = CLEAR_S_MIN) -> None:
        """Kill and look until the tree is empty; timers only, so that it works to the very end."""
        assert self._tree is not None
        if self._tree.empty():
            self._gone()
            return
        self._tree.kill(None)
        longer_s = min(2 * pause_s, CLEAR_S_MAX)
        asyncio.get_running_loop().call_later(pause_s, self._clear, longer_s)

    def _gone(self) -> None:
        if self._child is not None:
            self._child.release()
            self._child = None
        self._tree = None
        failpoints.hit("supervisor.gone")
        if self._started.exclusive:
            self._site.on_exclusive(self.id, None)
        self.handle(Event(Kind.GONE))

    def _forget(self) -> None:
        site = self._site
        self._leaf.remove()
        probes = self._started.spec.probes
        if any(p is not None and p.command for p in (probes.startup, probes.readiness, probes.liveness)):
            for name in site.hierarchies.leaves():
                if name.startswith(f"{self._stem}.probe."):
                    Leaf(site.hierarchies, name).remove()
        site.records.remove(self.id)
        site.ports.release(self.id)
        site.ports.release(f"{self.id}/ingress")
        site.logs.forget(self.id)
        self._port = self._ingress = 0

    def detach(self) -> None:
        """Let go of a process that is to outlive this sidecar."""
        self._disarm()
        if self._prober is not None:
            self._prober.stop()
        if self._child is not None:
            asyncio.get_running_loop().remove_reader(self._child.pidfd)
            self._child.let_go()
            self._child = None

    def _arm(self, delay_ms: int, event: Event) -> None:
        self._disarm()
        if delay_ms <= 0:
            self.handle(event)
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_ms / 1000, self.handle, event)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- what a start needs ----------------------------------------------------------

    def _new_prober(self) -> Prober:
        settings, spec = self._site.settings, self._started.spec
        return Prober(
            name=self.id,
            probes=spec.probes,
            target=Target(
                address=settings.listen_address,
                port=self._port,
                environment=environment_of(settings, self._started, self._port, self.life.generation),
                directory=spec.directory or str(state_dir_of(settings, self._started)),
                user=spec.user,
                hierarchies=self._site.hierarchies,
                stem=self._stem,
            ),
            listener=self,
            tasks=self._site.tasks,
            jitter=self._site.jitter,
        )

    def _record(self, child: Child) -> Record:
        assignment = self.assignment
        return Record(
            instance=self.id,
            pid=child.pid,
            start_ticks=child.start_ticks,
            boot=self._site.boot,
            exclusive=assignment.exclusive,
            generation=self.life.generation,
            spec_version=assignment.spec_version,
            restart_nonce=assignment.restart_nonce,
            ordinal=assignment.ordinal,
            grace_ms=assignment.spec.grace_ms,
            port=self._port,
            ingress=self._ingress,
        )
