"""Real sidecars that die at every named place, one after the other, and are started again.

Each row of the tables is one place and what brings a sidecar to it. Whatever has
happened there or not, no acknowledged write is lost, nothing is owned twice, and all
hosts end with the same state.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from mesh.adapters.armed import VARIABLE
from mesh.failpoints import FAILPOINTS, Raises
from tests.harness.addresses import LoopbackNetwork
from tests.harness.armed import Poke, Pokes, die_at_each, start_armed, strikes
from tests.harness.cluster import Cluster, leads_itself
from tests.harness.host import TRELLIS, Host
from tests.harness.load import Load
from tests.harness.processes import environment
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

#: Places that a host comes by which is used, led from and lost to, within some seconds.
REACHED_MIN = 30
DEVELOPMENT = "[development]\nmode = true\n"

#: Reached by `trellis init`, which is repeated after each.
AT_INIT = ("init.founding-stored", "identity.before-generation", "identity.before-cluster")
#: Reached by a founding sidecar.
AT_FOUNDING = (
    "log.open.laid-out",
    "founding.before-first-log",
    "leading.founding.before-propose",
    "leading.founding.proposed",
)
#: Reached by `trellis join`, which is repeated after each with the same token.
AT_JOINING = ("join.key-stored", "join.before-ask", "join.admitted", "identity.stored")
#: Reached by the member that a joining host asks; the join goes on meanwhile.
AT_ADMISSION = ("admission.signed", "admission.before-record", "admission.recorded")
#: Reached by the leader when it finds the new host among the members.
AT_GROWTH = ("leading.membership.before-change", "leading.membership.changed", "apply.membership")

LEADING: dict[str, Poke] = {
    **dict.fromkeys(
        (
            "node.leading", "duty.begun", "duty.beat.before-grant", "duty.beat.granted",
            "heartbeat.before-answer", "beats.own-lease", "duty.before-reserve", "duty.reserved",
            "duty.before-propose", "duty.proposed", "server.propose.taken", "server.propose.before-answer",
            "driver.proposal.appended", "vip.before-register", "vip.before-claim", "vip.claimed",
            "fence.before-register", "fence.registered", "link.before-write",
        ),
        Pokes.lead,
    ),
    **dict.fromkeys(
        (
            "driver.transfer.begun", "vip.before-release", "vip.released", "supervisor.before-kill",
            "host.release.before-report",
        ),
        Pokes.lead_and_lose,
    ),
}  # fmt: skip
FOLLOWING: dict[str, Poke] = dict.fromkeys(
    (
        "consensus.forward.before", "consensus.forward.answered", "consensus.read.before-ask",
        "leader-client.before-write", "leader-client.written",
        "beats.before-send", "beats.sent", "beats.answered",
    ),
    Pokes.use_following,
)  # fmt: skip
GROWING: dict[str, Poke] = dict.fromkeys(
    (
        "compact.due", "compact.encoded", "compact.before-stage", "compact.staged", "compact.saved",
        "log.snapshot.before-sync", "log.snapshot.before-rename", "log.snapshot.renamed",
        "log.snapshot.before-forget", "log.write.origin-moved",
    ),
    Pokes.grow,
)  # fmt: skip
ENDING: dict[str, Poke] = dict.fromkeys(
    ("hand-over.leaving", "driver.stopping", "sidecar.gave-way"), Pokes.end
)
DECLARING: dict[str, Poke] = {
    **dict.fromkeys(("services.before-propose", "services.proposed"), Pokes.declare),
    **dict.fromkeys(
        ("supervisor.before-spawn", "supervisor.spawned", "supervisor.recorded"),
        Pokes.declare,
    ),
    "supervisor.gone": Pokes.kill_instance,
    "token.proposed": Pokes.token,
}
#: Reached when a snapshot comes from the leader: the host was away while the log grew.
INSTALLING = ("install.before", "install.restored")
#: Reached when another host dies or stands still, so nothing else is tried meanwhile.
DISTURBING: dict[str, Poke] = {
    **dict.fromkeys(("driver.crash.reported", "transport.broken"), Pokes.kill_steady),
    **dict.fromkeys(("host.lease-lost", "host.gave-way"), Pokes.freeze_steady),
}
TABLED = {
    *(*AT_INIT, *AT_FOUNDING, *AT_JOINING, *AT_ADMISSION, *AT_GROWTH, *INSTALLING),
    *(*LEADING, *FOLLOWING, *GROWING, *ENDING, *DECLARING, *DISTURBING),
}
#: Reached where there is a database: tests/database/test_failpoints.py.
OF_DATABASE = {name for name in FAILPOINTS if name.startswith("database.")}
#: All others are reached by any sidecar that starts and is used.
ANYWHERE: dict[str, Poke] = {name: Pokes.use for name in FAILPOINTS if name not in TABLED | OF_DATABASE}


def trellis(host: Host, *words: str, armed: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the CLI with a place armed."""
    argv = [*TRELLIS, *words, "--settings", str(host.settings_path)]
    armed_environment = environment({VARIABLE: armed})
    return subprocess.run(argv, capture_output=True, text=True, env=armed_environment, check=False)


