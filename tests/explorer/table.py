"""Every different host, message and step of one search, each met once.

The core is deterministic, so what a move does to a host depends on the two
alone: the real core runs once per (host, move), and all the global states in which
that happens share the result. There are some hundred hosts' situations for
a million global states; that is why the search is fast.

A global state's digest is the sum of the digests of its parts, so a move
changes it by a few additions. There is one digest per renaming of the
interchangeable members, side by side in the *lanes* of one large number;
the least of them stands for all (symmetry reduction).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

from mesh.ids import MemberId
from mesh.raft import (
    AppendHeartbeatReply,
    AppendReply,
    RequestVoteReply,
    SnapshotReply,
)
from tests.explorer import ghost as watching
from tests.explorer.clone import check_fields
from tests.explorer.encode import Encoded, Namer, digest, encode_host
from tests.explorer.ghost import Ghost, View
from tests.explorer.host import CrashSeen, Host, Move, act
from tests.explorer.violation import Disabled
from tests.explorer.worlds import World

#: A lane holds a digest and room for the sum of 65,536 of them.
LANE_BITS: Final = 128
LANE_BYTES: Final = LANE_BITS // 8
_REPLIES: Final = (AppendReply, AppendHeartbeatReply, SnapshotReply, RequestVoteReply)


@dataclass(slots=True)
class Step:
    """What a move leads to at one host."""

    #: The host afterwards.
    to: int
    #: How the sum of digests changes, messages apart.
    change: int
    sends: tuple[int, ...]
    #: Its log, commit, disk, role or state is another one, so the checks must look.
    is_loud: bool
    has_synced: bool


@dataclass(slots=True)
class Known:
    """One situation of one host."""

    host: Host
    digest: int
    view: View
    #: Equal for equal volatile logs.
    log: int
    is_leader: bool
    is_slow: bool
    disk_term: int
    #: move → step; None: refused or out of bounds, or nothing would change.
    steps: dict[int, Step | None]


class Table:
    """Interned parts; numbers stand for them everywhere else."""

    def __init__(self, world: World, members: Sequence[MemberId]) -> None:
        self.world = world
        self.members = tuple(members)
        self.namers = [Namer(numbers) for numbers in renamings(members, world.free)]
        self.hosts: list[Known] = []
        self.moves: list[Move] = []
        #: For a delivery: who hears it, on which link, its digest; else -1, -1, 0.
        self.hears: list[int] = []
        self.link: list[int] = []
        self.digests: list[int] = []
        self.ghosts: list[Ghost] = []
        self.ghost_digests: list[int] = []
        self.runs = 0
        self._host_numbers: dict[int, int] = {}
        self._move_numbers: dict[Move, int] = {}
        self._ghost_numbers: dict[Ghost, int] = {}
        self._logs: dict[Any, int] = {}
        self._budgets: dict[int, int] = {}
        self._dead: dict[tuple[int, int], bool] = {}
        self._position = {member: number for number, member in enumerate(members)}

    # ---- parts and their numbers ------------------------------------------------------

    def lanes(self, encoded: Sequence[Encoded]) -> int:
        """The digests of a part under every renaming."""
        total = 0
        for lane, each in enumerate(encoded):
            total |= digest(each) << (LANE_BITS * lane)
        return total

    def intern_host(self, host: Host) -> int:
        first = encode_host(host, self.namers[0], self.world)
        key = digest(first)
        number = self._host_numbers.get(key)
        if number is None:
            check_fields(host.node)
            others = [encode_host(host, each, self.world) for each in self.namers[1:]]
            view = View.of(host)
            log = self._logs.setdefault((view.origin, view.entries), len(self._logs))
            number = self._host_numbers[key] = len(self.hosts)
            self.hosts.append(
                Known(
                    host=host,
                    digest=self.lanes([first, *others]),
                    view=view,
                    log=log,
                    is_leader=view.is_leader,
                    is_slow=host.flight is not None,
                    disk_term=host.disk.hard_state.term,
                    steps={},
                )
            )
        return number

    def intern_move(self, move: Move) -> int:
        number = self._move_numbers.get(move)
        if number is None:
            number = self._move_numbers[move] = len(self.moves)
            self.moves.append(move)
            message: Any = move.argument
            is_delivery = move.kind == "deliver"
            to = self._position[message.to] if is_delivery else -1
            sender = self._position[message.sender] if is_delivery else -1
            self.hears.append(to)
            self.link.append(sender * len(self.members) + to if is_delivery else -1)
            encoded = [each.message(message) for each in self.namers] if is_delivery else []
            self.digests.append(self.lanes(encoded))
        return number

    def intern_ghost(self, ghost: Ghost) -> int:
        number = self._ghost_numbers.get(ghost)
        if number is None:
            number = self._ghost_numbers[ghost] = len(self.ghosts)
            self.ghosts.append(ghost)
            self.ghost_digests.append(self.lanes([("ghost", ghost.encode(each)) for each in self.namers]))
        return number

    def budget_digest(self, budget: int) -> int:
        known = self._budgets.get(budget)
        if known is None:
            known = self._budgets[budget] = self.lanes([("budget", budget)] * len(self.namers))
        return known

    # ---- steps ------------------------------------------------------------------------

    def run(self, number: int, move: int, *, stalled: bool) -> Step | None:
        """Run the real core, and remember what it did."""
        known = self.hosts[number]
        try:
            step = self._run(number, self.moves[move], stalled=stalled)
        except Disabled:
            step = None
        if step is not None and step.to == number and not step.sends:
            step = None
        known.steps[move << 1 | stalled] = step
        return step

    def _run(self, number: int, move: Move, *, stalled: bool) -> Step:
        old = self.hosts[number]
        self.runs += 1
        outcome = act(old.host, move, stalled=stalled)
        self._check_bounds(outcome.host, outcome.sent)
        sent = list(outcome.sent)
        if self.world.has_crash_proof and move.kind.startswith("crash"):
            sent += [CrashSeen(old.view.id, each) for each in self.members if each != old.view.id]
        sends = tuple(dict.fromkeys(self.intern_move(Move("deliver", each)) for each in sent))
        to = self.intern_host(outcome.host)
        new = self.hosts[to]
        return Step(
            to=to,
            change=new.digest - old.digest,
            sends=sends,
            is_loud=_looks(old.view) != _looks(new.view),
            has_synced=outcome.has_synced,
        )

    def _check_bounds(self, host: Host, sent: list[Any]) -> None:
        world, leadership = self.world, host.node._core.leadership
        if any(each.term > world.terms for each in sent):
            raise Disabled("a term beyond the world's")
        if leadership is not None and leadership._rounds.newest > world.rounds:
            raise Disabled("a round beyond the world's")

    def is_dead(self, number: int, message: int) -> bool:
        """Whether *message* will never again mean anything to this host, so that it can be forgotten.

        That is so for an answer of a term below the host's durable one, since terms never
        fall: the core ignores it. The refusal of a pre-vote is still counted, and its grant
        holds for the term that was asked about, which lies above the asker's.
        """
        known = self._dead.get((number, message))
        if known is None:
            said: Any = self.moves[message].argument
            term = self.hosts[number].disk_term
            known = isinstance(said, _REPLIES) and said.term < term
            if isinstance(said, RequestVoteReply) and said.pre_vote:
                known = said.granted and said.term <= term
            if known and self.run(number, message, stalled=False) is not None:
                raise AssertionError(f"{said} of a term gone by was not ignored")
            self._dead[number, message] = known
        return known

    def observe(self, ghost: int, number: int) -> int:
        """See `ghost.observe`; by numbers."""
        return self.intern_ghost(watching.observe(self.ghosts[ghost], self.hosts[number].view))


def _looks(view: View) -> tuple[object, ...]:
    return (
        view.is_leader and view.term, view.origin, view.entries, view.commit, view.applied, view.state,
        view.disk_base, view.disk,
    )  # fmt: skip


def renamings(members: Sequence[MemberId], free: str) -> list[dict[MemberId, int]]:
    """Every way to number the members that leaves those that are not *free* their own number."""
    position = {member: number for number, member in enumerate(members)}
    named = [each for each in members if each in free]
    numbers = [position[each] for each in named]
    return [{**position, **dict(zip(named, order, strict=True))} for order in permutations(numbers)]


def canonical(lanes: int) -> Callable[[int], bytes]:
    """From the sum of digests to the key of a state: the least lane."""
    length = (lanes + 1) * LANE_BYTES

    def least(total: int) -> bytes:
        text = total.to_bytes(length, "little")
        return min([text[start : start + LANE_BYTES] for start in range(0, lanes * LANE_BYTES, LANE_BYTES)])

    def only(total: int) -> bytes:
        return total.to_bytes(length, "little")[:LANE_BYTES]

    return only if lanes == 1 else least
