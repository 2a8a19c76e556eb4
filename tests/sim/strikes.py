"""The kinds of faults, one function each: it strikes somewhere and says when that is undone."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.failpoints.arming import Action, Arming
from mesh.ids import HostId
from tests.sim.clock import MS, NS
from tests.sim.failpoints import PAIRS
from tests.sim.trace import Pause, Resume

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.host import Life
    from tests.sim.network import Link, Network

Strike = Callable[["Faults"], None]


# ---- the network ----------------------------------------------------------------------


def _weather(faults: "Faults") -> None:
    """Loss, doubling, delay and reordering on some links for a while."""
    chance = faults.chance
    loss = chance.choice((0.0, 0.02, 0.1, 0.3))
    twice = chance.choice((0.0, 0.05, 0.2))
    jitter = chance.choice((0, 2 * MS, 50 * MS, 400 * MS, 3_000 * MS))
    delay = chance.choice((100_000, 300_000, 5 * MS, 60 * MS))
    share = chance.choice((0.3, 1.0))
    links = [link for link in faults.links(lambda a, b: True) if chance.random() < share]
    for link in links:
        link.loss, link.twice, link.jitter_ns, link.delay_ns = loss, twice, jitter, delay
        link.settle()

    def calm() -> None:
        for link in links:
            link.loss, link.twice, link.jitter_ns, link.delay_ns = 0.0, 0.0, 0, 300_000
            link.settle()

    faults.told("", "net-weather", f"loss={loss} twice={twice} jitter={jitter} delay={delay}")
    faults.after(faults.seconds(0.5, 20), calm)


def cut(faults: "Faults", links: list["Link"], for_ns: int) -> None:
    """Nothing passes for a while."""
    down = [link for link in links if not link.is_cut]
    for link in down:
        link.is_cut = True
        link.settle()

    def join() -> None:
        for link in down:
            link.is_cut = False
            link.settle()

    faults.after(for_ns, join)


def _isolate(faults: "Faults") -> None:
    """One host, or a random group, is cut off from the rest."""
    names = list(faults.world.machines)
    faults.chance.shuffle(names)
    group = set(names[: faults.chance.randint(1, max(1, len(names) // 2))])
    faults.told("", "net-partition", " ".join(sorted(group)))
    cut(faults, faults.links(lambda a, b: (a in group) != (b in group)), faults.seconds(0.3, 15))


def _one_way(faults: "Faults") -> None:
    """One host can be heard and not hear, or the other way round."""
    machine = faults.machine()
    if machine is None:
        return
    name = machine.name
    is_deaf = faults.chance.random() < 0.5
    faults.told(name, "net-one-way", "deaf" if is_deaf else "mute")
    cut(faults, faults.links(lambda a, b: (b if is_deaf else a) == name), faults.seconds(0.3, 12))


def _pair(faults: "Faults") -> None:
    """Two hosts do not reach each other, while others reach both."""
    first, second = faults.chance.sample(list(faults.world.machines), 2)
    faults.told("", "net-partial", f"{first} {second}")
    cut(faults, faults.links(lambda a, b: {a, b} == {first, second}), faults.seconds(0.3, 15))


def _half(faults: "Faults") -> None:
    """A host does not hear one other, which hears it: it misses a leader that misses nobody."""
    world, chance = faults.world, faults.chance
    leader, names = world.leader(), list(world.machines)
    source = leader.host if leader is not None and chance.random() < 0.6 else chance.choice(names)
    to = chance.choice([name for name in names if name != source])
    faults.told("", "net-half", f"{source} to {to}")
    cut(faults, faults.links(lambda a, b: (a, b) == (source, to)), faults.seconds(0.3, 5))


def _clog(faults: "Faults") -> None:
    """Links hold what they are given, and let it go link by link, each in another order."""
    chance, network = faults.chance, faults.world.network
    links = [
        link for link in faults.links(lambda a, b: True) if chance.random() < 0.4 and link.clogged is None
    ]
    for link in links:
        link.clogged = []
        link.settle()
    faults.told("", "net-clog", str(len(links)))
    for link in links:
        faults.after(faults.seconds(0.2, 6), _release(network, link, chance.random() < 0.6))


def _release(network: "Network", link: "Link", shuffle: bool) -> Callable[[], None]:
    return lambda: network.release(link, shuffle)


def _flap(faults: "Faults") -> None:
    """A host's links come and go near the election timeout."""
    machine = faults.machine()
    if machine is None:
        return
    name, world = machine.name, faults.world
    faults.told(name, "net-flap")
    at = 0
    for _ in range(faults.chance.randint(3, 8)):
        down = int(faults.chance.uniform(0.4, 2.6) * NS)
        world.scheduler.at(world.now + at, lambda down=down: _down(faults, name, down))
        at += down + int(faults.chance.uniform(0.1, 1.5) * NS)


