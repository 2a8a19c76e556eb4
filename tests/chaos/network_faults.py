"""Faults of the network, made at the switch: hosts and clients alike are on it."""

import itertools
import json
import re
import sys
import time
from typing import ClassVar

from tests.chaos.fault import Fault
from tests.harness.host import Host
from tests.harness.waiting import let_pass, wait_for

#: Drops what fits, silently; the bridge forwards frames between the cables of hosts and clients.
_TABLE = """\
table bridge {name} {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    {rules}
  }}
}}
"""


class _Filtered(Fault):
    """Frames are dropped by rules of nftables."""

    programs: ClassVar[tuple[str, ...]] = ("nft",)

    def rules(self) -> list[str]:
        """What is dropped."""
        raise NotImplementedError

    @property
    def _table(self) -> str:
        return f"{self.kind}-{self.number}".replace("-", "_")

    def inject(self) -> None:
        text = _TABLE.format(name=self._table, rules="\n    ".join(self.rules()))
        path = self.stage.cluster.directory / f"{self._table}.nft"
        path.write_text(text)
        self.stage.run("nft", "-f", str(path), at=self.stage.network.at_switch)

    def hold(self, seconds: float) -> None:
        super().hold(seconds)
        listed = self.stage.run(
            "nft", "list", "table", "bridge", self._table, at=self.stage.network.at_switch
        )
        dropped = [int(count) for count in re.findall(r"counter packets (\d+)", listed)]
        assert sum(dropped) > 0, f"{self} dropped nothing: {listed}"

    def heal(self) -> None:
        # Making a table that is there changes nothing, so this removes it in any case.
        for what in ("add", "delete"):
            self.stage.run("nft", what, "table", "bridge", self._table, at=self.stage.network.at_switch)


class Isolated(Fault):
    kind: ClassVar[str] = "isolated"
    about: ClassVar[str] = "nothing reaches a host or comes from it; its link stays up"

    def inject(self) -> None:
        self.stage.network.isolate(self.number)

    def heal(self) -> None:
        self.stage.network.rejoin(self.number)


class Deaf(_Filtered):
    kind: ClassVar[str] = "one-way-in"
    about: ClassVar[str] = "a host hears nobody, and is heard"

    def rules(self) -> list[str]:
        return [f"oifname mesh{self.number} counter drop"]


class Mute(_Filtered):
    kind: ClassVar[str] = "one-way-out"
    about: ClassVar[str] = "a host is heard by nobody, and hears"

    def rules(self) -> list[str]:
        return [f"iifname mesh{self.number} counter drop"]


class PartialPartition(_Filtered):
    kind: ClassVar[str] = "partial-partition"
    about: ClassVar[str] = "two hosts do not hear each other, both hear the third"

    def rules(self) -> list[str]:
        other = self.chance.choice([self.stage.number(host) for host in self.stage.others(self.target)])
        pairs = itertools.permutations((self.number, other))
        return [f"iifname mesh{one} oifname mesh{two} counter drop" for one, two in pairs]


class Loss(_Filtered):
    kind: ClassVar[str] = "loss"
    about: ClassVar[str] = "frames to and from a host are lost at random, up to every third"
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 12.0)

    def rules(self) -> list[str]:
        percent = self.chance.randint(5, 33)
        return [
            f"{way} mesh{self.number} numgen random mod 100 < {percent} counter drop"
            for way in ("iifname", "oifname")
        ]


class Flapping(Fault):
    kind: ClassVar[str] = "flapping"
    about: ClassVar[str] = "a link goes down and up at the pace of elections"
    lasts_s: ClassVar[tuple[float, float]] = (4.0, 20.0)
    #: Around the election timeout of 1.5 to 2.5 s.
    pauses_s: ClassVar[tuple[float, float]] = (0.4, 2.6)

    def inject(self) -> None:
        self.stage.network.link_down(self.number)

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for turn in itertools.cycle((self.stage.network.link_up, self.stage.network.link_down)):
            let_pass(self.chance.uniform(*self.pauses_s))
            turn(self.number)
            if time.monotonic() > until:
                return

    def heal(self) -> None:
        self.stage.network.link_up(self.number)


class Late(Fault):
    kind: ClassVar[str] = "late"
    about: ClassVar[str] = "frames of all hosts are delayed, overtake each other and come twice"
    lasts_s: ClassVar[tuple[float, float]] = (4.0, 15.0)
    programs: ClassVar[tuple[str, ...]] = ("ip",)

    def hosts(self) -> list[Host]:
        """Whose frames."""
        return self.stage.cluster.hosts

    def inject(self) -> None:
        """A process of its own stands between each host's cable and the switch."""
        network = self.stage.network
        order = {
            "hosts": [self.stage.number(host) for host in self.hosts()],
            "seed": self.chance.randrange(1 << 30),
            "delay_ms": [self.chance.randint(0, 5), self.chance.randint(10, 60)],
            "twice_percent": self.chance.randint(0, 5),
            "straggler_percent": self.chance.randint(0, 3),
        }
        words = [*network.at_switch, sys.executable, "-m", "tests.chaos.late_switch", json.dumps(order)]
        self._output = self.stage.cluster.directory / f"late-{time.monotonic_ns()}"
        self._pid = self.stage.program(words, self._output.name)
        said = self._output.with_suffix(".out")
        wait_for(lambda: "ready" in said.read_text(), "the late switch forwards frames", 15.0)

    def heal(self) -> None:
        if not hasattr(self, "_pid"):
            return
        self.stage.end(self._pid)  # its devices end with it
        for number in (self.stage.number(host) for host in self.hosts()):
            self.stage.network.rejoin(number)
            self.stage.run("ip", "link", "delete", f"late{number}", at=self.stage.network.at_switch)


ALL: tuple[type[Fault], ...] = (Isolated, Deaf, Mute, PartialPartition, Loss, Flapping, Late)
