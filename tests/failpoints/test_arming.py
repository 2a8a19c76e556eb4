"""What is armed: how it is written, when it is due, and what a live process does then."""

import asyncio
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mesh import failpoints
from mesh.adapters.armed import VARIABLE, LiveFaults, arm, armings_of, error_at, record, recorded
from mesh.errors import SettingsError, StorageFailed, TrellisError
from mesh.failpoints import FAILPOINTS, Raises
from mesh.failpoints.arming import Action, Armed, Arming, parse, words_of
from mesh.settings import HostSettings, parse_settings

HIT, PASSING = "log.write.before-commit", "beats.before-send"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    """Whatever a test arms is gone after it."""
    before = failpoints.install(None)
    yield
    failpoints.install(before)


def settings(tmp_path: Path, more: str = "") -> HostSettings:
    text = f'[host]\nname="host1"\nrun_dir="{tmp_path}"\n[mesh]\naddress="127.0.0.1:7400"\n{more}'
    return parse_settings(tomllib.loads(text))


@pytest.mark.parametrize(
    ("word", "armed"),
    [
        (f"{HIT}=crash", Arming(HIT, Action.CRASH)),
        (f"{HIT}=error:3", Arming(HIT, Action.ERROR, 0, 3)),
        (f"{HIT}=stall:20", Arming(HIT, Action.STALL, 20)),
        (f"{HIT}=stall:20:1@50", Arming(HIT, Action.STALL, 20, 1, 50)),
        (f"{HIT}=crash@7", Arming(HIT, Action.CRASH, 0, None, 7)),
    ],
)
def test_an_item_is_read_and_written_alike(word: str, armed: Arming) -> None:
    """Goal: what is shown can be used again. Method: there and back."""
    assert parse(word) == armed
    assert str(armed) == word


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nothing", "is not NAME="),
        (f"{HIT}=explode", "is not NAME="),
        (f"{HIT}=stall", "is not NAME="),
        (f"{HIT}=crash:x", "is not NAME="),
        ("driver.turn=crash", "there is no failpoint 'driver.turn'"),
        ("driver.turn.done=error", "cannot fail, only crash or stall"),
        (f"{HIT}=crash:0", "would never happen"),
        (f"{HIT}=stall:600001", "stalls for longer"),
    ],
)
def test_a_mistake_has_its_own_sentence(word: str, said: str) -> None:
    """Goal: nobody believes that something is armed which is not. Method: each kind of mistake."""
    with pytest.raises(ValueError, match=said):
        parse(word)


def test_hits_are_counted_from_the_first_that_is_not_skipped() -> None:
    """Goal: `:COUNT@SKIP` means what it says. Method: ten hits of a place armed for two after three."""
    armed = Armed([parse(f"{HIT}=error:2@3")])
    assert [armed.due(HIT) is not None for _ in range(10)] == [n in (3, 4) for n in range(10)]
    assert armed.due("driver.turn.done") is None


def test_the_environment_arms_in_development_mode_only(tmp_path: Path) -> None:
    """Goal: never in production by accident. Method: the variable with and without the mode."""
    given = {VARIABLE: f" {HIT}=crash , {PASSING}=error "}
    with pytest.raises(SettingsError, match="development mode only"):
        armings_of(settings(tmp_path), given)
    developing = settings(tmp_path, f'[development]\nmode=true\nfailpoints=["{HIT}=crash@9"]')
    with pytest.raises(SettingsError, match="armed twice"):
        armings_of(developing, given)
    assert [str(each) for each in armings_of(developing, {VARIABLE: f"{PASSING}=error"})] == [
        f"{HIT}=crash@9",
        f"{PASSING}=error",
    ]
    assert words_of("") == ()


def test_nothing_armed_installs_nothing(tmp_path: Path) -> None:
    """Goal: production pays one comparison. Method: the handler after arming with nothing."""
    assert arm(settings(tmp_path), {}) == ()
    assert failpoints.install(None) is None


def test_what_is_armed_is_on_record_while_the_process_runs(tmp_path: Path) -> None:
    """Goal: `trellis failpoints` tells what is so. Method: record, look; nothing armed leaves nothing."""
    here = settings(tmp_path)
    assert recorded(here) == {}
    record(here, (parse(f"{HIT}=crash@9"),))
    assert recorded(here) == {HIT: f"{HIT}=crash@9"}
    (tmp_path / "failpoints.json").write_text('{"pid": 99999999, "armed": {"a": "b"}}')
    assert recorded(here) == {}
    record(here, ())
    assert not (tmp_path / "failpoints.json").exists()


@pytest.mark.parametrize("name", [name for name, each in FAILPOINTS.items() if each.raises != Raises.NOTHING])
def test_an_error_is_of_the_declared_kind(name: str) -> None:
    """Goal: a place raises what it can really raise. Method: hit each with an error armed."""
    failpoints.install(LiveFaults(Armed([parse(f"{name}=error:1")])))
    expected = type(error_at(name))
    assert issubclass(expected, TrellisError | OSError | grpc.aio.AioRpcError)
    with pytest.raises(expected):
        reach(name)


def reach(name: str) -> None:
    """Come to a place of either kind."""

    async def passing() -> None:
        await failpoints.passing(name)

    if FAILPOINTS[name].awaits:
        asyncio.run(passing())
    else:
        failpoints.hit(name)


async def test_a_stall_awaits_where_the_place_awaits_and_blocks_where_it_does_not() -> None:
    """Goal: as the place could really do. Method: whether others of the loop go on meanwhile."""
    failpoints.install(LiveFaults(Armed([parse(f"{PASSING}=stall:50"), parse(f"{HIT}=stall:50")])))
    loop, others = asyncio.get_running_loop(), list[float]()
    began = loop.time()
    loop.call_later(0.01, lambda: others.append(loop.time() - began))
    await failpoints.passing(PASSING)
    assert len(others) == 1
    assert loop.time() - began >= 0.05
    loop.call_later(0.01, lambda: others.append(loop.time() - began))
    failpoints.hit(HIT)
    assert len(others) == 1
    assert loop.time() - began >= 0.1


def test_a_crash_ends_the_process_at_once_and_says_where() -> None:
    """Goal: as by SIGKILL, with no clean-up. Method: a process with a `finally` that would print."""
    program = (
        "from mesh import failpoints\n"
        "from mesh.adapters.armed import LiveFaults\n"
        "from mesh.failpoints.arming import Armed, parse\n"
        f"failpoints.install(LiveFaults(Armed([parse('{HIT}=crash@1')])))\n"
        f"try:\n  failpoints.hit('{HIT}'); print('once', flush=True); failpoints.hit('{HIT}')\n"
        "finally:\n  print('cleaned up', flush=True)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "once\n")
    assert f'"name": "{HIT}"' in ran.stderr


def test_a_failed_write_of_the_log_is_fatal_also_when_the_place_is_armed(tmp_path: Path) -> None:
    """Goal: the error goes the way of a real one. Method: the store, with the second commit armed."""
    from mesh.adapters.sqlite_log import SqliteLog
    from mesh.raft.model import Ready
    from tests.adapters.test_sqlite_log import CLUSTER, MEMBER, entries, hard

    store = SqliteLog(tmp_path / "raft", CLUSTER, MEMBER, create=True)
    failpoints.install(LiveFaults(Armed([parse(f"{HIT}=error:1@1")])))
    store.save(Ready(hard_state=hard(1), entries=entries(1, 1), must_sync=True))
    for _ in range(2):
        with pytest.raises(StorageFailed):
            store.save(Ready(hard_state=hard(2), must_sync=True))
    store.close()
    assert os.listdir(tmp_path / "raft")
