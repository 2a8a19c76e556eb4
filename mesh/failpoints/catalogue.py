"""Every failpoint: its name, what has and has not happened there, and what it can really raise.

A name is WHERE.STEP or WHERE.WHAT.STEP; the first part is the piece of code it stands in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Raises(Enum):
    """The kinds of error that a place can really raise; `error` makes one of them."""

    NOTHING = "nothing"
    #: mesh.errors.StorageFailed
    STORAGE = "storage"
    #: OSError with EIO
    OS = "os"
    #: What a broken gRPC stream or call raises; in a simulator its counterpart.
    STREAM = "stream"
    #: mesh.errors.PeerUnreachable: certainly not done.
    UNREACHABLE = "unreachable"
    #: mesh.errors.OutcomeUnknown
    UNKNOWN = "unknown"
    #: mesh.errors.Unavailable
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One named place."""

    name: str
    text: str
    raises: Raises
    #: It stands in a coroutine: a stall awaits, and others go on meanwhile.
    awaits: bool


_NOTHING, _STORAGE, _OS, _STREAM = Raises.NOTHING, Raises.STORAGE, Raises.OS, Raises.STREAM
_UNREACHABLE, _UNKNOWN, _UNAVAILABLE = Raises.UNREACHABLE, Raises.UNKNOWN, Raises.UNAVAILABLE

_Row = tuple[str, Raises, str]

