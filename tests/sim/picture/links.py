"""What was wrong with the links between hosts, as spans with a sentence each."""

from collections.abc import Mapping
from typing import Any, Final

from mesh.ids import HostId
from tests.sim.network import Link

#: What `Link` has when nothing is wrong.
CALM: Final = Link()

Pair = tuple[HostId, HostId]
#: cut, clogged, or the weather: loss, doubling, jitter, delay.
Trouble = tuple[str, float, float, int, int]


class Links:
    """Looked at from time to time; spans begin and end with a look."""

    def __init__(self, hosts: list[HostId]) -> None:
        self._hosts = hosts
        self._now: dict[Pair, tuple[int, Trouble]] = {}
        self._past: dict[tuple[int, int, Trouble], list[Pair]] = {}
        #: [at, by host: how many of the others it does not reach both ways]
        self.unreached: list[list[Any]] = []

    def look(self, at: int, links: Mapping[Pair, Link]) -> None:
        """How the links are at this moment."""
        now = self._now
        if not now and all(link.is_plain and link.delay_ns == CALM.delay_ns for link in links.values()):
            return
        for pair, link in links.items():
            trouble, before = _trouble(link), now.get(pair)
            if before is not None and before[1] != trouble:
                self._close(pair, at)
                before = None
            if before is None and trouble is not None:
                now[pair] = (at, trouble)
        self._note_reach(at)

    def _note_reach(self, at: int) -> None:
        bad = {pair for pair, (_, trouble) in self._now.items() if trouble[0]}
        counts = [
            sum((host, other) in bad or (other, host) in bad for other in self._hosts) for host in self._hosts
        ]
        if (self.unreached[-1][1:] if self.unreached else [0] * len(counts)) != counts:
            self.unreached.append([at, *counts])

    def _close(self, pair: Pair, at: int) -> None:
        since, trouble = self._now.pop(pair)
        self._past.setdefault((since, at, trouble), []).append(pair)

    def end(self, at: int) -> None:
        """The run is over."""
        for pair in list(self._now):
            self._close(pair, at)

    def bands(self) -> list[list[Any]]:
        """[from, to, kind, sentence], those that began and ended together as one."""
        return [
            [since, until, trouble[0] or "weather", f"{_what(trouble)}: {self._which(pairs)}"]
            for (since, until, trouble), pairs in sorted(self._past.items(), key=lambda each: each[0][:2])
        ]

    def _which(self, pairs: list[Pair]) -> str:
        """The directions in few words."""
        if len(pairs) == len(self._hosts) * (len(self._hosts) - 1):
            return "all links"
        both = {frozenset(pair) for pair in pairs if (pair[1], pair[0]) in pairs}
        if 2 * len(both) == len(pairs):
            return self._sides(both) or ", ".join("–".join(sorted(each)) for each in sorted(both, key=sorted))
        sources, targets = {a for a, _ in pairs}, {b for _, b in pairs}
        if len(sources) * len(targets) == len(pairs):
            return f"{_names(sources)} → {_names(targets)}"
        if len(pairs) > 6:
            return f"{len(pairs)} directions"
        return ", ".join(f"{a}→{b}" for a, b in pairs)

    def _sides(self, both: set[frozenset[HostId]]) -> str:
        """Two groups between which everything is cut; empty when it is none."""
        first = self._hosts[0]
        other = {host for host in self._hosts if frozenset((first, host)) in both}
        one = {host for host in self._hosts if host not in other}
        if both == {frozenset((a, b)) for a in one for b in other}:
            small, large = sorted((one, other), key=lambda side: (len(side), sorted(side)))
            return f"{_names(small)} | {_names(large)}"
        return ""


def _trouble(link: Link) -> Trouble | None:
    if link.is_cut:
        return ("cut", 0, 0, 0, 0)
    if link.clogged is not None:
        return ("clogged", 0, 0, 0, 0)
    if link.is_plain and link.delay_ns == CALM.delay_ns:
        return None
    return ("", link.loss, link.twice, link.jitter_ns, link.delay_ns)


def _what(trouble: Trouble) -> str:
    kind, loss, twice, jitter, delay = trouble
    if kind == "cut":
        return "cut"
    if kind == "clogged":
        return "clogged (held back, then let go at once)"
    told = []
    if loss:
        told.append(f"{loss:.0%} lost")
    if twice:
        told.append(f"{twice:.0%} doubled")
    if jitter:
        told.append(f"up to {jitter / 1e6:g} ms late, out of order")
    return ", ".join([*told, f"{delay / 1e6:g} ms on the way"])


def _names(hosts: set[HostId]) -> str:
    return " ".join(sorted(hosts))
