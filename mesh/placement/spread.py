"""One service's instances over hosts, changed step by step, each with its reason."""

from collections.abc import Mapping

from mesh.ids import HostId
from mesh.placement.model import HostRoom
from mesh.state.model import Slot


class Spread:
    """Where the instances of one active-active service are, while deciding.

    Invariant: `load` counts the instances of all services on each host, with
    those of this one as they are here. Ties are broken by load, then by name.
    """

    def __init__(
        self, rooms: Mapping[HostId, HostRoom], before: tuple[Slot, ...], load: dict[HostId, int]
    ) -> None:
        self._rooms = rooms
        self._load = load
        self._on: dict[HostId, list[int]] = {host: [] for host in rooms}
        self._gone = tuple(slot for slot in before if slot.host not in rooms)
        for slot in sorted(before):
            if slot.host in rooms:
                self._on[slot.host].append(slot.ordinal)
        self.reasons: list[str] = []

    def slots(self) -> tuple[Slot, ...]:
        return tuple(
            sorted(Slot(host, ordinal) for host, ordinals in self._on.items() for ordinal in ordinals)
        )

    def leave_hosts(self) -> None:
        """Takes every instance off hosts that may not keep it."""
        for slot in self._gone:
            self.reasons.append(f"{slot.host} is no longer in the cluster")
        for host, room in self._rooms.items():
            if self._on[host] and not room.keeps:
                self.reasons.append(f"{host} {'is draining' if room.alive else 'is lost'}")
                self._load[host] -= len(self._on[host])
                self._on[host].clear()

    def shrink(self, wanted: int) -> None:
        """Takes the instances beyond `wanted` off the fullest hosts."""
        while self._count() > wanted:
            host = max(self._rooms, key=self._fullness)
            self._take(host)
            self.reasons.append(f"one less on {host}: {wanted} are wanted")

    def grow(self, wanted: int) -> None:
        """Adds instances on the emptiest hosts, as far as any host accepts one."""
        while self._count() < wanted:
            host = self._emptiest()
            if host is None:
                return
            self._add(host)
            self.reasons.append(f"one more on {host}: {wanted} are wanted")

    def level(self) -> None:
        """Moves instances while two hosts differ by two or more."""
        while (to := self._emptiest()) is not None:
            origin = max(self._rooms, key=self._fullness)
            if len(self._on[origin]) - len(self._on[to]) < 2:
                return
            self._take(origin)
            self._add(to)
            self.reasons.append(f"one moved from {origin} to {to}, to spread evenly")

    def _count(self) -> int:
        return sum(len(ordinals) for ordinals in self._on.values())

    def _fullness(self, host: HostId) -> tuple[int, int, HostId]:
        return len(self._on[host]), self._load[host], host

    def _emptiest(self) -> HostId | None:
        return min(
            (host for host, room in self._rooms.items() if room.accepts), key=self._fullness, default=None
        )

    def _take(self, host: HostId) -> None:
        self._on[host].remove(max(self._on[host]))
        self._load[host] -= 1

    def _add(self, host: HostId) -> None:
        """With the smallest ordinal that is free there."""
        used = self._on[host]
        used.append(next(each for each in range(len(used) + 1) if each not in used))
        self._load[host] += 1
