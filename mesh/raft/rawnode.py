"""`RawNode`: the public face of the consensus core.

The loop that the host must run is in the package's docstring.
"""

from collections.abc import Callable, Collection, Iterable

from mesh.errors import Conflict, InvalidRequest, InvariantBroken, NotLeader, Problem
from mesh.ids import Index, MemberId, Term
from mesh.raft.core import FIRST_TERM, Core
from mesh.raft.leadership import Leadership
from mesh.raft.model import (
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftSettings,
    Ready,
    Restored,
    Role,
    Snapshot,
    SoftState,
    Standing,
    Status,
)
from mesh.raft.snapshot import take_snapshot


def first_log(voters: Iterable[MemberId], learners: Iterable[MemberId] = ()) -> Restored:
    """The log a founding member starts with: one committed membership, index 1, term 1.

    Every founding member must start with the same one, and store it before it
    starts. A member that joins later starts with an empty `Restored`.
    """
    data = Membership.of(voters, learners).encode()
    entry = Entry(Index(1), FIRST_TERM, EntryKind.MEMBERSHIP, data)
    return Restored(HardState(FIRST_TERM, None, Index(1)), None, (entry,))


class RawNode:
    """One member's consensus, without I/O, clock or chance.

    Order: `ready` → the host's duties → `advance`, one at a time; `step`, `tick`,
    `propose` and the rest may come at any moment in between.
    Fails: any method may raise `InvariantBroken`; the process must then end.
    """

    def __init__(self, settings: RaftSettings, restored: Restored, jitter: Callable[[int, int], int]) -> None:
        """*jitter(low, high)* draws a number of ticks, both ends included."""
        self._settings = settings
        self._core = Core(settings, restored, jitter)
        self._hard_state = restored.hard_state
        core = self._core
        self._soft_state = SoftState(core.role, core.leader, core.term)
        self._outstanding: Ready | None = None

    @staticmethod
    def bootstrap(voters: Iterable[MemberId], learners: Iterable[MemberId] = ()) -> Restored:
        """See `first_log`."""
        return first_log(voters, learners)

    # ---- input ----------------------------------------------------------------------

    def tick(self, ticks: int = 1) -> None:
        """So many units of time have passed."""
        for _ in range(ticks):
            self._core.tick()

    def step(self, message: Message) -> None:
        """Take in a message from another member; any message, in any state."""
        self._core.step(message)

    def propose(self, data: bytes) -> EntryId:
        """Append a command; where it will stand if it is committed.

        Another entry committed at that index means that it was lost. Fails:
        `NotLeader`; `QueueFull` while too much is uncommitted; `Unavailable` while
        leadership is being transferred.
        """
        return self._leading("propose").propose(data)

    def propose_membership(self, target: Membership) -> EntryId:
        """Start the change to *target* (see `Membership.of`), through the joint state if voters change.

        The leader leaves the joint state by itself as soon as it is committed; the
        change is done when `Status.membership` equals *target*. A voter that becomes a
        learner does so at that moment.

        Fails: `NotLeader`; `Conflict` while another change is under way;
        `InvalidRequest`; `Unavailable` before the first commit of the term and
        while leadership is being transferred.
        """
        return self._leading("change the membership").propose_membership(target)

    def read_index(self, request: int) -> None:
        """Ask which index must be applied before *request* may be answered (thesis §6.4).

        The answer is in `Ready.reads`, or the request in `Ready.reads_lost`.
        Fails: `NotLeader`; `QueueFull`.
        """
        self._leading("confirm a read").read_index(request)

    def lease_read_index(self) -> Index | None:
        """The index to wait for before a read, without asking anybody; None: use `read_index`.

        Holds while a quorum has echoed a round sent less than `election_ticks_min` - 1
        ticks ago: until then those voters refuse every candidate (one tick is kept
        for the phase of their clocks). Given up for the rest of the term once a transfer
        was tried, because its target may ignore the promise at any later time.
        Assumes that members' ticks are equally long, but for that margin.
        """
        leadership = self._core.leadership
        return leadership.lease_read_index() if leadership is not None else None

    def transfer_leadership(self, to: MemberId) -> None:
        """Hand over to *to*: let it catch up, then stand at once (thesis §3.10).

        Proposals are refused until it is done or an election timeout has passed.
        Fails: `NotLeader`; `Conflict` when *to* can not lead or leads already.
        """
        leadership = self._leading("transfer leadership")
        if to == self._core.id:
            raise Conflict(f"{to} leads already")
        if not self._core.log.membership.may_lead(to):
            raise Conflict(f"{to} can not lead: only voters that hold data can")
        leadership.start_transfer(to)

    def campaign(self, after_crash: bool = False) -> None:
        """Stand for election now (with a pre-vote), if this member may lead and does not.

        Nothing happens while it is bound by its promise to a leader heard less than
        `election_ticks_min` ago, or to one it may have heard before a restart.

        *after_crash*: the leader is certainly dead. Until a leader is heard this
        member then tries again after a few heartbeats instead of a whole timeout.
        """
        self._core.campaign(after_crash=after_crash)

    def report_crash(self, member: MemberId) -> None:
        """*member*'s process is certainly dead (its kernel refused a connection).

        If it was the leader, others may have this member's vote at once.
        """
        self._core.report_crash(member)

    def report_unreachable(self, member: MemberId) -> None:
        """Messages to *member* could not be delivered; it is probed until it answers."""
        if self._core.leadership is not None:
            self._core.leadership.report_unreachable(member)

    def stagger(self, dead: MemberId | Collection[MemberId]) -> int | None:
        """This member's rank among the voters that may lead and are not *dead*; None: it may not.

        Members that wait rank × some milliseconds before `campaign` do not split the vote.
        """
        gone = {dead} if isinstance(dead, str) else set(dead)
        membership = self._core.log.membership
        fit = [each for each in membership.all_voters if membership.may_lead(each)]
        ranked = [each for each in fit if each not in gone or each == self._core.id]
        return ranked.index(self._core.id) if self._core.id in ranked else None

    def compact(self, index: Index, data: bytes) -> Snapshot:
        """*data* is the state machine after *index*: make it the snapshot, drop what it covers.

        The newest `trailing_entries` stay for followers that are a little behind.
        The snapshot does not come back in a Ready: the caller stores it, and only
        then may delete stored entries up to its index. Until it is stored, a restart
        finds the older snapshot and all entries, which is equally right.

        Fails: `Conflict` when *index* is not applied or not after the present
        snapshot; `InvalidRequest` for more than `snapshot_bytes_max`.
        """
        log = self._core.log
        if index > log.applied:
            raise Conflict(f"index {index} is not applied yet; {log.applied} is")
        if log.snapshot is not None and index <= log.snapshot.meta.last.index:
            raise Conflict(f"there is a snapshot at {log.snapshot.meta.last.index} already")
        term = log.term_at(index)
        if term is None:
            raise Conflict(f"index {index} is not in the log; it begins at {log.first_index}")
        bound = self._settings.snapshot_bytes_max
        if len(data) > bound:
            problem = Problem("data", f"{len(data)} bytes, at most {bound} are allowed")
            raise InvalidRequest("the snapshot is too large to be sent", [problem])
        snapshot = take_snapshot(EntryId(term, index), log.history.at(index), data)
        log.compact(snapshot, self._settings.trailing_entries)
        return snapshot

    # ---- output ---------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` would hold anything. Collects what there is to send: ask once per turn."""
        core, log, hard, soft = self._core, self._core.log, self._hard_state, self._soft_state
        leadership = core.leadership
        if leadership is not None:
            leadership.flush()
        return bool(
            core.outbox
            or log.stable < log.last_index
            or log.installing
            or core.reads_confirmed
            or core.reads_lost
            or (leadership is not None and leadership.has_reads)
            # Field by field: asked several times a heartbeat, and the answer is mostly no.
            or log.commit != hard.commit
            or core.term != hard.term
            or core.vote != hard.vote
            or core.leader != soft.leader
            or core.role is not soft.role
            or log.is_applicable
        )

    def ready(self) -> Ready:
        """What there is to do now; see `Ready` for the order.

        A `snapshot` replaces everything stored, entries on both sides of it included.
        """
        if self._outstanding is not None:
            raise InvariantBroken("ready() was called again before advance()")
        core = self._core
        if core.leadership is not None:
            core.leadership.flush()
            core.reads_confirmed += core.leadership.take_reads()
        at_once, after_durable = core.outbox.take()
        known, known_soft = self._hard_state, self._soft_state
        hard_state, soft_state = self._present_hard_state(), self._present_soft_state()
        entries = core.log.unstable()
        has_new_promise = (hard_state.term, hard_state.vote) != (known.term, known.vote)
        self._outstanding = Ready(
            messages=at_once,
            hard_state=hard_state if hard_state is not known else None,
            entries=entries,
            snapshot=core.log.installing,
            messages_after_durable=after_durable,
            committed=core.log.applicable(self._settings.committed_bytes_max),
            reads=core.reads_confirmed,
            reads_lost=core.reads_lost,
            soft_state=soft_state if soft_state is not known_soft else None,
            must_sync=bool(entries) or core.log.installing is not None or has_new_promise,
        )
        core.reads_confirmed, core.reads_lost = [], []
        self._hard_state, self._soft_state = hard_state, soft_state
        return self._outstanding

    def advance(self, ready: Ready) -> None:
        """The duties of *ready* are done."""
        if ready is not self._outstanding:
            raise InvariantBroken("advance() without its ready()")
        self._outstanding = None
        core = self._core
        if ready.snapshot is not None:
            core.log.mark_installed(ready.snapshot)
        if ready.entries:
            core.log.mark_durable(ready.entries[-1].id)
        if ready.committed:
            core.log.mark_applied(ready.committed[-1].index)
        if ready.hard_state is not None:
            core.vote_durable(ready.hard_state)
        core.advance_commit()

    # ---- looking --------------------------------------------------------------------

    @property
    def id(self) -> MemberId:
        return self._core.id

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def term(self) -> Term:
        return self._core.term

    @property
    def leader(self) -> MemberId | None:
        return self._core.leader

    @property
    def commit(self) -> Index:
        return self._core.log.commit

    @property
    def applied(self) -> Index:
        return self._core.log.applied

    @property
    def membership(self) -> Membership:
        return self._core.log.membership

    @property
    def dropped(self) -> int:
        """Messages thrown away before they could touch any state."""
        return self._core.dropped

    @property
    def stood_for(self) -> Standing:
        """Why this member last stood for election; on a leader: how it came to lead."""
        return self._core.stood_for

    @property
    def is_alone(self) -> bool:
        """This member alone is a quorum."""
        membership = self._core.log.membership
        return membership.voters == (self.id,) and not membership.is_joint

    @property
    def confirmed_round(self) -> int | None:
        """On a leader: the newest append-heartbeat round that a quorum echoed; else None."""
        leadership = self._core.leadership
        return leadership.confirmed_round if leadership is not None else None

    def status(self) -> Status:
        """Everything worth showing; not for hot paths."""
        core, log, leadership = self._core, self._core.log, self._core.leadership
        transfer = leadership.transfer if leadership is not None else None
        return Status(
            id=core.id,
            role=core.role,
            term=core.term,
            vote=core.vote,
            leader=core.leader,
            commit=log.commit,
            applied=log.applied,
            first_index=log.first_index,
            last=log.last,
            membership=log.membership,
            transferring_to=transfer.to if transfer is not None else None,
            quorum_confirmed_ticks_ago=(
                leadership.quorum_confirmed_ticks_ago() if leadership is not None else None
            ),
            peers=leadership.peer_statuses() if leadership is not None else (),
            dropped=core.dropped,
        )

    def _present_hard_state(self) -> HardState:
        """As it is now: the known one, while nothing in it is another."""
        core, known = self._core, self._hard_state
        is_known = core.log.commit == known.commit and core.term == known.term and core.vote == known.vote
        return known if is_known else core.hard_state

    def _present_soft_state(self) -> SoftState:
        """As `_present_hard_state`."""
        core, known = self._core, self._soft_state
        is_known = core.role is known.role and core.leader == known.leader and core.term == known.term
        return known if is_known else SoftState(core.role, core.leader, core.term)

    def _leading(self, what: str) -> Leadership:
        leadership = self._core.leadership
        if leadership is None:
            leader = self._core.leader
            known = f"ask {leader}" if leader else "no leader is known; try again shortly"
            raise NotLeader(f"only the leader can {what}; {known}", leader=leader or "")
        return leadership
