"""A cluster in which everything that may go wrong does, drawn from one seed.

Clocks tick together (leases assume that), everything else is arbitrary:
messages are lost, doubled, reordered and damaged, links are cut, processes crash
between any two duties of a Ready and come back with what was stored.
"""

import random
from dataclasses import replace

from mesh.errors import TrellisError
from mesh.ids import Index, MemberId
from mesh.raft import (
    Entry,
    Membership,
    Message,
    RaftSettings,
    RawNode,
    Restored,
    Role,
    SnapshotChunk,
)
from tests.raft.machines import Disk, Machine

POOL = tuple(MemberId(each) for each in "abcde")
#: Only ever a witness: it has no data to lead with.
WITNESS = MemberId("w")
BACKLOG_MAX = 400


class Checker:
    """What must hold whatever happens (paper, figure 3)."""

    def __init__(self) -> None:
        self.leaders: dict[int, MemberId] = {}
        self.applied: dict[int, Entry] = {}
        self.commit_max = 1

    def look_at(self, machine: Machine) -> None:
        """Election safety and leader completeness."""
        node = machine.node
        if node.role is not Role.LEADER:
            return
        known = self.leaders.get(node.term)
        if known is None:
            self.leaders[node.term] = node.id
            self._check_complete(machine)
        assert self.leaders[node.term] == node.id, f"two leaders in term {node.term}"
        self.commit_max = max(self.commit_max, node.commit)

    def _check_complete(self, machine: Machine) -> None:
        log = machine.node._core.log
        for index, entry in self.applied.items():
            if index >= log.first_index:
                assert log.term_at(Index(index)) == entry.term, f"leader {machine.id} lacks {index}"

    def applied_by(self, machine: Machine, entries: list[Entry]) -> None:
        """State machine safety: one entry per index, on all members."""
        for entry in entries:
            known = self.applied.get(entry.index)
            if known is None and not machine.is_witness:
                self.applied[entry.index] = entry
            elif known is not None:
                assert (known.term, known.kind) == (entry.term, entry.kind), entry.index
                assert machine.is_witness or known.data == entry.data, entry.index


