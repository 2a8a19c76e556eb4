"""The stage of the core's stories, with the finer commands that the explorer's paths need.

Here every host waits the longest election timeout, as in the explorer.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from mesh.ids import Index, MemberId, Term
from mesh.raft import Entry, EntryKind, HardState, RaftSettings, RawNode, Restored, Role
from tests.explorer.host import longest, pass_time
from tests.raft.machines import Disk, Machine
from tests.raft.render import message_text, outcome_lines
from tests.raft.stage import Options, Stage

if TYPE_CHECKING:
    from mesh.raft import Message


class FineStage(Stage):
    """Adds: holds, time, drain, begin, pass, reboot, leading."""

    def _start(self, name: str, restored: Restored) -> None:
        settings = replace(RaftSettings(id=MemberId(name)), **self.options)  # type: ignore[arg-type] # by name
        self.machines[name] = Machine(settings, Disk.holding(restored), longest)
        self.synced_commit[name] = restored.hard_state.commit

    def __init__(self) -> None:
        super().__init__()
        #: What a crash leaves of the commit index.
        self.synced_commit: dict[str, Index] = {}

    def do_holds(self, arguments: list[str], options: Options) -> list[str]:
        """holds a term=3 log=2,3 [vote=a] [commit=1]: a starts anew, with these terms after 1."""
        for name in arguments:
            founded = self.machines[name].disk.entries[0]
            terms = [int(each) for each in options.get("log", "").split(",") if each]
            entries = [
                Entry(Index(number), Term(term), EntryKind.NOOP, b"")
                for number, term in enumerate(terms, start=2)
            ]
            vote = MemberId(options["vote"]) if "vote" in options else None
            hard_state = HardState(Term(int(options["term"])), vote, Index(int(options.get("commit", 1))))
            self._start(name, Restored(hard_state, None, (founded, *entries)))
        return []

    def do_time(self, arguments: list[str], options: Options) -> list[str]:
        """time a: ticks until something can be noticed there."""
        return [f"{name}: {pass_time(self.machines[name].node)} ticks" for name in arguments]

    def do_pass(self, arguments: list[str], options: Options) -> list[str]:
        """pass a>b [nth=2] [copy]: one waiting message of a link arrives; with copy it will arrive again."""
        sender, _, to = arguments[0].partition(">")
        waiting = [each for each in self.network if (each.sender, each.to) == (sender, to)]
        position = int(options.get("nth", 1)) - 1
        if position >= len(waiting):
            return [f"{arguments[0]}: nothing waits there"]
        message = waiting[position]
        if "copy" not in arguments:
            self.network.remove(message)
        self.machines[to].node.step(message)
        return [message_text(message)]

    def do_crash_seen(self, arguments: list[str], options: Options) -> list[str]:
        """crash-seen b of=a: b knows that a's process of then is dead, and stands."""
        for name in arguments:
            self.machines[name].node.report_crash(MemberId(options["of"]))
            self.machines[name].node.campaign(after_crash=True)
        return []

    def do_drain(self, arguments: list[str], options: Options) -> list[str]:
        """drain a [stall]: do the duties of every Ready; with stall, up to the first that must be synced."""
        lines: list[str] = []
        for name in arguments[:1]:
            machine = self.machines[name]
            while machine.in_flight is not None or machine.node.has_ready():
                if machine.in_flight is None:
                    self._queue(machine.begin())
                ready = machine.in_flight
                assert ready is not None
                if ready.must_sync and "stall" in arguments:
                    return [*lines, f"{name}: its disk stalls"]
                lines += outcome_lines(name, ready)
                self._complete(machine)
        return lines

    def run(self, line: str) -> list[str]:
        try:
            return super().run(line)
        except AssertionError as error:
            return [f"REFUSED BY THE DISK: {error}"]

    def _complete(self, machine: Machine) -> None:
        must_sync = machine.in_flight is not None and machine.in_flight.must_sync
        machine.store()
        if must_sync:
            self.synced_commit[machine.id] = machine.disk.hard_state.commit
        messages, _ = machine.finish()
        self._queue(messages)

    def _queue(self, messages: "list[Message]") -> None:
        """Equal messages on their way are one, as in the explorer."""
        self.network += [each for each in messages if each not in self.network]

    def do_done(self, arguments: list[str], options: Options) -> list[str]:
        """done a: its disk has stored the Ready under way."""
        for name in arguments:
            if self.machines[name].in_flight is None:
                return [f"{name}: nothing is under way"]
            self._complete(self.machines[name])
        return []

    def do_power(self, arguments: list[str], options: Options) -> list[str]:
        """power a [stored]: a loses what was not synced and starts again."""
        machine = self.machines[arguments[0]]
        if "stored" in arguments and machine.in_flight is not None:
            machine.store()
            self.synced_commit[machine.id] = machine.disk.hard_state.commit
        commit = self.synced_commit[machine.id]
        machine.disk.hard_state = replace(machine.disk.hard_state, commit=commit)
        machine.crash()
        machine.start()
        return []

    def do_leading(self, arguments: list[str], options: Options) -> list[str]:
        """leading: by role, so that two leaders of one term are seen."""
        nodes: list[RawNode] = [each.node for each in self._up()]
        return [f"{node.id} leads in term {node.term}" for node in nodes if node.role is Role.LEADER]
