"""What happens at an armed failpoint in a live process: it ends, the place fails, or it stalls.

Only in development mode. What is armed stands in the settings and in the
environment variable TRELLIS_FAILPOINTS; the running sidecar writes it into its run
directory, where `trellis failpoints` reads it.
"""

import asyncio
import errno
import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from mesh.errors import (
    OutcomeUnknown,
    PeerUnreachable,
    Problem,
    SettingsError,
    StorageFailed,
    Unavailable,
)
from mesh.failpoints import FAILPOINTS, Raises, install
from mesh.failpoints.arming import Action, Armed, Arming, arming_problems, parse, words_of
from mesh.settings.model import HostSettings

VARIABLE: Final = "TRELLIS_FAILPOINTS"


class LiveFaults:
    """The handler of a live process. Says on standard error what it does, before it does it."""

    def __init__(self, armed: Armed) -> None:
        self._armed = armed

    def hit(self, name: str) -> None:
        """A stall blocks this thread."""
        arming = self._armed.due(name)
        if arming is not None:
            _announce(arming)
            if arming.action is Action.STALL:
                threading.Event().wait(arming.stall_ms / 1000)
            else:
                _strike(arming)

    async def passing(self, name: str) -> None:
        """A stall awaits."""
        arming = self._armed.due(name)
        if arming is not None:
            _announce(arming)
            if arming.action is Action.STALL:
                await asyncio.sleep(arming.stall_ms / 1000)
            else:
                _strike(arming)


def _announce(arming: Arming) -> None:
    line = json.dumps({"event": "failpoint", "name": arming.name, "action": arming.action.value})
    os.write(2, line.encode() + b"\n")  # past all buffers: a crash follows at once


def _strike(arming: Arming) -> NoReturn:
    if arming.action is Action.CRASH:
        os.kill(os.getpid(), signal.SIGKILL)
        while True:  # the signal is on its way to this thread
            signal.pause()
    raise error_at(arming.name)


def error_at(name: str) -> Exception:
    """An error as the place really raises."""
    text = f"the failpoint {name} is armed"
    match FAILPOINTS[name].raises:
        case Raises.STORAGE:
            return StorageFailed(text)
        case Raises.OS:
            return OSError(errno.EIO, text)
        case Raises.STREAM:
            import grpc  # a large library, needed only here

            nothing = grpc.aio.Metadata()
            return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details=text)
        case Raises.UNREACHABLE:
            return PeerUnreachable(text)
        case Raises.UNKNOWN:
            return OutcomeUnknown(text)
        case _:
            return Unavailable(text)


def armings_of(settings: HostSettings, environment: Mapping[str, str]) -> tuple[Arming, ...]:
    """What settings and environment arm together.

    Fails: SettingsError without development mode, for unknown names and for what is armed twice.
    """
    given = words_of(environment.get(VARIABLE, ""))
    problems = list(arming_problems((*settings.development.failpoints, *given), VARIABLE))
    if given and not settings.development.mode:
        problems.insert(0, Problem(VARIABLE, "failpoints work in development mode only", "mode = true"))
    if problems:
        raise SettingsError(f"{VARIABLE} cannot be used: {len(problems)} problem(s).", problems)
    return tuple(parse(word) for word in (*settings.development.failpoints, *given))


def arm(settings: HostSettings, environment: Mapping[str, str]) -> tuple[Arming, ...]:
    """Arm this process. Fails: as `armings_of`."""
    armings = armings_of(settings, environment)
    install(LiveFaults(Armed(armings)) if armings else None)
    return armings


# ---- telling others -------------------------------------------------------------------


def record_path(settings: HostSettings) -> Path:
    """Where a sidecar says what it has armed."""
    return settings.host.run_dir / "failpoints.json"


def record(settings: HostSettings, armings: tuple[Arming, ...]) -> None:
    """Let `trellis failpoints` know; nothing is left behind in production."""
    path = record_path(settings)
    if not armings:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {each.name: str(each) for each in armings}
    path.write_text(json.dumps({"pid": os.getpid(), "armed": words}))


def recorded(settings: HostSettings) -> dict[str, str]:
    """What the sidecar of this host has armed, by name; empty when it does not run."""
    try:
        found = json.loads(record_path(settings).read_text())
        os.kill(int(found["pid"]), 0)
        return {str(name): str(word) for name, word in found["armed"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