def _down(faults: "Faults", name: HostId, for_ns: int) -> None:
    if faults.is_on:
        cut(faults, faults.links(lambda a, b: name in (a, b)), for_ns)


# ---- hosts ----------------------------------------------------------------------------


def _kill(faults: "Faults") -> None:
    """The process is killed, after so many more instructions that await something."""
    machine = faults.running()
    if machine is None or machine.life is None:
        return
    world, life = faults.world, machine.life
    faults.told(machine.name, "host-kill")
    restart = faults.seconds(0.02, 6)

    def blow() -> None:
        if machine.life is life and machine.name not in faults.spared:
            world.kill(machine, "kill")
            faults.after(restart, lambda: world.start(machine))

    if faults.chance.random() < 0.7:
        life.loop.light_fuse(faults.chance.randint(0, 60), blow)
    else:
        blow()


def _power(faults: "Faults") -> None:
    """The machine loses power, and boots after a while."""
    machine = faults.machine()
    if machine is None or not machine.is_up or machine.is_frozen:
        return
    world = faults.world
    faults.told(machine.name, "host-power")
    world.power_off(machine)
    boots = faults.chance.random() * NS

    def boot() -> None:
        machine.is_up = True
        world.scheduler.at(world.now + int(boots), world.start, machine)

    faults.after(faults.seconds(0.5, 15), boot)


def _freeze(faults: "Faults") -> None:
    """The machine stands still (a paused VM); sometimes its monotonic clock does, too."""
    machine = faults.machine()
    if machine is None or machine.is_frozen or not machine.is_up:
        return
    world, began = faults.world, faults.world.now
    is_suspended = faults.chance.random() < 0.5
    faults.told(machine.name, "host-suspend" if is_suspended else "host-freeze")
    member = machine.member
    if member is not None:
        world.emit(Pause(world.now, machine.name, member))
    machine.freeze()

    def thaw() -> None:
        if is_suspended:
            machine.clock.slept(world.now - began)
            if machine.life is not None:
                machine.life.loop.is_special = True
        if member is not None:
            world.emit(Resume(world.now, machine.name, member))
        machine.thaw()
        world.start(machine)

    faults.after(faults.seconds(0.05, 10), thaw)


def _stop(faults: "Faults") -> None:
    """The sidecar alone is stopped; its fence process and its instances go on."""
    machine = faults.running()
    if machine is None or machine.life is None or machine.is_frozen:
        return
    life = machine.life
    faults.told(machine.name, "host-stop")

    def stop() -> None:
        stop_sidecar(faults, life)

    if faults.chance.random() < 0.5:
        life.loop.light_fuse(faults.chance.randint(0, 60), stop)
    else:
        stop()


def stop_sidecar(faults: "Faults", life: "Life", for_ns: int | None = None) -> None:
    """Stop one life for so long, else for a drawn time."""
    world, machine = faults.world, life.machine
    if machine.life is not life or life.loop.is_paused or machine.name in faults.spared:
        return
    world.emit(Pause(world.now, machine.name, life.member))
    life.loop.pause()

    def resume() -> None:
        if machine.life is life and not machine.is_frozen:
            world.emit(Resume(world.now, machine.name, life.member))
            life.loop.resume()

    faults.after(faults.seconds(0.02, 8) if for_ns is None else for_ns, resume)


def _slow(faults: "Faults") -> None:
    """Every step of a sidecar waits for the CPU."""
    machine = faults.running()
    if machine is None or machine.life is None:
        return
    life, chance = machine.life, faults.chance
    most = chance.choice((200_000, 2 * MS, 10 * MS))
    faults.told(machine.name, "host-slow", str(most))
    life.loop.slow_down(lambda: int(life.chance.random() * most))
    faults.after(faults.seconds(0.5, 8), lambda: life.loop.slow_down(None))


