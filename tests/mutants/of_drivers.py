"""Guards of the drivers: what is stored before it is told, what callers are told, and in which order."""

from typing import Final

from tests.mutants.mutant import Mutant

DRIVER, CONSENSUS, WAITING, APPLYING = "mesh.driver", "mesh.consensus", "mesh.waiting", "mesh.applying"

STORING: Final = (
    Mutant(
        "promises-sent-at-once",
        "What must wait for the disk leaves with the rest.",
        DRIVER,
        "RaftDriver._begin",
        "self._send(ready.messages)",
        "self._send([*ready.messages, *ready.messages_after_durable])",
    ),
    Mutant(
        "term-and-vote-not-stored",
        "Entries are stored without the term and the vote.",
        DRIVER,
        "RaftDriver._begin",
        "replace(ready, hard_state=late) if late and not ready.hard_state else ready",
        "replace(ready, hard_state=None)",
        profile="disks",
    ),
    Mutant(
        "entries-not-stored",
        "Only one entry of a batch is stored.",
        DRIVER,
        "RaftDriver._begin",
        "replace(ready, hard_state=late) if late and not ready.hard_state else ready",
        "replace(ready, entries=ready.entries[:1])",
        profile="disks",
    ),
    Mutant(
        "failed-write-is-believed",
        "A write that failed counts as durable.",
        DRIVER,
        "RaftDriver._stored",
        "error is not None",
        "False",
        profile="disks",
    ),
    Mutant(
        "nothing-waits-for-the-disk",
        "No write is waited for.",
        DRIVER,
        "RaftDriver._begin",
        "not ready.must_sync",
        "True",
    ),
)

ANSWERS: Final = (
    Mutant(
        "another-leaders-entry-is-mine",
        "A command that another leader's entry replaced is reported as done.",
        WAITING,
        "PendingProposals.applied",
        "term == entry.term",
        "True",
        profile="histories",
    ),
    Mutant(
        "unknown-is-called-refused",
        "A command whose fate is open is reported as certainly not done.",
        WAITING,
        "PendingProposals.give_up",
        "OutcomeUnknown(reason, index=index)",
        "_overtaken(index)",
        profile="histories",
    ),
    Mutant(
        "timeout-is-called-refused",
        "A command that took too long is reported as certainly not done.",
        DRIVER,
        "RaftDriver.propose",
        "OutcomeUnknown(f'no quorum confirmed the command within {timeout_s:.1f} s')",
        "NoLeader(f'no quorum confirmed the command within {timeout_s:.1f} s')",
        profile="storm",
    ),
    Mutant(
        "an-earlier-attempt-is-forgotten",
        "An attempt was refused for certain; that an earlier one is of unknown fate is not told.",
        CONSENSUS,
        "Consensus.propose_anywhere",
        "raise unknown or failure",
        "raise failure",
        profile="histories",
    ),
    Mutant(
        "answered-when-appended",
        "A command is reported as done when the leader has appended it.",
        DRIVER,
        "RaftDriver.submit",
        "self._proposals.add(entry, answered)",
        "self._proposals.add(entry, lambda _: None), answered(Applied(entry.index, "
        "__import__('mesh.state.commands', fromlist=['']).Applied(entry.index, version=1)))",
    ),
    Mutant(
        "read-answered-before-applied",
        "A follower answers a read before it has applied what the read must see.",
        CONSENSUS,
        "Consensus.read_barrier",
        "await self.driver.wait_applied(index, timeout_s=deadline - loop.time())",
        "index",
        profile="histories",
    ),
    Mutant(
        "read-joins-a-round-under-way",
        "A read is answered by a question that was asked before it came.",
        WAITING,
        "PendingReads.add",
        "self._next.append(future)",
        "(self._asked or self._next).append(future)",
        profile="reads",
    ),
    Mutant(
        "read-asks-nobody",
        "A host answers reads from what it has applied itself.",
        CONSENSUS,
        "Consensus._read_once",
        "self.driver.role is Role.LEADER",
        "self.driver.leader is None",
        profile="disks",
    ),
)

ORDER: Final = (
    Mutant(
        "applied-in-another-order",
        "A batch is applied from its end.",
        APPLYING,
        "Applier.apply",
        "outcome = self._machine.apply(entry.index, entry.data)",
        "outcome = self._machine.apply(entry.index, committed[-1 - list(committed).index(entry)].data)",
        profile="disks",
    ),
    Mutant(
        "end-of-a-batch-not-applied",
        "Only the first entries of a batch are applied.",
        APPLYING,
        "Applier.apply",
        "entry.kind is EntryKind.COMMAND and (not (is_witness or (may_be_witness and (not entry.data))))",
        "entry.kind is EntryKind.COMMAND and not is_witness and entry not in committed[2:]",
        profile="disks",
    ),
    Mutant(
        "witness-leads",
        "A witness stands for election: it leads with a log that holds no data.",
        "mesh.raft.core",
        "Core.may_campaign",
        "self.id in log.membership.witnesses or log.installing is not None",
        "False",
        profile="witness",
    ),
    Mutant(
        "leads-without-a-vote",
        "A learner stands for election.",
        "mesh.raft.core",
        "Core.may_campaign",
        "log.history.is_still_voter(self.id, log.commit)",
        "True",
        profile="witness",
    ),
    Mutant(
        "leader-without-a-quorum-stays",
        "A leader that hears nobody goes on leading.",
        "mesh.raft.leadership",
        "Leadership.tick",
        "self._now - self._quorum_heard_tick() >= self.settings.election_ticks_min",
        "False",
        profile="deaf",
    ),
    Mutant(
        "old-leaderships-go-on",
        "The loop of a leadership goes on after it has ended.",
        "sidecar.app.node",
        "Node._end_duty",
        "self._task.cancel()",
        "pass",
        profile="owners",
    ),
    Mutant(
        "decisions-outlive-their-term",
        "What was decided from the leases of one term enters the log of another leader: while a write takes"
        " long, the loop of a leadership goes on for a moment after it is over.",
        "sidecar.app.leading",
        "Leading._propose",
        "self._replica.propose_leading(command, term=self._term, timeout_s=timeout_s,"
        " at_ns=self._wall_ns(), trace_id=trace)",
        "self._replica.propose(command, timeout_s=timeout_s, at_ns=self._wall_ns(), trace_id=trace)",
        profile="deposed",
    ),
)

MUTANTS: Final = (*STORING, *ANSWERS, *ORDER)
