"""The role of one member: who it follows, whom it votes for, when it stands.

Source: Raft paper §5; thesis §3.10 (transfer), §6.4 (reads), §9.6 (pre-vote) and
§6.2 (a leader without a quorum steps down).

```
             timeout                pre-votes won            votes won
  FOLLOWER ──────────► PRE_CANDIDATE ───────────► CANDIDATE ──────────► LEADER
     ▲  a leader or a higher term was heard, or the votes were lost       │
     └──────────────────────────── no quorum, removed, higher term ───────┘
```

Two promises hold back elections. A voter that heard from a leader refuses
everybody else for `election_ticks_min`, unless the leader asked for it or is
certainly dead; after a restart it behaves as if it had just heard one, because
it may have and has forgotten. A leader without a quorum for as long steps down.

Absent here: durability (rawnode.py), what leaders send (leadership.py).
"""

from collections.abc import Callable
from typing import Any

from mesh.errors import InvariantBroken
from mesh.ids import Index, MemberId, Term
from mesh.raft.election import Ballot, Promise, VoterView, grants, vote_reply, vote_requests
from mesh.raft.follower import append, read_memberships, take_chunk
from mesh.raft.leadership import Leadership
from mesh.raft.log import RaftLog
from mesh.raft.model import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    HardState,
    Message,
    RaftSettings,
    ReadState,
    RequestVote,
    RequestVoteReply,
    Restored,
    Role,
    SnapshotChunk,
    SnapshotReply,
    Standing,
    TimeoutNow,
)
from mesh.raft.outbox import Outbox
from mesh.raft.quorum import VoteResult
from mesh.raft.snapshot import Assembly

_FROM_LEADER = (Append, AppendHeartbeat, SnapshotChunk, TimeoutNow)
_REPLIES = (RequestVoteReply, AppendReply, AppendHeartbeatReply, SnapshotReply)
#: The term a bootstrapped log begins with; nobody has ever led in it.
FIRST_TERM = Term(1)