def check_died(done: "subprocess.CompletedProcess[str]", name: str) -> None:
    """A command died at a place."""
    assert done.returncode == -signal.SIGKILL, (name, done)
    assert f'"name": "{name}"' in done.stderr


def test_the_tables_name_only_what_there_is() -> None:
    """Goal: every failpoint is hit live by the tests below. Method: the tables and the catalogue."""
    assert set(FAILPOINTS) >= TABLED
    assert len(TABLED | OF_DATABASE | set(ANYWHERE)) == len(FAILPOINTS)


@pytest.fixture(scope="module")
def young() -> Iterator[Cluster]:
    """Two hosts that belong to nothing yet."""
    with Cluster(LoopbackNetwork(), hosts=2) as made:
        for host in made.hosts:
            host.write_settings(DEVELOPMENT)
        yield made


def test_a_cluster_is_founded_whenever_its_first_host_dies(young: Cluster) -> None:
    """Goal: init and the first start may end anywhere and be repeated. Method: die at each step."""
    first = young.hosts[0]
    for name in AT_INIT:
        check_died(trellis(first, "init", armed=f"{name}=crash"), name)
    assert first.trellis("init").returncode == 0
    pokes = Pokes(young, first)
    die_at_each(pokes, first, [(name, Pokes.use) for name in AT_FOUNDING])
    wait_for(lambda: leads_itself(first), "the founding host leads itself")
    listed = first.trellis("hosts", "--json")
    assert listed.stdout.count('"member"') == 1, listed


