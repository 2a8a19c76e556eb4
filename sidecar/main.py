"""The sidecar program: settings in, exit code out."""

import asyncio
import os
import sys
import traceback
from pathlib import Path

import structlog

from mesh.adapters import armed
from mesh.errors import SettingsError, TrellisError
from mesh.settings import HostSettings, load_settings
from mesh.settings.directories import make_run_directories
from mesh.telemetry.logs import configure_logs

EXIT_DONE = 0
EXIT_REFUSED = 1
EXIT_SETTINGS = 64


def run(settings_path: Path) -> int:
    """Run the sidecar of one host until it is told to stop; returns the exit code.

    Errors that an operator can mend are printed and end it with a code; a
    broken invariant is a bug and comes through with its traceback.
    """
    _prefer_own_programs()
    try:
        settings = load_settings(settings_path)
        make_run_directories(settings)
        configure_logs(settings.logs.level, settings.logs.format)
        armed.record(settings, armed.arm(settings, os.environ))
        asyncio.run(_run(settings))
    except TrellisError as error:
        return _report(error)
    return EXIT_DONE


def _report(error: BaseException) -> int:
    """Say what ended the sidecar; returns the exit code for it."""
    if isinstance(error, SettingsError):
        print(error, file=sys.stderr)
        return EXIT_SETTINGS
    if isinstance(error, TrellisError):
        structlog.get_logger(__name__).error("sidecar-ended", reason=error.reason, error=str(error))
    else:
        traceback.print_exception(error)
    return EXIT_REFUSED


def _end_process(error: BaseException) -> None:
    """The last act after a fatal error; nothing is held any more."""
    code = _report(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _prefer_own_programs() -> None:
    """Let declarations name the programs that are installed with Trellis without their path."""
    own = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if own not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([own, path])


async def _run(settings: HostSettings) -> None:
    from sidecar.app.sidecar import Sidecar  # the loop must run when the parts are made

    await Sidecar(settings, _end_process).run()
