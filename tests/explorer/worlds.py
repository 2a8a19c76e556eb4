"""Small worlds: who is there, how it begins, and how much trouble there may be.

A world is finite. Every bound is a budget that the whole path shares (two
crashes are two, wherever they strike), or a limit on what a state may hold.
"""

from dataclasses import dataclass, replace
from typing import Final

from mesh.ids import MemberId
from mesh.raft import Membership

#: Ticks: a leader's round takes one, a promise lasts two, standing for election takes three.
TICKS: Final = {"heartbeat_ticks": 1, "election_ticks_min": 2, "election_ticks_max": 3}


@dataclass(frozen=True)
class World:
    """One search. Zero means: this kind of trouble is absent."""

    name: str
    #: Lines of a story that lead to the first state; afterwards the network is empty.
    prologue: tuple[str, ...]
    #: No term above this one; the founding log has term 1, so terms - 1 elections.
    terms: int
    #: Append-heartbeat rounds of one leadership.
    rounds: int = 2
    #: Messages that wait on one link (one direction of a pair); at the bound any one of them is lost.
    link: int = 2
    proposals: int = 0
    crashes: int = 0
    #: Arrivals after which the message arrives once more.
    duplicates: int = 0
    #: Times that a disk takes so long that messages, time or a crash come before it is done.
    stalls: int = 0
    reads: int = 0
    transfers: int = 0
    compactions: int = 0
    #: Memberships to ask for, one after the other.
    changes: tuple[Membership, ...] = ()
    #: Members that may change names without changing anything.
    free: str = ""
    #: A crash is noticed by everybody else, sooner or later.
    has_crash_proof: bool = False
    #: Clocks tick one by one, at most one tick apart, and leases are checked.
    has_leases: bool = False


def founding(voters: str, **options: int) -> str:
    """The first line of a prologue."""
    words = [f"{name}={value}" for name, value in {**TICKS, **options}.items()]
    return " ".join(["voters", *voters, *words])


#: A tick first, so that no clock stands at its very beginning: that would be a state of its own.
_ELECTED: Final = ("tick a b c n=1", "campaign a", "deliver")
_FOUR: Final = Membership.of(map(MemberId, "abcd"))
_WITHOUT_C: Final = Membership.of(map(MemberId, "abd"))
_WITHOUT_A: Final = Membership.of(map(MemberId, "bcd"))
#: A command is committed, but only the leader knows; c has not heard of it.
_UNEVEN: Final = (
    "propose a o",
    "drain a",
    "pass a>b",
    "drain b",
    "pass b>a",
    "drain a",
    "lose",
)
#: The paper's figure 8 (c): each of a and b holds an entry of a term that the other has not; a leads again.
_FIGURE_8: Final = (
    "holds a term=3 log=2 vote=a",
    "holds b term=3 log=3 vote=b",
    "holds c term=3 vote=b",
    "deliver",
    "tick a b c n=2",
    "campaign a",
    "drain a",
    "pass a>c",
    "drain c",
    "pass c>a",
    "drain a",
    "lose a>b",
    "pass a>c",
    "drain c",
    "pass c>a",
    "drain a",
    "lose a>b",
)


#: c has missed a command that is compacted away.
_BEHIND: Final = ("isolate c", "propose a o", "deliver", "compact a", "heal", "unreachable a member=c")
ABC: Final = "abc"
_FOUNDED: Final = (founding("abc"), "deliver", "tick a b c n=1")
_LED: Final = (founding("abc"), "deliver", *_ELECTED)
_JOINED: Final = (founding("abc"), "deliver", "join d", "tick d n=1", *_ELECTED)
_FOUR_LED: Final = (founding("abcd"), "deliver", "tick d n=1", *_ELECTED)
_TICKING: Final = (founding("abc", election_ticks_min=3, election_ticks_max=3), "deliver", *_ELECTED)
_SNAPSHOT: Final = (founding("abc", trailing_entries=0, chunk_bytes=20), "deliver", *_ELECTED, *_BEHIND)
_DIVIDED: Final = (founding("abc", append_bytes_max=1), "deliver", *_FIGURE_8)


def _full(name: str, prologue: tuple[str, ...]) -> World:
    """Three elections, two commands, two crashes, and everything that a network does."""
    return World(
        name,
        prologue,
        terms=4,
        proposals=2,
        crashes=2,
        duplicates=1,
        stalls=1,
        free=ABC,
    )


_WORLDS: Final = (
    # Three founders, nothing has happened yet; and the same with a leader.
    _full("three", _FOUNDED),
    _full("three-led", _LED),
    World("three-narrow", _LED, terms=4, link=1, proposals=2, crashes=2, free=ABC),
    # One election, every way it can go.
    World("election", _FOUNDED, terms=2, rounds=1, link=1, crashes=1, free=ABC),
    World("rival", _LED, terms=3, link=1, proposals=1, crashes=1, free=ABC),
    World("slow-disks", _LED, terms=3, link=1, proposals=1, stalls=2, free=ABC),
    World("figure-8", _DIVIDED, terms=5, link=1, rounds=1, crashes=1, free=ABC),
    World("reads", _LED, terms=3, reads=2, proposals=1, duplicates=1, free=ABC),
    World("reads-uneven", (*_LED, *_UNEVEN), terms=3, link=1, reads=1, crashes=1, free=ABC),
    World("transfer", _LED, terms=4, link=1, transfers=2, proposals=1, crashes=1, free=ABC),
    World("leases", _TICKING, terms=3, rounds=3, crashes=1, proposals=1, transfers=1, has_leases=True),
    World(
        "snapshots",
        _SNAPSHOT,
        terms=3,
        rounds=3,
        link=1,
        crashes=1,
        stalls=1,
        compactions=1,
        free=ABC,
    ),
    World(
        "crash-proof",
        _LED,
        terms=3,
        link=2,
        proposals=1,
        crashes=1,
        has_crash_proof=True,
        free=ABC,
    ),
    # Joint consensus: in, out, out with the leader, and in and out again.
    World("grow", _JOINED, terms=3, link=1, crashes=1, proposals=1, changes=(_FOUR,)),
    World("shrink", _FOUR_LED, terms=3, link=1, crashes=1, stalls=1, changes=(_WITHOUT_C,)),
    World("leader-leaves", _FOUR_LED, terms=3, link=1, crashes=1, changes=(_WITHOUT_A,)),
    World("three-four-three", _JOINED, terms=3, rounds=1, link=1, crashes=1, changes=(_FOUR, _WITHOUT_C)),
)

WORLDS: Final = {world.name: world for world in _WORLDS}


def _small(name: str, **bounds: int) -> World:
    return replace(WORLDS[name], name=f"{name}-small", **bounds)  # type: ignore[arg-type] # bounds are numbers


#: For continuous integration: most of them are searched to the end in seconds.
SMALL: Final = {
    world.name: world
    for world in (
        _small("election", crashes=0),
        _small("rival", crashes=0, proposals=0, rounds=1),
        _small("reads-uneven", crashes=0, rounds=1),
        _small("grow", crashes=0, proposals=0, terms=2, rounds=1),
        _small("three-four-three", crashes=0, terms=2),
    )
}