#: Places that do not await.
_HIT: Final[tuple[_Row, ...]] = (
    # mesh/driver.py
    ("driver.turn.before-send", _NOTHING, "A Ready is taken; nothing of it has left or is stored."),
    ("driver.turn.before-save", _STORAGE, "What need not be durable has left; the write has not begun."),
    ("driver.turn.after-save", _NOTHING, "The write is durable; no promise that rests on it has left."),
    ("driver.turn.after-promises", _NOTHING, "Promises have left; nothing of this turn is applied."),
    ("driver.turn.before-advance", _NOTHING, "Applied and answered; the core has not been told."),
    ("driver.turn.done", _NOTHING, "A turn is over."),
    ("driver.proposal.appended", _NOTHING, "The core has a proposal; nobody waits for its answer yet."),
    ("driver.crash.reported", _NOTHING, "The core knows that another member is dead."),
    ("driver.transfer.begun", _NOTHING, "The core has been asked to hand leadership over."),
    # mesh/applying.py
    ("apply.command.before", _NOTHING, "A committed command is about to be applied."),
    ("apply.command.before-answer", _NOTHING, "A command is applied; its proposer has not been answered."),
    ("apply.membership", _NOTHING, "A committed membership is about to be told to others."),
    ("install.before", _NOTHING, "A leader's snapshot is durable; the state machine is still the old one."),
    ("install.restored", _NOTHING, "The state machine is what the snapshot says."),
    ("compact.due", _NOTHING, "The log is long enough: a snapshot is about to be encoded."),
    ("compact.encoded", _NOTHING, "A snapshot is encoded; the core has not been told."),
    ("compact.before-stage", _NOTHING, "The core has let go of entries; the snapshot is in no file yet."),
    ("compact.staged", _NOTHING, "The snapshot's file is durable; the log still holds what it covers."),
    ("compact.saved", _NOTHING, "The log begins after the snapshot."),
    # mesh/adapters/sqlite_log.py, data_dir.py
    ("log.open.laid-out", _NOTHING, "A new log is laid out; it is not yet on record that there is one."),
    ("log.open.watermark", _STORAGE, "What was found is moved into place; the watermark is not written."),
    ("log.write.before-begin", _STORAGE, "A transaction is about to begin."),
    ("log.write.origin-moved", _STORAGE, "Inside a transaction: entries that a snapshot covers are deleted."),
    ("log.write.entries-written", _STORAGE, "Inside a transaction: the entries are written."),
    ("log.write.before-commit", _STORAGE, "Inside a transaction: all is written, nothing is durable."),
    ("log.write.committed", _STORAGE, "The transaction is durable; the watermark names the one before."),
    ("log.write.marked", _NOTHING, "The watermark names the durable transaction; nobody has been told."),
    ("log.snapshot.before-sync", _OS, "A snapshot's draft is written and not synced."),
    ("log.snapshot.before-rename", _OS, "A snapshot's draft is durable under the wrong name."),
    ("log.snapshot.renamed", _OS, "A snapshot's file has its name, which is not durable yet."),
    ("log.snapshot.before-forget", _NOTHING, "A snapshot is recorded; older files are still there."),
    # mesh/adapters/transport.py, mesh/server.py
    ("transport.sending", _NOTHING, "Messages for others are about to be queued."),
    ("transport.received", _NOTHING, "A message has arrived; the core does not have it."),
    ("transport.broken", _NOTHING, "A stream from or to another member has ended; nobody knows yet."),
    ("server.propose.taken", _UNAVAILABLE, "Another host's proposal has arrived at the leader."),
    ("server.propose.before-answer", _NOTHING, "Another host's proposal is decided, and not answered."),
    # mesh/consensus.py
    ("consensus.read.confirmed", _NOTHING, "The leader has confirmed a read; whoever asked does not know."),
    # sidecar/leadership
    ("beats.answered", _NOTHING, "The leader's answer to a beat has arrived; the lease is as it was."),
    ("beats.own-lease", _NOTHING, "The leader's own lease is about to be counted from a confirmed round."),
    ("heartbeat.before-answer", _NOTHING, "A beat is judged; its answer has not left."),
    ("duty.beat.before-grant", _NOTHING, "A beat is taken in; whether its host gets a lease is not decided."),
    ("duty.beat.granted", _NOTHING, "A lease is on the leader's books; its host does not know."),
    ("duty.before-reserve", _NOTHING, "Owners are decided; grants to the old ones are still open."),
    ("duty.reserved", _NOTHING, "Grants to old owners are closed; nothing is proposed."),
    # sidecar/app
    ("node.leading", _NOTHING, "This member has become leader; its duties have not begun."),
    ("host.step.assigned", _NOTHING, "Instances are assigned; virtual IP and routes are as before."),
    ("host.step.published", _NOTHING, "Routes are published; releases are not reported."),
    ("host.lease-lost", _NOTHING, "The lease has run out; everything exclusive is still there."),
    ("host.gave-way", _NOTHING, "Everything exclusive has been given up."),
    ("host.release.before-report", _NOTHING, "Something is given up; the leader is about to be told."),
    # sidecar/fence/client.py
    ("fence.deadline", _OS, "The lease is extended; the fence process still has the old deadline."),
    # sidecar/supervisor
    ("supervisor.before-spawn", _OS, "An instance is about to be started."),
    ("supervisor.spawned", _OS, "An instance's process runs; no record is written, nobody has been told."),
    ("supervisor.recorded", _OS, "An instance's record is written; nobody has been told."),
    ("supervisor.before-kill", _NOTHING, "An instance's processes are about to be killed."),
    ("supervisor.gone", _NOTHING, "An instance's processes are verified gone; nobody has been told."),
    # sidecar/membership, mesh/identity
    ("init.founding-stored", _OS, "What a new cluster begins with is stored; its host has no identity yet."),
    ("identity.before-generation", _OS, "Key and certificates of an identity are about to be stored."),
    ("identity.before-cluster", _OS, "An identity is stored but for the file that makes it count."),
    ("identity.stored", _OS, "An identity is stored; the key of the join is still there."),
    ("join.key-stored", _OS, "The key of a join is durable; nobody has been asked."),
    ("admission.signed", _NOTHING, "A joining host's certificate is signed; the host is not on record."),
    ("founding.before-first-log", _NOTHING, "A founding host's log is laid out; it has no first entries."),
    # sidecar/postgres
    ("database.before-action", _NOTHING, "One step of this host's database is decided, and not begun."),
    ("database.action-done", _NOTHING, "One step of this host's database is done; nobody has looked yet."),
    ("database.sealed", _NOTHING, "This host receives no more WAL, durably; the leader has not been told."),
    ("database.killed", _NOTHING, "The lease is lost; PostgreSQL is being killed, not yet seen to be gone."),
    ("database.before-bootstrap-recorded", _NOTHING, "A new database runs; it is not on record."),
    ("database.before-promote", _NOTHING, "The fence holds a standby that may act from now on."),
    ("database.promoted", _NOTHING, "A standby is promoted; its timeline is not on record."),
    ("database.before-recorded", _NOTHING, "A promotion is about to be proposed; clients are not let in."),
    ("database.recorded", _NOTHING, "A promotion is on record; clients are not let in."),
    ("database.before-sync-names", _NOTHING, "Other synchronous standbys are about to be put in force."),
    ("database.sync-names-set", _NOTHING, "Other synchronous standbys are in force; nothing is published."),
    ("database.before-publish", _NOTHING, "Whom a promotion asks is about to be published anew."),
    ("database.published", _NOTHING, "Whom a promotion asks is published; the primary has not noted it."),
    ("database.before-seal", _NOTHING, "A leader is about to ask a host to seal its database."),
    # sidecar/postgres/engine
    ("database.seal.receiver-gone", _NOTHING, "This host receives no more WAL; it has not promised so yet."),
    ("database.promote.names-set", _NOTHING, "The names for after a promotion are in force in a standby."),
    ("database.promote.left-out", _NOTHING, "Numbers that its timeline may not take are taken in a standby."),
    ("database.promote.file-written", _NOTHING, "The order to promote is written; no server has looked."),
    ("database.promote.signalled", _NOTHING, "A server is told to look at the order; how it ends is open."),
    ("database.copy.begun", _NOTHING, "A copy of the primary is noted; nothing of it is there."),
    ("database.copy.copied", _NOTHING, "A copy of the primary is there; it is not verified."),
    ("database.copy.verified", _NOTHING, "A copy is verified; it does not count as complete."),
    ("database.copy.complete", _NOTHING, "A copy is complete; what it replaces is in its place."),
    ("database.copy.moved-aside", _NOTHING, "What a copy replaces is moved aside; nothing is in its place."),
    ("database.copy.in-place", _NOTHING, "A copy is in place; the note still says that it waits for that."),
    ("database.rewind.begun", _NOTHING, "A rewind is noted, so the data count as partial; none has begun."),
    ("database.rewind.ran", _NOTHING, "Data are rewound; they are no standby's yet, and count as partial."),
    ("database.rewind.marked", _NOTHING, "Rewound data are a standby's; they still count as partial."),
    # sidecar/routing/driver.py
    ("xds.before-push", _NOTHING, "A newer view is known; no stream has been told."),
    ("xds.pushed", _NOTHING, "All xDS streams know that there is something newer."),
)  # fmt: skip