def test_a_host_joins_whenever_it_or_the_member_it_asks_dies(young: Cluster) -> None:
    """Goal: one join is one member, however often it is tried. Method: die at each step, on both sides."""
    first, second = young.hosts
    if not leads_itself(first):
        pytest.skip("the cluster was not founded: see the test before")
    token = young.token(first, second.name)
    check_died(trellis(second, "join", token, armed=f"{AT_JOINING[0]}=crash"), AT_JOINING[0])
    check_died(trellis(second, "join", token, armed=f"{AT_JOINING[1]}=crash"), AT_JOINING[1])
    for name in AT_ADMISSION:
        if first.is_running():
            first.kill()
        start_armed(first, f"{name}=crash")
        asked = subprocess.Popen(
            [*TRELLIS, "join", token, "--settings", str(second.settings_path), "--timeout", "60"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        try:
            assert first.wait_exit() == -signal.SIGKILL
        finally:
            asked.kill()
            asked.wait()
        assert strikes(first.log_path)[-1] == name
    die_at_each(Pokes(young, first), first, [(name, Pokes.use) for name in AT_GROWTH])
    wait_for(lambda: leads_itself(first), "the first host leads again")
    for name in AT_JOINING[2:]:
        check_died(trellis(second, "join", token, armed=f"{name}=crash"), name)
    joined = second.trellis("join", token, "--json")
    assert joined.returncode == 0, joined
    assert '"host2.1"' in joined.stdout
    second.start()
    young.wait_leader()
    wait_for(lambda: (status := second.status()) and not status.fenced_reason, "it has a lease", 30.0)
    assert first.trellis("hosts", "--json").stdout.count('"member"') == 2
    young.check_same_state()


@pytest.fixture(scope="module")
def developing() -> Iterator[Cluster]:
    """Three hosts in development mode, founded."""
    with Cluster(LoopbackNetwork()) as made:
        for host in made.hosts:
            host.write_settings(DEVELOPMENT)
        made.found()
        yield made


def test_sidecars_may_die_anywhere(developing: Cluster) -> None:
    """Goal: at no place does a death cost an acknowledged write, or give one thing two owners.

    Method: two hosts die and come back, each at the next place of a common list, under load; the
    third is steady. Then what needs a death or a freeze of that one.
    """
    one, two, steady = developing.hosts
    pokes = Pokes(developing, steady)
    leading = deque(LEADING.items())
    others = deque((FOLLOWING | ANYWHERE | DECLARING | ENDING | GROWING).items())
    took: dict[str, float] = {}

    def rows(own: deque[tuple[str, Poke]]) -> Iterator[tuple[str, Poke]]:
        while own or others:
            yield (own or others).popleft()

    with Load(developing.hosts, writers=1, readers=1) as load, Sight(developing):
        with ThreadPoolExecutor(max_workers=2) as lanes:
            lane_of_leaders = lanes.submit(die_at_each, pokes, one, rows(leading))
            lane = lanes.submit(die_at_each, pokes, two, rows(deque()))
            took |= lane.result() | lane_of_leaders.result()
        for name in INSTALLING:
            two.kill()
            grow_past_a_snapshot(pokes, [one, steady])
            took |= die_at_each(pokes, two, [(name, Pokes.use)])
        took |= die_at_each(pokes, two, DISTURBING.items())
        developing.wait_whole(60.0)
        load.wait_progress()
    load.check()
    developing.resource.check_one_owner()
    developing.check_same_state()
    slow = sorted(took.items(), key=lambda item: -item[1])[:8]
    print(f"{len(took)} deaths in {sum(took.values()):.0f} s of lives; slowest {slow}", file=sys.stderr)


def grow_past_a_snapshot(pokes: Pokes, present: list[Host]) -> None:
    """Have these hosts forget the log that a host that is away needs.

    A leader keeps entries before its snapshot in memory for such a host, so they start again as well.
    """

    def snapshots(host: Host) -> list[str]:
        found = (host.data_dir / "raft").glob("snapshot-*")
        return sorted(path.name for path in found if not path.suffix)

    before = {host.name: snapshots(host) for host in present}

    def have_grown() -> bool:
        with contextlib.suppress(grpc.RpcError):
            pokes.grow(present[0])
        return all(snapshots(host) not in ([], before[host.name]) for host in present)

    wait_for(have_grown, "the logs are compacted", 60.0)
    for host in present:
        host.kill()
        host.start()


def test_errors_and_stalls_everywhere_cost_time_and_nothing_else(developing: Cluster) -> None:
    """Goal: what can fail for a moment may fail. Method: two hosts with an error or a stall at every place
    that is not fatal, a few times each, under load; then a leader that is one of them."""
    developing.wait_whole()
    one, two, steady = developing.hosts
    kinds = {
        each.name: "stall:30:2@3" if each.raises in (Raises.NOTHING, Raises.STORAGE) else "error:2@3"
        for each in FAILPOINTS.values()
    }
    pokes = Pokes(developing, steady)
    with Load(developing.hosts, writers=2, readers=1) as load, Sight(developing):
        for host in (one, two):
            before = len(strikes(host.log_path))
            host.kill()
            start_armed(host, *(f"{name}={kind}" for name, kind in kinds.items()))
            for poke in (Pokes.use, Pokes.lead, Pokes.declare, Pokes.token, Pokes.use_following):
                for _ in range(6):
                    with contextlib.suppress(grpc.RpcError):
                        poke(pokes, host)
            developing.wait_whole(60.0)
            assert len(set(strikes(host.log_path)[before:])) >= REACHED_MIN
            load.wait_progress()
        assert one.is_running()
        assert two.is_running()
    load.check()
    developing.resource.check_one_owner()
    developing.check_same_state()


def test_the_command_shows_what_a_running_sidecar_has_armed(developing: Cluster) -> None:
    """Goal: nobody wonders what is armed. Method: arm, look with the command; start anew, look again."""
    host = developing.hosts[1]
    host.kill()
    start_armed(host, "driver.turn.done=stall:1:1@1000000")
    developing.wait_whole()
    shown = host.trellis("failpoints", "--json")
    assert '"armed": "driver.turn.done=stall:1:1@1000000"' in shown.stdout
    host.kill()
    host.start()
    developing.wait_whole()
    assert '"armed": "driver' not in host.trellis("failpoints", "--json").stdout


def test_failpoints_without_development_mode_end_the_start(developing: Cluster) -> None:
    """Goal: never in production by accident. Method: the variable set, the mode not."""
    host = developing.hosts[2]
    other = host.directory / "plain.toml"
    shutil.copy(host.settings_path, other)
    other.write_text(other.read_text().replace("mode = true", "mode = false"))
    argv = [*TRELLIS, "run", "--settings", str(other)]
    armed = environment({VARIABLE: "driver.turn.done=crash"})
    done = subprocess.run(argv, capture_output=True, text=True, env=armed, check=False)
    assert done.returncode == 64
    assert "development mode only" in done.stderr
