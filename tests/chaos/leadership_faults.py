"""What operators may do at the worst moment."""

import time
from contextlib import suppress
from typing import ClassVar

import grpc
from trellis.cluster.v1 import cluster_pb2

from tests.chaos.fault import Fault
from tests.harness.waiting import let_pass


class TransferStorm(Fault):
    kind: ClassVar[str] = "transfer-storm"
    about: ClassVar[str] = "leadership is handed over again and again, faster than anyone should"
    lasts_s: ClassVar[tuple[float, float]] = (4.0, 10.0)

    def inject(self) -> None:
        """Nothing but what `hold` does."""

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asked, to = (self.chance.choice(self.stage.cluster.hosts) for _ in range(2))
            request = cluster_pb2.TransferLeadershipRequest(host=to.name)
            with suppress(grpc.RpcError):  # refused while another is under way
                asked.cluster.TransferLeadership(request, timeout=2.0)
            let_pass(self.chance.uniform(0.05, 0.8))

    def heal(self) -> None:
        """It is over when nobody asks any more."""


ALL: tuple[type[Fault], ...] = (TransferStorm,)
