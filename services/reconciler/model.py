"""What the reconciler sees in the mesh, and what it may do there."""

from dataclasses import dataclass
from typing import Final

from mesh.errors import TrellisError
from mesh.state.service import ServiceSpec

#: Set in the environment of every service that it declares: "INSTALLATION/DEPLOYMENT".
MARK: Final = "LCM_OWNER"


@dataclass(frozen=True, slots=True)
class Declared:
    """A service of the mesh."""

    spec: ServiceSpec
    version: int
    stopped: bool = False
    #: Instances that take traffic and run this version.
    ready: int = 0
    #: Why fewer are ready than declared; empty when enough are.
    degraded_reason: str = ""

    @property
    def mark(self) -> str:
        return dict(self.spec.environment).get(MARK, "")


@dataclass(frozen=True, slots=True)
class Apply:
    """Declare a service, if it is still at *expected_version* (0: not there)."""

    spec: ServiceSpec
    expected_version: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a service everywhere and forget its declaration, if it is still at *expected_version*."""

    service: str
    expected_version: int


Action = Apply | Stop


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for one deployment, in order.

    `begin`: first make it durable that the operation has begun; do nothing else in this round.
    """

    begin: bool = False
    #: It was refused a moment ago: leave it as it is.
    resting: bool = False
    actions: tuple[Action, ...] = ()
    #: Why it cannot be brought about; empty when it can.
    refusal: TrellisError | None = None