class Chaos:
    """The cluster, the network and the dice."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.checker = Checker()
        self.network: list[Message] = []
        self.cut: set[tuple[MemberId, MemberId]] = set()
        founders = POOL[: self.dice.choice((1, 3, 3, 3, 5))]
        first = RawNode.bootstrap(founders)
        self.machines = {
            each: self._machine(each, first if each in founders else Restored()) for each in (*POOL, WITNESS)
        }
        self.loss = self.dice.choice((0.0, 0.05, 0.2))
        self.doubling = self.dice.choice((0.0, 0.1, 0.5))
        self.damage = self.dice.choice((0.0, 0.2))
        self.reads: dict[tuple[MemberId, int], int] = {}
        self.read_counter = 0
        self.proposed = 0
        self.archive: list[Message] = []
        #: Each seed has storms of its own: every kind of trouble is frequent in some and absent in others.
        trouble = (
            (2, self.cut_links), (4, self.crash), (4, self.transfer), (10, self.change_membership),
            (10, self.read), (10, self.lease_read), (10, self.compact), (3, self.campaign),
            (4, self.crash_proof), (4, self.unreachable), (4, self.kill_leader), (2, self.isolate_leader),
            (6, self.replay),
        )  # fmt: skip
        #: Each seed has storms of its own: every kind of trouble is frequent in some and rare in others.
        self.actions = [
            *((weight * self.dice.choice((0.2, 1, 1, 4)), action) for weight, action in trouble),
            *((300, self.work), (60, self.tick_all), (60, self.propose), (15, self.heal), (40, self.restart)),
        ]

    def _machine(self, member: MemberId, restored: Restored) -> Machine:
        settings = RaftSettings(
            id=member,
            heartbeat_ticks=1,
            election_ticks_min=5,
            election_ticks_max=10,
            inflight_max=3,
            append_bytes_max=120,
            uncommitted_bytes_max=2000,
            chunk_bytes=9,
            trailing_entries=self.dice.choice((0, 2, 8)),
            committed_bytes_max=200,
        )
        return Machine(settings, Disk.holding(restored), self.dice.randint, is_witness=member == WITNESS)

    # ---- running ------------------------------------------------------------------

    def run(self, steps: int) -> None:
        weights = [weight for weight, _ in self.actions]
        actions = [action for _, action in self.actions]
        for action in self.dice.choices(actions, weights, k=steps):
            action()

    def calm(self) -> None:
        """The storm is over: every host runs, every link works."""
        self.cut.clear()
        self.loss = self.doubling = self.damage = 0.0
        for machine in self.machines.values():
            if not machine.is_up:
                machine.start()

    def wait_for_leader(self, ticks_max: int) -> int:
        """Run undisturbed until one member leads; the ticks that took."""
        for ticks in range(ticks_max):
            if len(self.leaders()) == 1:
                return ticks
            self.tick_all()
            self.drain()
        raise AssertionError(f"{len(self.leaders())} leaders after {ticks_max} quiet ticks")

    def settle(self, ticks: int) -> MemberId:
        """Calm down and run for a while; who leads in the end."""
        self.calm()
        for _ in range(ticks):
            self.tick_all()
            self.drain()
        leaders = self.leaders()
        assert len(leaders) == 1, f"{len(leaders)} leaders after {ticks} quiet ticks"
        return leaders[0]

    def leaders(self) -> list[MemberId]:
        return [each.id for each in self.machines.values() if each.is_up and each.node.role is Role.LEADER]

    def drain(self) -> None:
        """Deliver and finish until nothing is left to do."""
        is_busy = True
        while is_busy:
            is_busy = False
            for machine in self.machines.values():
                self.begin(machine)
                is_busy |= machine.in_flight is not None
                self.finish(machine)
            arrived, self.network = self.network, []
            is_busy |= bool(arrived)
            for message in arrived:
                self._arrive(message)

    # ---- the network ----------------------------------------------------------------

    def send(self, messages: list[Message]) -> None:
        if messages and self.dice.random() < 0.2:
            self.archive.append(self.dice.choice(messages))
        for message in messages:
            if self.dice.random() >= self.loss:
                self.network.append(message)
            if self.dice.random() < self.doubling:
                self.network.append(message)
        while len(self.network) > BACKLOG_MAX:
            self.network.pop(self.dice.randrange(len(self.network)))

    def work(self) -> None:
        """Some hosts do half a Ready each, some messages arrive, in no particular order."""
        for machine in self.machines.values():
            draw = self.dice.random()
            if draw < 0.5:
                self.begin(machine)
            elif draw < 0.9:
                self.finish(machine)
        for _ in range(self.dice.randrange(12)):
            if self.network:
                window = len(self.network) if self.dice.random() < 0.05 else min(len(self.network), 12)
                self._arrive(self.network.pop(self.dice.randrange(window)))

    def _arrive(self, message: Message) -> None:
        machine = self.machines[message.to]
        if not machine.is_up or (message.sender, message.to) in self.cut:
            return
        if isinstance(message, SnapshotChunk) and message.data and self.dice.random() < self.damage:
            message = replace(message, data=bytes([message.data[0] ^ 1]) + message.data[1:])
        machine.node.step(message)
        self.checker.look_at(machine)

    def cut_links(self) -> None:
        side = [each for each in self.machines if self.dice.random() < 0.5]
        for one in self.machines:
            for other in self.machines:
                if (one in side) != (other in side):
                    self.cut.add((one, other))
                    if self.dice.random() < 0.7:
                        self.cut.add((other, one))

    def isolate_leader(self) -> None:
        """Cut a leader off for a while: it goes on collecting what will be lost."""
        leader = self._leader()
        if leader is not None:
            for other in self.machines:
                self.cut |= {(leader.id, other), (other, leader.id)}

    def replay(self) -> None:
        """An old message arrives once more."""
        if self.archive:
            self.network.append(self.dice.choice(self.archive))

    def heal(self) -> None:
        self.cut.clear()

    # ---- hosts ----------------------------------------------------------------------

    def _anyone(self) -> Machine:
        return self.machines[self.dice.choice((*POOL, WITNESS))]

    def _leader(self) -> Machine | None:
        found = [each for each in self.machines.values() if each.is_up and each.node.role is Role.LEADER]
        return self.dice.choice(found) if found else None

    def begin(self, machine: Machine | None = None) -> None:
        machine = machine or self._anyone()
        if machine.is_up:
            self.send(machine.begin())

    def finish(self, machine: Machine | None = None) -> None:
        machine = machine or self._anyone()
        if machine.is_up and machine.in_flight is not None:
            machine.store()
            messages, applied = machine.finish()
            self.checker.applied_by(machine, applied)
            self.send(messages)
            self.checker.look_at(machine)
            self._check_reads(machine)

    def tick_all(self) -> None:
        for machine in self.machines.values():
            if machine.is_up:
                machine.node.tick()

    def crash(self) -> None:
        machine = self._anyone()
        if not machine.is_up:
            return
        if machine.in_flight is not None and self.dice.random() < 0.5:
            machine.store()
        machine.crash()

    def restart(self) -> None:
        machine = self._anyone()
        if not machine.is_up:
            machine.start()

    def crash_proof(self) -> None:
        dead = [each.id for each in self.machines.values() if not each.is_up]
        machine = self._anyone()
        if dead and machine.is_up:
            machine.node.report_crash(self.dice.choice(dead))
            if machine.node.leader is None and machine.node.stagger(dead) == 0:
                machine.node.campaign(after_crash=True)

    def kill_leader(self) -> None:
        """The leader dies in the middle of something, and some of the others know at once."""
        leader = self._leader()
        if leader is None:
            return
        if leader.in_flight is not None and self.dice.random() < 0.3:
            leader.store()
        leader.crash()
        for machine in self.machines.values():
            if machine.is_up and self.dice.random() < 0.7:
                machine.node.report_crash(leader.id)
                if self.dice.random() < 0.5:
                    machine.node.campaign(after_crash=True)

    def campaign(self) -> None:
        machine = self._anyone()
        if machine.is_up:
            machine.node.campaign()

    def unreachable(self) -> None:
        machine = self._anyone()
        if machine.is_up:
            machine.node.report_unreachable(self._anyone().id)

    # ---- requests -------------------------------------------------------------------

    def propose(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.proposed += 1
            try:
                leader.node.propose(f"command {self.proposed}".encode())
            except TrellisError:
                return

    def transfer(self) -> None:
        leader = self._leader()
        if leader is not None:
            try:
                leader.node.transfer_leadership(self._anyone().id)
            except TrellisError:
                return

    def change_membership(self) -> None:
        leader = self._leader()
        if leader is None:
            return
        voters = self.dice.sample(POOL, self.dice.choice((1, 2, 3, 3, 4)))
        learners = [each for each in POOL if each not in voters and self.dice.random() < 0.5]
        witnesses = [WITNESS] if len(voters) > 1 and self.dice.random() < 0.3 else []
        try:
            leader.node.propose_membership(Membership.of([*voters, *witnesses], learners, witnesses))
        except TrellisError:
            return

    def read(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.read_counter += 1
            leader.node.read_index(self.read_counter)
            self.reads[leader.id, self.read_counter] = self.checker.commit_max

    def _check_reads(self, machine: Machine) -> None:
        for read in machine.reads:
            needed = self.reads.pop((machine.id, read.request))
            assert read.index >= needed, f"a stale read at {read.index}, {needed} was committed"
        machine.reads.clear()

    def lease_read(self) -> None:
        leader = self._leader()
        if leader is not None:
            index = leader.node.lease_read_index()
            assert index is None or index >= self.checker.commit_max, "a stale lease read"

    def compact(self) -> None:
        machine = self._anyone()
        if machine.is_up and machine.in_flight is None:
            try:
                machine.compact()
            except TrellisError:
                return
