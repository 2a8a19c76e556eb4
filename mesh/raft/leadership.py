"""What a leader keeps for one term: made when elected, dropped when it steps down.

Because nothing here outlives the term, no answer to an earlier leadership can
be mistaken for one to this. Everything is sent in `flush`, once per Ready, so
that proposals and reads which arrive together travel together.
"""

from dataclasses import dataclass

from mesh.errors import Conflict, QueueFull, Unavailable
from mesh.ids import Index, MemberId, Term
from mesh.raft import quorum
from mesh.raft.confchange import leave_joint, plan_change
from mesh.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from mesh.raft.model import (
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    Membership,
    PeerStatus,
    ProgressMode,
    RaftSettings,
    ReadState,
    SnapshotReply,
    TimeoutNow,
)
from mesh.raft.outbox import Outbox
from mesh.raft.readonly import Reads, Rounds
from mesh.raft.replication import (
    Feeder,
    hear_append_reply,
    hear_snapshot_reply,
    total_bytes,
)
from mesh.raft.tracker import Inflights, Progress


@dataclass(slots=True)
class Transfer:
    """A handover under way (thesis §3.10): proposals are refused until it ends."""

    to: MemberId
    started_tick: int


class Leadership:
    """Replication, commitment, reads and handover of one leader in one term.

    Invariant: only entries of this term are committed by counting (paper §5.4.2);
    the leader counts itself by what is durable here, and only while it votes.
    """

    def __init__(self, settings: RaftSettings, term: Term, log: RaftLog, outbox: Outbox, now: int) -> None:
        self.settings = settings
        self.term = term
        self.transfer: Transfer | None = None
        self.peers: dict[MemberId, Progress] = {}
        self._log = log
        self._outbox = outbox
        self._now = now
        self._feeder = Feeder(settings, term, log, outbox)
        self._rounds = Rounds()
        self._reads = Reads()
        self._released: list[ReadState] = []
        self._was_asked_to_stand = False
        self._heartbeat_elapsed = 0
        self._uncommitted_bytes = total_bytes(log.uncommitted())
        self._is_dirty = True
        self._follow_membership()
        self.term_start: Index = self._append(EntryKind.NOOP, b"", None)
        self._start_round()

    # ---- proposals ----------------------------------------------------------------

    def propose(self, data: bytes) -> EntryId:
        """Append a command. Fails: `Unavailable` while handing over, `QueueFull` at the bound."""
        if self.transfer is not None:
            raise Unavailable(f"leadership is being transferred to {self.transfer.to}; propose again shortly")
        size = ENTRY_OVERHEAD_BYTES + len(data)
        bound = self.settings.uncommitted_bytes_max
        if self._uncommitted_bytes and self._uncommitted_bytes + size > bound:
            raise QueueFull(
                f"{self._uncommitted_bytes} bytes are waiting for a quorum (at most {bound});"
                " propose again when the followers have caught up"
            )
        return EntryId(self.term, self._append(EntryKind.COMMAND, data, None))

    def propose_membership(self, target: Membership) -> EntryId:
        """Append the first step towards *target*. Fails: see `plan_change`, and `propose`."""
        if self.transfer is not None:
            raise Unavailable(f"leadership is being transferred to {self.transfer.to}")
        if not self.has_committed:
            raise Unavailable("this leader has not committed an entry in its term yet")
        log = self._log
        if log.history.current_index > log.commit:
            raise Conflict(
                f"the membership at index {log.history.current_index} is not committed yet;"
                " wait for it and ask again"
            )
        return EntryId(self.term, self.append_membership(plan_change(log.membership, target)))

    def append_membership(self, membership: Membership) -> Index:
        """Append *membership*; it counts from now on."""
        index = self._append(EntryKind.MEMBERSHIP, membership.encode(), membership)
        self._follow_membership()
        if self.transfer is not None and not membership.may_lead(self.transfer.to):
            self.transfer = None
        return index

    def leave_joint_state(self) -> None:
        """Append the membership that ends the joint state."""
        self.append_membership(leave_joint(self._log.membership))

    def _append(self, kind: EntryKind, data: bytes, membership: Membership | None) -> Index:
        index = Index(self._log.last_index + 1)
        self._log.append(Entry(index, self.term, kind, data), membership)
        self._uncommitted_bytes += ENTRY_OVERHEAD_BYTES + len(data)
        self._is_dirty = True
        return index

    def _follow_membership(self) -> None:
        membership = self._log.membership
        for member in [each for each in self.peers if not membership.is_member(each)]:
            del self.peers[member]
        for member in membership.members:
            if member == self.settings.id:
                continue
            if member not in self.peers:
                self.peers[member] = Progress(
                    id=member,
                    next=Index(self._log.last_index + 1),
                    inflights=Inflights(self.settings.inflight_max),
                    heard_tick=self._now,
                )
            self.peers[member].is_witness = member in membership.witnesses

    # ---- committing -----------------------------------------------------------------

    @property
    def has_committed(self) -> bool:
        """Whether an entry of this term is committed; before, the commit index may be old."""
        return self._log.commit >= self.term_start

    def advance_commit(self) -> bool:
        """Commit what a quorum holds; True when the commit index rose."""
        log = self._log
        index = Index(quorum.agreed(log.membership, self._durable_at))
        if index <= log.commit or log.term_at(index) != self.term:
            return False
        newly = log.slice(Index(log.commit + 1), index, self._uncommitted_bytes)
        self._uncommitted_bytes -= total_bytes(newly)
        had_committed = self.has_committed
        log.commit_to(index)
        if not had_committed:
            self._reads.wake_early(log.commit)
        self._is_dirty = True
        return True

    def _durable_at(self, member: MemberId) -> int:
        return self._log.stable if member == self.settings.id else self.peers[member].matched

    # ---- answers from peers -----------------------------------------------------------

    def hear_append_reply(self, reply: AppendReply) -> bool:
        """Take in *reply*; True when the commit index may have moved."""
        peer = self._heard(reply.sender)
        self._is_dirty = True
        is_news = hear_append_reply(peer, reply, self._log)
        self._ask_to_stand(peer)
        return is_news

    def hear_snapshot_reply(self, reply: SnapshotReply) -> bool:
        """Take in *reply*; True when the commit index may have moved."""
        peer = self._heard(reply.sender)
        self._is_dirty = True
        return hear_snapshot_reply(peer, reply)

    def hear_heartbeat_reply(self, reply: AppendHeartbeatReply) -> None:
        """Count the echo; look after a follower that lags although it is alive."""
        peer = self._heard(reply.sender)
        if self._rounds.newest >= reply.round > peer.round:
            peer.round = reply.round
            self._confirm_rounds()
        peer.paused = False
        is_lagging = peer.matched < self._log.last_index
        if is_lagging and self._now - peer.poked_tick >= self.settings.heartbeat_ticks:
            peer.poke = peer.mode is ProgressMode.REPLICATE
            peer.poked_tick = self._now
        self._is_dirty = True
        self._ask_to_stand(peer)

    def report_unreachable(self, member: MemberId) -> None:
        """Messages to *member* were lost: stop sending ahead."""
        peer = self.peers.get(member)
        if peer is not None and peer.mode is ProgressMode.REPLICATE:
            peer.to_probe()
            peer.paused = True

    def _heard(self, member: MemberId) -> Progress:
        peer = self.peers[member]
        peer.heard_tick = self._now
        return peer

    # ---- rounds, reads, lease ---------------------------------------------------------

    def read_index(self, request: int) -> None:
        """Queue a read. Fails: `QueueFull` at `reads_max`."""
        if len(self._reads) >= self.settings.reads_max:
            raise QueueFull(f"{len(self._reads)} reads are waiting for a quorum; ask again shortly")
        if self.has_committed:
            self._reads.add(request, self._log.commit)
        else:
            self._reads.add_early(request)
        self._is_dirty = True

    def lease_read_index(self) -> Index | None:
        """The commit index, if no other leader can have been elected yet; see `RawNode`."""
        age = self.quorum_confirmed_ticks_ago()
        if age is None or not self.has_committed or self._was_asked_to_stand:
            return None
        if self.transfer is not None or age >= self.settings.election_ticks_min - 1:
            return None
        return self._log.commit

    def quorum_confirmed_ticks_ago(self) -> int | None:
        tick = self._rounds.confirmed_tick
        return None if tick is None else self._now - tick

    @property
    def confirmed_round(self) -> int:
        """The newest round that a quorum, this leader included, has echoed; 0: none yet."""
        return self._rounds.confirmed

    def _start_round(self) -> None:
        number = self._rounds.start(self._now)
        self._reads.assign(number)
        self._heartbeat_elapsed = 0
        commit = self._log.commit
        for peer in self.peers.values():
            self._outbox.state(
                AppendHeartbeat(
                    sender=self.settings.id,
                    to=peer.id,
                    term=self.term,
                    commit=min(peer.matched, commit),
                    round=number,
                )
            )
        self._confirm_rounds()

    def _confirm_rounds(self) -> None:
        self._rounds.confirm(quorum.agreed(self._log.membership, self._echoed_by))
        self._released += self._reads.release(self._rounds.confirmed)

    def _echoed_by(self, member: MemberId) -> int:
        return self._rounds.newest if member == self.settings.id else self.peers[member].round

    # ---- handing over -------------------------------------------------------------------

    def start_transfer(self, to: MemberId) -> None:
        """Hand over to *to* as soon as it holds the whole log."""
        if self.transfer is not None and self.transfer.to == to:
            return
        self.transfer = Transfer(to, self._now)
        self._ask_to_stand(self.peers[to])

    def give_up_transfer(self, to: MemberId) -> None:
        """*to* can not take over."""
        if self.transfer is not None and self.transfer.to == to:
            self.transfer = None

    def _ask_to_stand(self, peer: Progress) -> None:
        if self.transfer is None or self.transfer.to != peer.id:
            return
        if peer.matched == self._log.last_index:
            self.ask_to_stand(peer.id)

    def ask_to_stand(self, member: MemberId) -> None:
        """Let *member* ignore leases and stand; from now on this leader's lease proves nothing."""
        self._was_asked_to_stand = True
        self._outbox.state(TimeoutNow(sender=self.settings.id, to=member, term=self.term))

    def best_successor(self) -> MemberId | None:
        """The voter that is furthest, if this leader has to go."""
        membership = self._log.membership
        fit = [peer for peer in self.peers.values() if membership.may_lead(peer.id)]
        return max(fit, key=lambda peer: peer.matched).id if fit else None

    # ---- time ---------------------------------------------------------------------------

    def tick(self) -> bool:
        """One tick; False when no quorum was heard for an election timeout."""
        self._now += 1
        self._heartbeat_elapsed += 1
        transfer = self.transfer
        if transfer and self._now - transfer.started_tick >= self.settings.election_ticks_min:
            self.transfer = None
        if self._now - self._quorum_heard_tick() >= self.settings.election_ticks_min:
            return False
        if self._heartbeat_elapsed >= self.settings.heartbeat_ticks:
            self._start_round()
            self._is_dirty = True
        return True

    def _quorum_heard_tick(self) -> int:
        return quorum.agreed(self._log.membership, self._heard_at)

    def _heard_at(self, member: MemberId) -> int:
        return self._now if member == self.settings.id else self.peers[member].heard_tick

    # ---- towards the next Ready -----------------------------------------------------------

    def flush(self) -> None:
        """Put everything that may be sent into the outbox."""
        if not self._is_dirty:
            return
        self._is_dirty = False
        if self._reads.need_round:
            self._start_round()
        for peer in self.peers.values():
            self._feeder.feed(peer, self._now)

    @property
    def has_reads(self) -> bool:
        return bool(self._released)

    def take_reads(self) -> list[ReadState]:
        """Confirmed reads, once."""
        taken, self._released = self._released, []
        return taken

    def abandon_reads(self) -> list[int]:
        """Every read that was not confirmed; leadership has ended."""
        return self._reads.abandon()

    def peer_statuses(self) -> tuple[PeerStatus, ...]:
        return tuple(
            peer.status(recently_active=self._feeder.is_active(peer, self._now))
            for peer in self.peers.values()
        )
