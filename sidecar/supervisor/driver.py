"""The supervisor of one host: keeps what runs equal to what is assigned.

`assign` says what is wanted, `run` makes it so and keeps it so. Everything
happens on one event loop, in the main thread (the parent death signal of
exclusive instances is tied to it).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from mesh.adapters.cgroup import NOWHERE, Hierarchies, Leaf, find_hierarchies
from mesh.adapters.child import Child, Launch, become_subreaper, open_again, own_pids, spawn
from mesh.adapters.reaper import Reaper
from mesh.errors import NotFound
from mesh.ids import InstanceId, ServiceName
from mesh.state.service import InstanceStatus, ServiceSpec
from sidecar.supervisor.instance import Instance
from sidecar.supervisor.logs import BUSY_LOOK_S, LOOK_S, Logs
from sidecar.supervisor.model import (
    Assignment,
    Event,
    ExclusiveHandle,
    Goal,
    Kind,
    SupervisorSettings,
)
from sidecar.supervisor.ports import PortAllocator
from sidecar.supervisor.reconcile import Present, Step, compare, may_stop, waits_for
from sidecar.supervisor.records import Record, Records, boot_id, file_stem
from sidecar.supervisor.site import Site
from sidecar.supervisor.tree import Tree

#: Beyond the longest grace: what killing and verifying may take when the sidecar stops.
_CLOSE_S = 5.0
#: How long what an earlier sidecar left may take to vanish once it is killed.
_TAKE_OVER_S = 5.0
#: In one go; then the loop does other things. A fork may have to wait some 10 ms for
#: the kernel while another process joins its cgroup.
_STARTS_AT_ONCE = 1
_STOPS_AT_ONCE = 16


class Supervisor:
    """Starts, watches and stops this host's instances.

    `on_change` is called in the same loop iteration in which an instance exits
    or its readiness changes; `on_exclusive` as soon as an active-standby
    process exists, and again with None when its whole tree is verified gone.
    `may_act` is asked before each start of an exclusive instance: back-off may
    outlast the lease.
    """

    def __init__(
        self,
        *,
        settings: SupervisorSettings,
        on_change: Callable[[InstanceStatus], None],
        on_exclusive: Callable[[InstanceId, ExclusiveHandle | None], None],
        may_act: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        #: When `run` ends: leave the active-active instances to the next sidecar.
        self.keep_running = False
        self._settings = settings
        self._on_change = on_change
        self._on_exclusive = on_exclusive
        self._may_act = may_act
        self._jitter = jitter
        self._logs = Logs(settings.log_dir)
        self._records = Records(settings.run_dir)
        self._instances: dict[InstanceId, Instance] = {}
        self._desired: tuple[Assignment, ...] | None = None
        self._left_over: dict[InstanceId, tuple[Record, Child]] = {}
        self._generations: dict[InstanceId, int] = {}
        self._site: Site | None = None
        self._advancing = False
        self._advance_due = False
        self._changed = asyncio.Event()

    # ---- life of the supervisor --------------------------------------------------------

    async def run(self) -> None:
        """Supervise until cancelled.

        Cancellation: exclusive instances are killed at once; active-active ones
        are stopped in order, within their grace, unless `keep_running` is set.
        The cancellation continues when all that is verified, or after the
        longest grace and some seconds. Further cancellations change nothing.
        """
        become_subreaper()
        async with asyncio.TaskGroup() as tasks:
            site = self._open_site(tasks)
            await self._take_over(site)
            self._site = site
            if self._desired is not None:
                self._reconcile(site, self._desired)
            try:
                await self._look_after(Reaper(site.hierarchies.unified))
            finally:
                closing = asyncio.ensure_future(self._close())
                while not closing.done():
                    with contextlib.suppress(asyncio.CancelledError):  # once more changes nothing
                        await asyncio.shield(closing)
                closing.result()
                self._site = None
                site.hierarchies.remove()

    def _open_site(self, tasks: asyncio.TaskGroup) -> Site:
        settings = self._settings
        found = find_hierarchies(settings.host, settings.run_dir) if settings.cgroups else NOWHERE
        if not _can_join(found):
            found = NOWHERE
        return Site(
            settings=settings,
            hierarchies=found,
            ports=PortAllocator(settings.listen_address, settings.port_min, settings.port_max),
            logs=self._logs,
            records=self._records,
            boot=boot_id(),
            tasks=tasks,
            jitter=self._jitter,
            on_change=self._tell,
            on_exclusive=self._on_exclusive,
            may_act=self._may_act,
        )

    async def _take_over(self, site: Site) -> None:
        """Settle what an earlier sidecar left: nothing may ever run twice.

        Exclusive trees and the remains of dead instances are killed; living
        active-active instances wait for the first assignment.
        """
        for record in self._records.load():
            self._generations[record.instance] = record.generation
            child = open_again(record.pid, record.start_ticks)
            if child is not None and not record.exclusive:
                self._left_over[record.instance] = (record, child)
                continue
            leaf = Leaf(site.hierarchies, file_stem(record.instance))
            pid = child.pid if child is not None else 0
            tree = Tree(record.instance, self._settings.socket_path, leaf, pid, inherited=True)
            tree.kill(child)
            with contextlib.suppress(TimeoutError):  # killed, but held by the kernel (state D)
                async with asyncio.timeout(_TAKE_OVER_S):
                    await tree.clear()
            if child is not None:
                child.release()
        await self._clear_nameless(site)

    async def _clear_nameless(self, site: Site) -> None:
        """Empty the groups without a record: their sidecar died while it started them."""
        known = {file_stem(name) for name in self._left_over}
        for stem in site.hierarchies.leaves():
            if stem not in known:
                leaf = Leaf(site.hierarchies, stem)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TAKE_OVER_S):
                        await Tree(InstanceId(""), "", leaf, 0).clear()
                leaf.remove()

    async def _look_after(self, reaper: Reaper) -> None:
        """The rounds: reap orphans, keep the logs in their bounds."""
        while True:
            orphans = reaper.reap(own_pids())
            flood = await self._logs.cut_full()
            await asyncio.sleep(BUSY_LOOK_S if flood or orphans else LOOK_S)

    async def _close(self) -> None:
        stop_active = not self.keep_running
        for instance in self._instances.values():
            if instance.assignment.exclusive:
                instance.wanted = False
                instance.handle(Event(Kind.FENCE, "the sidecar stops"))
            elif stop_active:
                instance.wanted = False
            else:
                instance.detach()
        self._desired = None
        self._advance()
        specs = [instance.started_with.spec for instance in self._instances.values()]
        # Those that others depend on stop later, so one grace may follow another.
        rounds = 1 + len({spec.name for spec in specs if spec.depends_on})
        deadline_s = max((spec.grace_ms for spec in specs), default=0) / 1000 * rounds + _CLOSE_S
        try:
            async with asyncio.timeout(deadline_s):
                await self._wait_until(lambda: all(i.wanted or i.at_rest for i in self._instances.values()))
        except TimeoutError:
            for instance in self._instances.values():
                if not instance.wanted:
                    instance.handle(Event(Kind.FENCE, "it did not stop in time"))

    # ---- what is wanted ------------------------------------------------------------------

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """Want exactly these instances from now on; returns at once.

        Order: dependencies first, and stopped in reverse. The first assignment
        after a start also decides about what an earlier sidecar left running.
        """
        self._desired = tuple(assignments)
        if self._site is not None:
            self._reconcile(self._site, self._desired)

    def _reconcile(self, site: Site, desired: tuple[Assignment, ...]) -> None:
        wanted = {assignment.instance: assignment for assignment in desired}
        self._adopt(site, wanted)
        present = {name: i.started_with for name, i in self._instances.items()}
        for name, step in compare(present, desired):
            if step is Step.ADD:
                generation = self._generations.get(name, 0)
                self._instances[name] = Instance(wanted[name], site, generation=generation)
                continue
            instance = self._instances[name]
            instance.wanted = step is not Step.REMOVE
            if step is Step.REMOVE:
                continue
            instance.assignment = wanted[name]
            if step is Step.REPLACE:
                instance.handle(Event(Kind.FENCE, "its fencing term has changed"))
            elif step is Step.RESTART and instance.life.goal is Goal.RUN:
                instance.handle(Event(Kind.RESTART, "restarted with a new declaration"))
        self._advance()

    def _adopt(self, site: Site, wanted: dict[InstanceId, Assignment]) -> None:
        for name, (record, child) in self._left_over.items():
            assignment = wanted.get(name)
            if assignment is None or assignment.exclusive:
                assignment = _unwanted(record)
            instance = Instance(assignment, site, generation=record.generation)
            self._instances[name] = instance
            instance.adopt(record, child)
        self._left_over.clear()

    def _advance(self) -> None:
        """Start and stop what may be started and stopped now."""
        if self._advancing:
            return
        self._advancing = True
        self._advance_due = False
        try:
            while self._advance_once():
                pass
        finally:
            self._advancing = False
        self._changed.set()

    def _advance_once(self) -> bool:
        unsettled = [i for i in self._instances.values() if i.wanted is (i.life.goal is Goal.STOP)]
        moved = False
        started = stopped = 0
        present = self._present() if unsettled else {}
        for instance in unsettled:
            if instance.wanted:
                waiting = waits_for(instance.assignment, present)
                instance.waiting = f"waits for {', '.join(waiting)}" if waiting else ""
                if not waiting and started < _STARTS_AT_ONCE:
                    started += 1
                    instance.handle(Event(Kind.START))
            elif stopped < _STOPS_AT_ONCE and may_stop(instance.started_with, present):
                stopped += 1
                instance.handle(Event(Kind.STOP))
        for name in [name for name, i in self._instances.items() if i.at_rest and not i.wanted]:
            self._generations.pop(name, None)
            del self._instances[name]
            moved = True
        return moved

    def _present(self) -> dict[InstanceId, Present]:
        return {
            name: Present(i.started_with, i.life.state, i.ready, i.wanted)
            for name, i in self._instances.items()
        }

    def _tell(self, instance: Instance) -> None:
        self._on_change(instance.status())
        if not self._advance_due:
            self._advance_due = True
            asyncio.get_running_loop().call_soon(self._advance)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ---- what others ask for ---------------------------------------------------------------

    def statuses(self) -> tuple[InstanceStatus, ...]:
        """Every instance of this host, as it is now."""
        return tuple(instance.status() for instance in self._instances.values())

    def pushed(self, instance: InstanceId, ok: bool = True) -> None:
        """A service has pushed a heartbeat. Fails: NotFound."""
        self._find(instance).pushed(ok=ok)

    async def restart(self, instance: InstanceId) -> None:
        """End it within its grace and start it anew; returns when the new process runs.

        Fails: NotFound.
        """
        found = self._find(instance)
        generation = found.life.generation
        found.handle(Event(Kind.RESTART, "restarted on request"))
        await self._wait_until(lambda: found.life.generation > generation or found.at_rest)

    async def kill_exclusive(self) -> None:
        """SIGKILL all active-standby instances; return when every tree is verified empty.

        They stay down until `assign` names them again: leave them out of the
        assignment while this host may not act.
        """
        exclusive = [i for i in self._instances.values() if i.assignment.exclusive]
        names = {instance.id for instance in exclusive}
        if self._desired is not None:
            self._desired = tuple(a for a in self._desired if a.instance not in names)
        for instance in exclusive:
            instance.wanted = False
            instance.handle(Event(Kind.FENCE, "this host may not act any more"))
        before = [(instance, instance.life.generation) for instance in exclusive]
        await self._wait_until(lambda: all(i.at_rest or i.life.generation > was for i, was in before))
        self._advance()

    async def stop_all(self) -> None:
        """Stop everything in order, within grace; return when all is gone."""
        self.assign(())
        await self._wait_until(lambda: not self._instances)

    def tail(self, instance: InstanceId, lines: int) -> tuple[str, ...]:
        """The last lines that it printed, oldest first; also after it is gone."""
        return self._logs.tail(instance, lines)

    def follow(self, instance: InstanceId) -> AsyncIterator[str]:
        """Every line that it prints from now on."""
        return self._logs.follow(instance)

    def log_path(self, instance: InstanceId) -> Path:
        """The file it prints into."""
        return self._logs.path(instance)

    def _find(self, instance: InstanceId) -> Instance:
        found = self._instances.get(instance)
        if found is None:
            raise NotFound(f"no instance {instance} on this host: see `trellis status`")
        return found


def _can_join(hierarchies: Hierarchies) -> bool:
    """Whether a process may move into our groups; unprivileged, the folder alone does not say so."""
    leaf = Leaf(hierarchies, "trial")
    leaf.make(0)
    trial = spawn(Launch(("/bin/true",), {}, "/", "", dies_with_parent=True, groups=leaf.entrances()))
    trial.wait()
    joined = trial.ended().code == 0
    trial.release()
    leaf.remove()
    return joined


def _unwanted(record: Record) -> Assignment:
    """Stands for a declaration that is gone: only good for stopping what it started."""
    service = ServiceName(record.instance.partition("@")[0])
    spec = ServiceSpec(name=service, command=(), grace_ms=record.grace_ms)
    return Assignment(record.instance, spec, record.spec_version, record.ordinal)
