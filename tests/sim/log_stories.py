"""Stories for the checkers of what disks, logs and votes go through."""

from tests.sim.checkers.committed_is_durable import CommittedIsDurable
from tests.sim.checkers.elected_by_quorum import ElectedByQuorum
from tests.sim.checkers.election_safety import ElectionSafety
from tests.sim.checkers.leader_completeness import LeaderCompleteness
from tests.sim.checkers.log_matching import LogMatching
from tests.sim.checkers.safe_from_elections import SafeFromElections
from tests.sim.checkers.snapshots_of_members import SnapshotsOfMembers
from tests.sim.checkers.state_machine_safety import StateMachineSafety
from tests.sim.checkers.votes_and_terms import VotesAndTerms
from tests.sim.told import (
    ON_TWO_DISKS,
    THREE,
    TWO,
    Stories,
    acked,
    applied,
    committed,
    compacted,
    entry,
    founded,
    installed,
    joint,
    leads,
    start,
    stored,
    voted,
)  # fmt: skip
from tests.sim.trace import Checker

STORIES: dict[type[Checker], Stories] = {
    VotesAndTerms: Stories(
        kept={
            "durable, then told": [*founded(), stored("a", term=2, vote="b"), voted("a", 2, "b")],
            "told again after a restart": [
                *founded(), stored("a", term=2, vote="b"), voted("a", 2, "b"),
                start("a", term=2, vote="b"), voted("a", 2, "b"), stored("a", term=3), acked("a", 1, 3),
            ],
            "acknowledged what is on the disk": [*founded(), stored("a", TWO), acked("a", 2)],
        },
        broken={
            "a vote that is told before it is durable": [*founded(), voted("a", 2, "b")],
            "two votes in a term": [
                *founded(), stored("a", term=2, vote="b"), voted("a", 2, "b"),
                stored("a", term=2, vote="c"),
            ],
            "a vote in a term that was left": [
                *founded(), stored("a", term=3), acked("a", 1, 3), stored("a", term=3, vote="c"),
                voted("a", 2, "c"),
            ],
            "a vote that a restart forgot": [
                *founded(), stored("a", term=2, vote="b"), start("a", term=2),
            ],
            "a term that a restart forgot": [*founded(), stored("a", term=2), start("a", term=1)],
            "a commit index that falls": [*founded(), stored("a", TWO, commit=2), stored("a", commit=1)],
            "a log that a restart has shortened": [
                *founded(), stored("a", TWO), start("a", term=1, last=1),
            ],
            "an acknowledgement before the disk": [*founded(), acked("a", 2)],
            "an acknowledgement in a term that is not durable": [*founded(), acked("a", 1, 2)],
            "an empty disk under an old name": [
                *founded(), stored("a", term=2, vote="b"), voted("a", 2, "b"), start("a", new=True),
            ],
        },
    ),
    ElectionSafety: Stories(
        kept={"one after another": [leads("a", 2), leads("a", 2), leads("b", 3)]},
        broken={"two in a term": [leads("a", 2), leads("b", 3), leads("c", 2)]},
    ),
    LogMatching: Stories(
        kept={
            "the same entries": [
                *founded(), stored("a", TWO, THREE), stored("b", TWO), stored("b", THREE),
            ],
            "a witness without the data": [*founded(), stored("a", entry(2, 1, b"")), stored("b", TWO)],
            "after a snapshot": [
                *founded(), stored("a", TWO, THREE), installed("b", 2, 1), stored("b", THREE),
            ],
            "a conflict is replaced": [
                *founded(), stored("a", TWO), stored("b", entry(2, 2)),
                stored("a", entry(2, 2), entry(3, 2)),
            ],
        },
        broken={
            "two commands at one place": [*founded(), stored("a", TWO), stored("b", entry(2, 1, b"z"))],
            "another entry before it": [
                *founded(), stored("a", TWO, entry(3, 3)), stored("b", entry(2, 2), entry(3, 3)),
            ],
            "a gap": [*founded(), stored("a", THREE)],
        },
    ),
    LeaderCompleteness: Stories(
        kept={
            "has it": [*ON_TWO_DISKS, committed("a", TWO), leads("b", 2)],
            "has it in a snapshot": [
                *ON_TWO_DISKS, committed("a", TWO), installed("c", 2, 1), leads("c", 2),
            ],
            "what is committed later is not asked for": [
                *ON_TWO_DISKS, leads("c", 1), committed("a", TWO),
            ],
        },
        broken={
            "lacks it": [*ON_TWO_DISKS, committed("a", TWO), leads("c", 2)],
            "has another": [*ON_TWO_DISKS, committed("a", TWO), stored("c", entry(2, 2)), leads("c", 3)],
            "told to be committed when the next already leads": [
                *ON_TWO_DISKS, leads("c", 2), committed("a", TWO),
            ],
        },
    ),
    CommittedIsDurable: Stories(
        kept={
            "on two of three disks": [*ON_TWO_DISKS, committed("c", TWO), committed("a", TWO)],
            "covered by a snapshot": [
                *ON_TWO_DISKS, committed("a", TWO), compacted("a", 2, 1), installed("c", 2, 1),
                stored("a", THREE), stored("c", THREE), committed("a", THREE),
            ],
            "the tail that nobody committed is replaced": [
                *ON_TWO_DISKS, committed("a", TWO), stored("a", THREE), stored("a", entry(3, 2)),
            ],
            "joint, on both majorities": [
                *founded(), *(stored(each, joint(2, 1, "abd", "abc")) for each in "ab"),
                committed("a", joint(2, 1, "abd", "abc")),
            ],
        },
        broken={
            "on one disk": [*founded(), stored("a", TWO), committed("a", TWO)],
            "on another term's disks": [
                *founded(), stored("a", TWO), stored("b", entry(2, 2)), committed("a", TWO),
            ],
            "a committed entry is replaced": [
                *ON_TWO_DISKS, committed("a", TWO), stored("b", entry(2, 2)),
            ],
            "a committed entry is cut off": [
                *ON_TWO_DISKS, stored("a", THREE), stored("b", THREE), committed("a", TWO, THREE),
                stored("b", TWO),
            ],
            "a snapshot of what is not committed": [*ON_TWO_DISKS, compacted("a", 2, 1)],
            "a learner counted as a voter": [
                *founded(), stored("a", TWO), stored("d", TWO), committed("a", TWO),
            ],
            "joint, on one majority": [
                *founded(), *(stored(each, joint(2, 1, "ade", "abc")) for each in "ade"),
                committed("a", joint(2, 1, "ade", "abc")),
            ],
        },
    ),
    ElectedByQuorum: Stories(
        kept={
            "two of three": [*founded(), voted("b", 2, "a"), leads("a", 2)],
            "both halves": [
                *founded(), stored("a", joint(2, 1, "abd", "abc")), voted("b", 2, "a"), leads("a", 2),
            ],
        },
        broken={
            "its own vote": [*founded(), leads("a", 2)],
            "votes of another term": [*founded(), voted("b", 2, "a"), leads("a", 3)],
            "a learner": [
                *founded(), stored("d", joint(2, 1, "abc", "")), voted("a", 2, "d"), voted("b", 2, "d"),
                leads("d", 2),
            ],
            "one half": [
                *founded(), stored("a", joint(2, 1, "ade", "abc")), voted("d", 2, "a"), leads("a", 2),
            ],
        },
    ),
    SafeFromElections: Stories(
        kept={
            "on a quorum's disks": [*ON_TWO_DISKS, stored("c", term=2), committed("a", TWO)],
            "another log is longer, of an older term": [
                *founded(), *(stored(each, entry(2, 2)) for each in "ab"), stored("c", TWO, THREE),
                committed("a", entry(2, 2)),
            ],
            "with an entry of this term after it": [
                *founded(), stored("c", entry(2, 2)), *(stored(each, TWO, entry(3, 3)) for each in "ab"),
                committed("a", TWO, entry(3, 3)),
            ],
            "a learner without it": [*ON_TWO_DISKS, stored("d", entry(2, 5)), committed("a", TWO)],
        },
        broken={
            "of an earlier term, by counting": [
                *ON_TWO_DISKS, stored("c", entry(2, 2)), committed("a", TWO),
            ],
            "on one disk": [*founded(), stored("a", TWO), committed("a", TWO)],
        },
    ),
    SnapshotsOfMembers: Stories(
        kept={
            "of the founders": [*founded(), committed("a", TWO), compacted("a", 2, 1)],
            "before another membership": [
                *founded(), committed("a", TWO, joint(3, 1, "abd", "abc")), compacted("a", 2, 1),
            ],
        },
        broken={
            "after another membership": [
                *founded(), committed("a", joint(2, 1, "abd", "abc")), compacted("a", 2, 1),
            ],
            "a leader's": [
                *founded(), committed("a", joint(2, 1, "abd", "abc"), THREE), installed("b", 3, 1),
            ],
        },
    ),
    StateMachineSafety: Stories(
        kept={
            "the same": [
                committed("a", TWO, THREE), applied("a", 2, b"h"), committed("b", TWO),
                applied("b", 2, b"h"),
            ],
            "again after a restart": [committed("a", TWO), start("a"), committed("a", TWO, THREE)],
            "a witness": [committed("a", TWO), committed("b", entry(2, 1, b""))],
        },
        broken={
            "two entries at one index": [committed("a", TWO), committed("b", entry(2, 1, b"z"))],
            "two terms at one index": [committed("a", TWO), committed("b", entry(2, 2))],
            "two states": [applied("a", 2, b"h"), applied("b", 2, b"i")],
            "a gap": [committed("a", TWO), committed("a", entry(4, 1))],
            "twice": [committed("a", TWO), committed("a", TWO)],
        },
    ),
}  # fmt: skip
