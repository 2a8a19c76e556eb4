"""What a fault is: something that is done to a cluster, lasts, and is undone."""

import shutil
from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar

from tests.chaos.stage import Stage
from tests.harness.host import Host
from tests.harness.waiting import let_pass


class Fault(ABC):
    """One fault at one host.

    Order: `inject`, `hold`, `heal`; `heal` also after an `inject` that failed halfway, and then
    nothing of the fault is left: no rule, no process, no device.
    """

    kind: ClassVar[str]
    #: A sentence for people.
    about: ClassVar[str]
    #: How long it lasts, at least and at most; short runs take the least.
    lasts_s: ClassVar[tuple[float, float]] = (2.5, 10.0)
    ends_target: ClassVar[bool] = False
    #: It takes its course only while the other hosts are well.
    needs_others: ClassVar[bool] = False
    #: It strikes the database, so the stage has to have one.
    needs_database: ClassVar[bool] = False
    #: Programs without which it cannot be had.
    programs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, stage: Stage, target: Host, chance: Random) -> None:
        self.stage = stage
        self.target = target
        self.chance = chance

    @classmethod
    def why_not(cls) -> str:
        """Why it cannot be had here; empty when it can."""
        missing = [program for program in cls.programs if shutil.which(program) is None]
        return f"needs {' and '.join(missing)}" if missing else ""

    @abstractmethod
    def inject(self) -> None:
        """Begin."""

    def hold(self, seconds: float) -> None:
        """Let it last. What pulses does so here."""
        let_pass(seconds)

    @abstractmethod
    def heal(self) -> None:
        """Undo it; sidecars that have ended are started by the campaign."""

    def may_end(self, host: Host) -> bool:
        """Whether it ends this sidecar, or the design has it end by itself."""
        return self.ends_target and host is self.target

    @property
    def number(self) -> int:
        return self.stage.number(self.target)

    def __str__(self) -> str:
        return f"{self.kind} at {self.target.name}"