class Core:
    """Role, term, vote and leader of one member.

    Invariant: `leadership` exists exactly while `role` is LEADER; `vote` changes
    only with the term, or once from None.
    """

    def __init__(self, settings: RaftSettings, restored: Restored, jitter: Callable[[int, int], int]) -> None:
        self.id = settings.id
        self.log = RaftLog(restored)
        self.outbox = Outbox(restored.hard_state.term)
        self.role = Role.FOLLOWER
        self.term: Term = restored.hard_state.term
        self.vote: MemberId | None = restored.hard_state.vote
        self.leader: MemberId | None = None
        self.leadership: Leadership | None = None
        self.dropped = 0
        self.reads_confirmed: list[ReadState] = []
        self.reads_lost: list[int] = []
        self._settings = settings
        self._jitter = jitter
        self._now = 0
        self._ballot = Ballot()
        self._assembly = Assembly()
        self._is_hurried = False
        #: Why this member last stood: what a leader may conclude from having been elected.
        self.stood_for = Standing.TIMEOUT
        has_promised = self.term > FIRST_TERM
        self._promise = Promise(settings.election_ticks_min if has_promised else 0)
        self._reset_election_timer()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            RequestVote: self._on_request_vote,
            RequestVoteReply: self._on_vote_reply,
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            AppendHeartbeat: self._on_heartbeat,
            AppendHeartbeatReply: self._on_heartbeat_reply,
            SnapshotChunk: self._on_chunk,
            SnapshotReply: self._on_snapshot_reply,
            TimeoutNow: self._on_timeout_now,
        }

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.commit)

    @property
    def may_campaign(self) -> bool:
        """Voters that hold data stand for election; others only vote.

        A voter whose removal is not committed yet still stands, without a vote of its own.
        """
        log = self.log
        if self.id in log.membership.witnesses or log.installing is not None:
            return False
        return log.history.is_still_voter(self.id, log.commit)

    # ---- time ---------------------------------------------------------------------

    def tick(self) -> None:
        self._now += 1
        refused = self._promise.tick()
        if refused is not None:
            self._answer_again(refused)
        if self.leadership is not None:
            if not self.leadership.tick():
                self._become_follower(self.term, None)
            return
        self._election_elapsed += 1
        is_due = self._election_elapsed >= self._election_timeout and not self._promise.is_binding
        if is_due and self.may_campaign:
            self._become_pre_candidate()
        elif is_due and self.leader is not None:  # who never stands must not keep a leader it does not hear
            self._become_follower(self.term, None)

    def _reset_election_timer(self) -> None:
        low, high = self._settings.election_ticks_min, self._settings.election_ticks_max
        if self._is_hurried:
            low, high = self._settings.heartbeat_ticks, 3 * self._settings.heartbeat_ticks
        self._election_elapsed = 0
        self._election_timeout = self._jitter(low, high)

    # ---- standing for election ------------------------------------------------------

    def campaign(self, *, after_crash: bool) -> None:
        """Stand now, if this member may; with *after_crash* the present leader is certainly dead.

        A promise to a leader that may live binds its maker as well: its own vote would
        help to elect another one while that leader counts on it.
        """
        if after_crash and self.leadership is None:
            self._promise.void()
            self._is_hurried = True
        if self.leadership is None and not self._promise.is_binding and self.may_campaign:
            self._become_pre_candidate()

    def report_crash(self, member: MemberId) -> None:
        """*member* is certainly dead: what was promised to it binds nobody any more."""
        if self.leadership is not None:
            self.leadership.report_unreachable(member)
            self.leadership.give_up_transfer(member)
            return
        if self.leader == member:
            self.leader = None
        self._answer_again(self._promise.void_for(member))

    def _answer_again(self, refused: RequestVote | None) -> None:
        """A pre-vote was refused only for a promise that is over now: who asked need not ask again."""
        if refused is not None and refused.term > self.term:
            self._on_request_vote(refused)

    def _become_pre_candidate(self) -> None:
        self.stood_for = Standing.CRASH_PROOF if self._is_hurried else Standing.TIMEOUT
        self.role = Role.PRE_CANDIDATE
        self.leader = None
        self._reset_election_timer()
        self._ballot = Ballot()
        self._ballot.record(self.id, granted=True)
        self._request_votes(Term(self.term + 1), pre_vote=True, transfer=False)
        self._count_votes()

    def _become_candidate(self, *, transfer: bool) -> None:
        if transfer:
            self.stood_for = Standing.TRANSFER
        self.role = Role.CANDIDATE
        self.leader = None
        self.outbox.withdraw()
        self.term = Term(self.term + 1)
        self.vote = self.id
        self._reset_election_timer()
        self._ballot = Ballot()
        self._assembly.reset()
        self._request_votes(self.term, pre_vote=False, transfer=transfer)

    def _request_votes(self, term: Term, *, pre_vote: bool, transfer: bool) -> None:
        send = self.outbox.ask if pre_vote else self.outbox.promise
        membership, last = self.log.membership, self.log.last
        for request in vote_requests(self.id, membership, term, last, pre_vote=pre_vote, transfer=transfer):
            send(request)

    def _count_votes(self) -> None:
        result = self._ballot.result(self.log.membership)
        if result is VoteResult.LOST:
            self._become_follower(self.term, None)
        elif result is VoteResult.WON and self.role is Role.PRE_CANDIDATE:
            self._become_candidate(transfer=False)
        elif result is VoteResult.WON:
            self._become_leader()

    def vote_durable(self, hard_state: HardState) -> None:
        """*hard_state* is on disk: an own vote in it counts from now on."""
        self.outbox.durable_term = hard_state.term
        is_mine = hard_state.term == self.term and hard_state.vote == self.id
        if self.role is Role.CANDIDATE and is_mine:
            self._ballot.record(self.id, granted=True)
            self._count_votes()

    # ---- changing role ----------------------------------------------------------------

    def _become_follower(self, term: Term, leader: MemberId | None) -> None:
        if self.leadership is not None:
            self.reads_confirmed += self.leadership.take_reads()
            self.reads_lost += self.leadership.abandon_reads()
            self.leadership = None
        if term != self.term:
            self.outbox.withdraw()
            self.term = term
            self.vote = None
            self._assembly.reset()
        if leader is not None:
            self._is_hurried = False
        self.role = Role.FOLLOWER
        self.leader = leader
        self._reset_election_timer()

    def _become_leader(self) -> None:
        self.role = Role.LEADER
        self.leader = self.id
        self._is_hurried = False
        self._promise.void()
        self.leadership = Leadership(self._settings, self.term, self.log, self.outbox, self._now)

    def advance_commit(self) -> None:
        """Commit what a quorum holds, and do what follows from that."""
        leadership = self.leadership
        while leadership is not None and leadership.advance_commit():
            membership = self.log.membership
            if self.log.history.current_index > self.log.commit:
                continue
            if membership.is_joint:
                leadership.leave_joint_state()
            elif not membership.may_lead(self.id):
                self._retire(leadership)
                return

    def _retire(self, leadership: Leadership) -> None:
        """The membership without this leader is committed (paper §6): tell it and step down."""
        leadership.flush()
        successor = leadership.best_successor()
        if successor is not None:
            leadership.ask_to_stand(successor)
        self._become_follower(self.term, None)

    # ---- messages ---------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Take in any message; what is not for this member is counted and dropped untouched."""
        handler = self._handlers.get(type(message))
        if handler is None or not self._is_expected(message):
            self.dropped += 1
            return
        if message.term > self.term:
            if not self._on_newer_term(message):
                return
        elif message.term < self.term:
            self._on_older_term(message)
            return
        handler(message)

    def _is_expected(self, message: Message) -> bool:
        """Only members are believed when they answer; requests may come from members unknown yet."""
        if message.to != self.id or message.sender == self.id:
            return False
        return not isinstance(message, _REPLIES) or self.log.membership.is_member(message.sender)

    def _on_newer_term(self, message: Message) -> bool:
        """Adopt the term if the message proves that it exists; False when it ends here."""
        if isinstance(message, RequestVote):
            is_bound = self.leadership is not None or self._promise.is_binding
            if is_bound and not message.transfer:
                if message.pre_vote:
                    self._promise.refuse(message)
                    self._answer_vote(message, granted=False)
                return False
            if message.pre_vote:
                return True
        if isinstance(message, RequestVoteReply) and message.pre_vote and message.granted:
            return message.term == self.term + 1
        from_leader = isinstance(message, _FROM_LEADER)
        self._become_follower(message.term, message.sender if from_leader else None)
        return True

    def _on_older_term(self, message: Message) -> None:
        """Tell a leader or candidate of the past which term it is, so that nobody stays stuck."""
        if isinstance(message, RequestVote):
            self._answer_vote(message, granted=False)
        elif isinstance(message, RequestVoteReply):
            if message.pre_vote and not message.granted:
                self._on_vote_reply(message)
        elif isinstance(message, _FROM_LEADER):
            self.outbox.promise(
                AppendReply(
                    sender=self.id,
                    to=message.sender,
                    term=self.term,
                    matched=Index(0),
                    rejected=True,
                )
            )

    # ---- votes ------------------------------------------------------------------------

    def _on_request_vote(self, message: RequestVote) -> None:
        view = VoterView(self.term, self.vote, self.leader, self.log.is_up_to_date(message.last))
        granted = grants(view, message)
        if granted and not message.pre_vote:
            self.vote = message.sender
            self._reset_election_timer()
            if message.transfer:  # nobody waited for it, so what others may conclude begins here
                self._promise.make(message.sender, self._settings.election_ticks_min)
        self._answer_vote(message, granted=granted)

    def _answer_vote(self, message: RequestVote, *, granted: bool) -> None:
        send = self.outbox.ask if message.pre_vote else self.outbox.promise
        send(vote_reply(message, self.term, granted=granted))

    def _on_vote_reply(self, message: RequestVoteReply) -> None:
        awaited = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
        # A granted pre-vote carries the term that was asked about: this one is of an earlier round.
        is_of_before = message.pre_vote and message.granted and message.term <= self.term
        if self.role is awaited and not is_of_before:
            self._ballot.record(message.sender, granted=message.granted)
            self._count_votes()

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        if self.leader == message.sender and self.may_campaign:
            self._become_candidate(transfer=True)

    # ---- from the leader ----------------------------------------------------------------

    def _follow(self, leader: MemberId) -> None:
        if self.leader not in (None, leader):
            raise InvariantBroken(f"two leaders in term {self.term}: {self.leader} and {leader}")
        if self.leader is None or self.role is not Role.FOLLOWER:
            self._become_follower(self.term, leader)
        self._election_elapsed = 0
        self._promise.make(leader, self._settings.election_ticks_min)

    def _on_append(self, message: Append) -> None:
        memberships = read_memberships(message)
        if memberships is None:
            self.dropped += 1
            return
        self._follow(message.sender)
        self.outbox.promise(append(self.log, message, memberships))

    def _on_heartbeat(self, message: AppendHeartbeat) -> None:
        self._follow(message.sender)
        self.log.commit_to(message.commit)
        self.outbox.state(
            AppendHeartbeatReply(sender=self.id, to=message.sender, term=self.term, round=message.round)
        )

    def _on_chunk(self, message: SnapshotChunk) -> None:
        self._follow(message.sender)
        bytes_max = self._settings.snapshot_bytes_max
        reply = take_chunk(self.log, self._assembly, message, bytes_max)
        if reply is None:
            self.dropped += 1
        else:
            self.outbox.promise(reply)

    # ---- answers to a leader --------------------------------------------------------------

    def _on_append_reply(self, message: AppendReply) -> None:
        leadership = self.leadership
        if leadership is None:
            return
        if message.matched > self.log.last_index:
            self.dropped += 1
        elif leadership.hear_append_reply(message):
            self.advance_commit()

    def _on_heartbeat_reply(self, message: AppendHeartbeatReply) -> None:
        if self.leadership is not None:
            self.leadership.hear_heartbeat_reply(message)

    def _on_snapshot_reply(self, message: SnapshotReply) -> None:
        if self.leadership is not None and self.leadership.hear_snapshot_reply(message):
            self.advance_commit()
