"""The commands of a story, acted out by machines on a network that waits to be told.

`deliver` runs everything to rest; `ready`, `store`, `finish`, `arrive` and `lose`
do one step. Names: `a>b` is the link from a to b, `2/5` the entry of term 2 at index 5.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mesh.errors import InvariantBroken, TrellisError
from mesh.ids import Index, MemberId, Term
from mesh.raft import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    Membership,
    Message,
    RaftSettings,
    RawNode,
    RequestVote,
    RequestVoteReply,
    Restored,
    SnapshotChunk,
    TimeoutNow,
)
from mesh.raft.snapshot import take_snapshot
from tests.raft.machines import Disk, Machine, patience
from tests.raft.render import (
    entry_text,
    membership_text,
    message_text,
    outcome_lines,
    ready_lines,
    status_lines,
)

Options = dict[str, str]


def members(text: str) -> list[MemberId]:
    return [MemberId(each) for each in text.split(",") if each]


def entry_id(text: str) -> EntryId:
    term, _, index = text.partition("/")
    return EntryId(Term(int(term)), Index(int(index)))


class Stage:
    """Machines, the messages between them, and one method per command."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.network: list[Message] = []
        self.cut_links: set[tuple[str, str]] = set()
        self.stalled: set[str] = set()
        self.options: dict[str, int] = {}

    def run(self, line: str) -> list[str]:
        """Run one command; the lines it prints."""
        name, *words = line.split()
        arguments = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        command: Callable[[list[str], Options], list[str]] = getattr(self, f"do_{name.replace('-', '_')}")
        try:
            return command(arguments, options)
        except InvariantBroken as error:
            return [f"INVARIANT BROKEN: {error}"]
        except TrellisError as error:
            return [f"{error.reason}: {line}" for line in str(error).splitlines()]

    # ---- hosts ----------------------------------------------------------------------

    def do_voters(self, arguments: list[str], options: Options) -> list[str]:
        """voters a b c [setting=number...]: found a cluster."""
        self.options = {name: int(value) for name, value in options.items()}
        for name in arguments:
            self._start(name, RawNode.bootstrap(members(",".join(arguments))))
        return []

    def do_join(self, arguments: list[str], options: Options) -> list[str]:
        """join d: a host with an empty disk."""
        for name in arguments:
            self._start(name, Restored())
        return []

    def _start(self, name: str, restored: Restored) -> None:
        ticks = {"heartbeat_ticks": 2, "election_ticks_min": 10, "election_ticks_max": 20}
        settings = replace(RaftSettings(id=MemberId(name)), **{**ticks, **self.options})  # type: ignore[arg-type] # by name
        self.machines[name] = Machine(settings, Disk.holding(restored), patience(settings.id))

    def do_crash(self, arguments: list[str], options: Options) -> list[str]:
        for name in arguments:
            self.machines[name].crash()
        return []

    def do_restart(self, arguments: list[str], options: Options) -> list[str]:
        for name in arguments:
            self.machines[name].start()
        return []

    def do_tick(self, arguments: list[str], options: Options) -> list[str]:
        """tick a b n=5"""
        for _ in range(int(options.get("n", 1))):
            for name in arguments:
                self.machines[name].node.tick()
        return []

    def do_run(self, arguments: list[str], options: Options) -> list[str]:
        """run n=20: tick every host that is up, and deliver everything after each tick."""
        lines = []
        for _ in range(int(options["n"])):
            for machine in self._up():
                machine.node.tick()
            lines += self.do_deliver([], {})
        return lines

    def _up(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.is_up]

    # ---- one step at a time -----------------------------------------------------------

    def do_ready(self, arguments: list[str], options: Options) -> list[str]:
        """ready a: take a Ready, send what may leave at once."""
        lines = []
        for name in arguments:
            machine = self.machines[name]
            if machine.in_flight is None:
                self.network += machine.begin()
                lines += ready_lines(name, machine.in_flight) if machine.in_flight else [f"{name}: nothing"]
        return lines

    def do_finish(self, arguments: list[str], options: Options) -> list[str]:
        """finish a: store, send the rest, apply, advance."""
        lines = []
        for name in arguments:
            if self.machines[name].in_flight is None:
                lines.append(f"{name}: nothing")
                continue
            self.machines[name].store()
            messages, _ = self.machines[name].finish()
            self.network += messages
        return lines

    def do_stall(self, arguments: list[str], options: Options) -> list[str]:
        """stall b: its disk answers no more; `stall` alone: all disks work again."""
        self.stalled = set(arguments)
        return []

    def do_arrive(self, arguments: list[str], options: Options) -> list[str]:
        """arrive a>b [n=1]: hand over waiting messages of one link, oldest first."""
        sender, _, to = arguments[0].partition(">")
        lines = []
        waiting = [each for each in self.network if (each.sender, each.to) == (sender, to)]
        for message in waiting[: int(options.get("n", len(waiting)))]:
            self.network.remove(message)
            lines.append(message_text(message))
            self.machines[to].node.step(message)
        return lines

    def do_lose(self, arguments: list[str], options: Options) -> list[str]:
        """lose [a>b]: throw away what waits, on one link or everywhere."""
        lost = [each for each in self.network if not arguments or f"{each.sender}>{each.to}" in arguments]
        self.network = [each for each in self.network if each not in lost]
        return [f"lost {message_text(each)}" for each in lost]

    def do_deliver(self, arguments: list[str], options: Options) -> list[str]:
        """deliver [show=Kind,...]: run to rest; prints outcomes, and messages of the kinds named."""
        shown = options.get("show", "").split(",")
        lines: list[str] = []
        is_busy = True
        while is_busy:
            is_busy = False
            for machine in self._up():
                if machine.id in self.stalled:
                    continue
                self.network += machine.begin()
                if machine.in_flight is not None:
                    lines += outcome_lines(machine.id, machine.in_flight)
                    self.do_finish([machine.id], {})
                    is_busy = True
            arrived, self.network = self.network, []
            for message in arrived:
                if self._is_passed(message):
                    lines += [message_text(message)] * (type(message).__name__ in shown)
                    self.machines[message.to].node.step(message)
                    is_busy = True
        return lines

    def _is_passed(self, message: Message) -> bool:
        to = self.machines.get(message.to)
        return to is not None and to.is_up and (message.sender, message.to) not in self.cut_links

    def do_cut(self, arguments: list[str], options: Options) -> list[str]:
        """cut a>b b>a ...: one direction each."""
        self.cut_links |= {(link.split(">")[0], link.split(">")[1]) for link in arguments}
        return []

    def do_isolate(self, arguments: list[str], options: Options) -> list[str]:
        """isolate a: both directions to everybody."""
        for name in arguments:
            for other in self.machines:
                self.cut_links |= {(name, other), (other, name)}
        return []

    def do_heal(self, arguments: list[str], options: Options) -> list[str]:
        self.cut_links.clear()
        return []

    # ---- requests -------------------------------------------------------------------

    def do_campaign(self, arguments: list[str], options: Options) -> list[str]:
        """campaign a [after-crash]"""
        self.machines[arguments[0]].node.campaign(after_crash="after-crash" in arguments)
        return []

    def do_crash_proof(self, arguments: list[str], options: Options) -> list[str]:
        """crash-proof b of=a: tell b that a is dead."""
        node = self.machines[arguments[0]].node
        node.report_crash(MemberId(options["of"]))
        return [f"{node.id}: leader={node.leader} stagger={node.stagger(MemberId(options['of']))}"]

    def do_unreachable(self, arguments: list[str], options: Options) -> list[str]:
        self.machines[arguments[0]].node.report_unreachable(MemberId(options["member"]))
        return []

    def do_propose(self, arguments: list[str], options: Options) -> list[str]:
        """propose a text..."""
        for text in arguments[1:]:
            self.machines[arguments[0]].node.propose(text.encode())
        return []

    def do_membership(self, arguments: list[str], options: Options) -> list[str]:
        """membership a voters=a,b [learners=c] [witnesses=w]"""
        sets = [members(options.get(name, "")) for name in ("voters", "learners", "witnesses")]
        self.machines[arguments[0]].node.propose_membership(Membership.of(*sets))
        return []

    def do_read(self, arguments: list[str], options: Options) -> list[str]:
        """read a 7"""
        for request in arguments[1:]:
            self.machines[arguments[0]].node.read_index(int(request))
        return []

    def do_lease_read(self, arguments: list[str], options: Options) -> list[str]:
        return [f"{name}: lease read at {self.machines[name].node.lease_read_index()}" for name in arguments]

    def do_transfer(self, arguments: list[str], options: Options) -> list[str]:
        """transfer a to=b"""
        self.machines[arguments[0]].node.transfer_leadership(MemberId(options["to"]))
        return []

    def do_compact(self, arguments: list[str], options: Options) -> list[str]:
        """compact a: snapshot at the applied index."""
        snapshot = self.machines[arguments[0]].compact()
        return [f"snapshot {snapshot.meta.last.index} [{membership_text(snapshot.meta.membership)}]"]

    # ---- made-up messages -------------------------------------------------------------

    def do_send(self, arguments: list[str], options: Options) -> list[str]:
        """send a>b Kind term=3 ...: hand b a message that a may never have sent."""
        sender, _, to = arguments[0].partition(">")
        envelope: dict[str, Any] = {
            "sender": MemberId(sender),
            "to": MemberId(to),
            "term": Term(int(options["term"])),
        }
        target = options.get("via", to)
        self.machines[target].node.step(self._made_up(arguments, options, envelope))
        return []

    def _made_up(self, arguments: list[str], options: Options, envelope: dict[str, Any]) -> Message:
        match arguments[1]:
            case "RequestVote":
                flags: dict[str, Any] = {flag: flag in arguments for flag in ("pre_vote", "transfer")}
                return RequestVote(**envelope, last=entry_id(options["last"]), **flags)
            case "RequestVoteReply":
                flags = {flag: flag in arguments for flag in ("pre_vote", "granted")}
                return RequestVoteReply(**envelope, **flags)
            case "Append":
                entries = tuple(map(_made_up_entry, filter(None, options.get("entries", "").split(","))))
                commit = Index(int(options.get("commit", 0)))
                previous = entry_id(options["previous"])
                return Append(**envelope, previous=previous, entries=entries, commit=commit)
            case "AppendReply":
                return AppendReply(**envelope, matched=Index(int(options["matched"])))
            case "AppendHeartbeat":
                commit = Index(int(options.get("commit", 0)))
                return AppendHeartbeat(**envelope, commit=commit, round=int(options["round"]))
            case "AppendHeartbeatReply":
                return AppendHeartbeatReply(**envelope, round=int(options["round"]))
            case "TimeoutNow":
                return TimeoutNow(**envelope)
            case _:
                voters = Membership.of(members(options["voters"]))
                snapshot = take_snapshot(entry_id(options["last"]), voters, options["data"].encode())
                low, high = (int(each) for each in options["bytes"].split(".."))
                data = snapshot.data[low:high]
                return SnapshotChunk(**envelope, meta=snapshot.meta, offset=low, data=data)

    # ---- looking --------------------------------------------------------------------

    def do_status(self, arguments: list[str], options: Options) -> list[str]:
        lines = []
        for name in arguments:
            lines += [f"{name}: {line}" for line in status_lines(self.machines[name].node.status())]
        return lines

    def do_log(self, arguments: list[str], options: Options) -> list[str]:
        """log a: what is on its disk."""
        lines = []
        for name in arguments:
            disk = self.machines[name].disk
            if disk.snapshot is not None:
                lines.append(f"{name}: snapshot {disk.snapshot.meta.last.index}")
            lines += [f"{name}: {entry_text(each)}" for each in disk.entries]
        return lines

    def do_leaders(self, arguments: list[str], options: Options) -> list[str]:
        found = [each.node for each in self._up() if each.node.leader == each.id]
        return [f"{node.id} leads in term {node.term}" for node in found] or ["nobody leads"]


def _made_up_entry(text: str) -> Entry:
    """`2/5:data` or `2/5:` for a command; `2/5!data` for a membership."""
    kind = EntryKind.MEMBERSHIP if "!" in text else EntryKind.COMMAND
    where, _, data = text.partition("!" if kind is EntryKind.MEMBERSHIP else ":")
    at = entry_id(where)
    return Entry(at.index, at.term, kind, data.encode())
