"""Faults of the database: of single processes of its primary, of its hosts, and moves at the worst moment."""

import shutil
import time
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import ClassVar

from tests.chaos.fault import Fault
from tests.chaos.network_faults import Isolated
from tests.chaos.process_faults import HostFrozen, HostKilled
from tests.chaos.stage import Stage
from tests.harness import postgres
from tests.harness.database_cluster import DatabaseCluster, each_signal
from tests.harness.host import Host
from tests.harness.waiting import let_pass, wait_for


class _OfDatabase(Fault):
    """It strikes the primary's host, whoever was aimed at."""

    needs_database: ClassVar[bool] = True

    def __init__(self, stage: Stage, target: Host, chance: Random) -> None:
        super().__init__(stage, stage.primary() or target, chance)

    @classmethod
    def why_not(cls) -> str:
        """See Fault."""
        return postgres.why_not() or super().why_not()

    @property
    def database(self) -> DatabaseCluster:
        assert self.stage.database is not None
        return self.stage.database


class _OfProcess(_OfDatabase):
    """A signal to one process of the primary's server, or to some."""

    #: As such a process calls itself.
    process: ClassVar[str] = ""
    sends: ClassVar[Signals] = SIGKILL

    def pids(self) -> list[int]:
        """Which."""
        found = self.database.of_kind(self.target, self.process)
        return [self.chance.choice(found)] if found else []

    def inject(self) -> None:
        self._struck = wait_for(self.pids, f"{self.target.name} has what is to be struck", 10.0)
        each_signal(self._struck, self.sends)

    def heal(self) -> None:
        if self.sends is SIGSTOP:
            each_signal(getattr(self, "_struck", []), SIGCONT)


class _Frozen(_OfProcess):
    sends: ClassVar[Signals] = SIGSTOP
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 8.0)


class PostmasterKilled(_OfProcess):
    kind: ClassVar[str] = "postmaster-killed"
    about: ClassVar[str] = "SIGKILL to the primary's main process"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 3.0)

    def pids(self) -> list[int]:
        """See _OfProcess."""
        return [self.database.postmaster(self.target)]


class PostmasterFrozen(_Frozen):
    kind: ClassVar[str] = "postmaster-frozen"
    about: ClassVar[str] = "SIGSTOP to the primary's main process: sessions go on, nobody new is let in"

    def pids(self) -> list[int]:
        """See _OfProcess."""
        return [self.database.postmaster(self.target)]


class BackendKilled(_OfProcess):
    kind: ClassVar[str] = "backend-killed"
    about: ClassVar[str] = "SIGKILL to the process of one client's session, which ends the server"
    process: ClassVar[str] = "trellis_app"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 3.0)


class BackendFrozen(_Frozen):
    kind: ClassVar[str] = "backend-frozen"
    about: ClassVar[str] = "SIGSTOP to the process of one client's session"
    process: ClassVar[str] = "trellis_app"


class WalSenderKilled(_OfProcess):
    kind: ClassVar[str] = "walsender-killed"
    about: ClassVar[str] = "SIGKILL to a process that sends WAL, which ends the server"
    process: ClassVar[str] = "walsender"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 3.0)


class WalSenderFrozen(_Frozen):
    kind: ClassVar[str] = "walsender-frozen"
    about: ClassVar[str] = "SIGSTOP to a process that sends WAL: one standby gets nothing"
    process: ClassVar[str] = "walsender"


class ServerFrozen(_Frozen):
    kind: ClassVar[str] = "postgres-frozen"
    about: ClassVar[str] = "SIGSTOP to all of the primary's PostgreSQL"

    def pids(self) -> list[int]:
        """See _OfProcess."""
        return self.database.servers(self.target)


class PrimaryFrozen(_OfDatabase, HostFrozen):
    kind: ClassVar[str] = "primary-frozen"
    about: ClassVar[str] = "every process of the primary's host stands still for longer than its lease"


class PrimaryKilled(_OfDatabase, HostKilled):
    kind: ClassVar[str] = "primary-killed"
    about: ClassVar[str] = "the primary's machine loses power, and boots again"


class PrimaryIsolated(_OfDatabase, Isolated):
    kind: ClassVar[str] = "primary-isolated"
    about: ClassVar[str] = "nothing reaches the primary's host; sessions on it go on committing"
    lasts_s: ClassVar[tuple[float, float]] = (4.0, 10.0)


class StandbyWiped(_OfDatabase, HostKilled):
    kind: ClassVar[str] = "standby-wiped"
    about: ClassVar[str] = "a standby's machine loses power, and boots without its data"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 4.0)

    def __init__(self, stage: Stage, target: Host, chance: Random) -> None:
        """At the one that was aimed at, or another."""
        super().__init__(stage, target, chance)
        if self.target is stage.primary() or chance.random() < 0.5:
            self.target = chance.choice(stage.others(self.target))

    def heal(self) -> None:
        folder = self.database.data(self.target).parent
        for name in ("data", "data.new", "data.old"):
            shutil.rmtree(folder / name, ignore_errors=True)
        super().heal()


class Switchovers(_OfDatabase):
    kind: ClassVar[str] = "switchover"
    about: ClassVar[str] = "the primary is moved again and again, by whatever host is asked"
    lasts_s: ClassVar[tuple[float, float]] = (1.0, 10.0)
    needs_others: ClassVar[bool] = True

    def inject(self) -> None:
        """Nothing but what `hold` does."""

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            asked = self.chance.choice(self.stage.cluster.hosts)
            to = self.chance.choice(self.stage.others(self.database.wait_open()))
            moved = asked.trellis("db", "switchover", to.name)
            assert moved.returncode == 0, f"{to.name} did not take over: {moved.stderr}"
            if time.monotonic() > until:
                return
            let_pass(self.chance.uniform(0.0, 1.0))

    def heal(self) -> None:
        """It is over when nobody asks any more."""


ALL: tuple[type[Fault], ...] = (
    PostmasterKilled, PostmasterFrozen, BackendKilled, BackendFrozen, WalSenderKilled, WalSenderFrozen,
    ServerFrozen, PrimaryFrozen, PrimaryKilled, PrimaryIsolated, StandbyWiped, Switchovers,
)  # fmt: skip