#: Places in a coroutine.
_PASSING: Final[tuple[_Row, ...]] = (
    ("driver.stopping", _NOTHING, "The driver ends; its waiters are refused, its log is open."),
    ("consensus.forward.before", _UNREACHABLE, "A proposal is about to be sent to the leader."),
    ("consensus.forward.answered", _UNKNOWN, "The leader has answered a proposal; the caller does not know."),
    ("consensus.read.before-ask", _UNREACHABLE, "The leader is about to be asked to confirm a read."),
    ("replica.propose.before", _UNAVAILABLE, "A command of this host is about to be proposed."),
    ("replica.propose.answered", _UNKNOWN, "A command's fate is known to the replica and to nobody else."),
    ("leader-client.before-write", _STREAM, "Proposals for the leader are taken from the queue."),
    ("leader-client.written", _STREAM, "Proposals are with gRPC; no answer has come."),
    ("link.before-write", _STREAM, "A message for another member is taken from its queue."),
    ("link.opened", _STREAM, "Another member has accepted a stream of this one."),
    ("transport.accepting", _STREAM, "Another member opens a stream to this one."),
    ("beats.before-send", _UNREACHABLE, "A beat's moment of sending is noted; it has not left."),
    ("beats.sent", _UNREACHABLE, "A beat is with gRPC; no answer has come."),
    ("duty.begun", _NOTHING, "A leader has applied an entry of its own term, and begins to decide."),
    ("duty.before-propose", _UNAVAILABLE, "A leader's decision is about to be proposed."),
    ("duty.proposed", _UNKNOWN, "A leader's decision is committed; the leadership does not know."),
    ("leading.membership.before-change", _UNAVAILABLE, "A change of Raft's membership is decided."),
    ("leading.membership.changed", _NOTHING, "A change of Raft's membership is committed."),
    ("leading.founding.before-propose", _UNAVAILABLE, "A new cluster's content is about to be proposed."),
    ("leading.founding.proposed", _NOTHING, "A new cluster has its content; the founding record is there."),
    ("hand-over.leaving", _NOTHING, "This sidecar ends in order; it has given nothing up."),
    ("host.caught-up", _NOTHING, "This host has the cluster's state for the first time since it started."),
    ("vip.before-register", _UNAVAILABLE, "The virtual IP is wanted; the fence process does not know."),
    ("vip.before-claim", _UNAVAILABLE, "The fence process holds the virtual IP; it is not claimed."),
    ("vip.claimed", _UNAVAILABLE, "The virtual IP is claimed; this host does not know that it holds it."),
    ("vip.before-release", _NOTHING, "The virtual IP is about to be given up."),
    ("vip.released", _NOTHING, "The virtual IP is given up; the fence process still holds it."),
    ("fence.started", _NOTHING, "The fence process serves; nothing is registered."),
    ("fence.before-register", _UNAVAILABLE, "Something exclusive is about to be told to the fence."),
    ("fence.registered", _UNAVAILABLE, "The fence process holds something; whoever asked does not know."),
    ("join.before-ask", _UNAVAILABLE, "A joining host is about to ask a member."),
    ("join.admitted", _NOTHING, "A joining host has its certificate, and has stored nothing of it."),
    ("admission.before-record", _UNAVAILABLE, "A joining host is about to be put on record."),
    ("admission.recorded", _UNKNOWN, "A joining host is on record, its token used, and not answered."),
    ("documents.before-propose", _UNAVAILABLE, "A document's change is checked and about to be proposed."),
    ("documents.proposed", _UNKNOWN, "A document is changed; whoever asked has not been answered."),
    ("services.before-propose", _UNAVAILABLE, "A declaration is checked and about to be proposed."),
    ("services.proposed", _UNKNOWN, "A declaration is committed; whoever asked has not been answered."),
    ("token.proposed", _UNKNOWN, "A join token is on record; nobody has its text."),
    ("xds.before-write", _STREAM, "A response is about to be written to Envoy or a proxyless client."),
    ("sidecar.mesh-open", _NOTHING, "The mesh listener is open, and nothing else."),
    ("sidecar.gave-way", _NOTHING, "An ending sidecar has given everything up; its listeners are open."),
)  # fmt: skip


def _rows() -> Iterator[Failpoint]:
    for name, raises, text in _HIT:
        yield Failpoint(name, text, raises, awaits=False)
    for name, raises, text in _PASSING:
        yield Failpoint(name, text, raises, awaits=True)


#: All of them by name.
FAILPOINTS: Final[dict[str, Failpoint]] = {each.name: each for each in sorted(_rows(), key=lambda f: f.name)}