def _wall(faults: "Faults") -> None:
    """Somebody sets the wall clock."""
    machine = faults.machine()
    if machine is not None:
        by = int(faults.chance.uniform(-1, 1) * faults.chance.choice((1, 3_600, 40_000_000)) * NS)
        faults.told(machine.name, "clock-step", str(by))
        machine.clock.step_wall(by)


def _garble(faults: "Faults") -> None:
    """A machine's memory is bad where snapshots are sent from: the hash of the whole must show it."""
    machine = faults.machine()
    if machine is None:
        return
    machine.garbles = faults.chance.choice((0.1, 0.5))
    faults.told(machine.name, "host-garbles", str(machine.garbles))

    def repair() -> None:
        machine.garbles = 0.0

    faults.after(faults.seconds(0.5, 8), repair)


def _failpoint(faults: "Faults") -> None:
    """Something happens at a few places in the code, as soon as they have been come by so often."""
    machine, chance = faults.running(), faults.chance
    if machine is None:
        return
    for name, action in chance.sample(PAIRS, chance.randint(1, 5)):
        count, skip = chance.choice((1, 1, 1, 3)), chance.choice((0, 0, 0, 2, 30))
        arming = Arming(name, action, stall_ms(faults, action), count, skip)
        arm(faults, arming, {machine.name}, faults.seconds(10, 120))


def stall_ms(faults: "Faults", action: Action) -> int:
    """How long it takes there."""
    return faults.seconds(0.01, 4) // MS if action is Action.STALL else 0


def arm(faults: "Faults", arming: Arming, hosts: set[HostId], for_ns: int) -> None:
    """Have it happen on these machines, for a while."""
    places = faults.world.failpoints
    trap = places.arm(arming, hosts, faults)
    faults.after(for_ns, lambda: places.disarm(trap))


# ---- disks ----------------------------------------------------------------------------


def _stall(faults: "Faults") -> None:
    """Writes take up to seconds, for a while."""
    machine = faults.machine()
    if machine is None:
        return
    disk = machine.disk_faults
    disk.stall, disk.stall_ns_max = faults.chance.choice(
        ((0.05, 3_000 * MS), (0.5, 300 * MS), (1.0, 60 * MS))
    )
    faults.told(machine.name, "disk-slow", str(disk.stall))

    def calm() -> None:
        disk.stall = 0.0

    faults.after(faults.seconds(0.5, 10), calm)


def _fsync(faults: "Faults") -> None:
    """One of the next writes fails."""
    machine = faults.machine()
    if machine is None:
        return
    disk = machine.disk_faults
    disk.fail = faults.chance.choice((0.05, 0.5))
    faults.told(machine.name, "disk-failing")

    def calm() -> None:
        disk.fail = 0.0

    faults.after(faults.seconds(0.2, 4), calm)


def _full(faults: "Faults") -> None:
    """Nothing more can be written for a while."""
    machine = faults.machine()
    if machine is None:
        return
    disk = machine.disk_faults
    disk.is_full = True
    faults.told(machine.name, "disk-filled")

    def empty() -> None:
        disk.is_full = False

    faults.after(faults.seconds(0.5, 8), empty)


def _misread(faults: "Faults") -> None:
    """The next start reads stale or misdirected blocks once, and finds that by checksum."""
    machine = faults.machine()
    if machine is not None and machine.disk is not None:
        kind = faults.chance.choice(("a stale read", "a misdirected read"))
        machine.disk.misread = f"{kind}: its checksum does not match (simulated)"
        faults.told(machine.name, "disk-misread", kind)


KINDS: dict[str, Strike] = {
    "weather": _weather,
    "isolate": _isolate,
    "one-way": _one_way,
    "pair": _pair,
    "half": _half,
    "clog": _clog,
    "flap": _flap,
    "kill": _kill,
    "power": _power,
    "freeze": _freeze,
    "stop": _stop,
    "slow": _slow,
    "wall": _wall,
    "stall": _stall,
    "fsync": _fsync,
    "full": _full,
    "misread": _misread,
    "garble": _garble,
    "failpoint": _failpoint,
}
