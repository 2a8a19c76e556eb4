"""What a driver takes from its machine beside network and disk: a clock, chance, and threads that write.

A port in one value, so that the same driver lives on a simulated machine.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from mesh.adapters.clock import boottime_ns
from mesh.adapters.log_writer import LogWriter
from mesh.ports import Chance, Writer

#: Spreads candidates and attempts; nothing is decided by it.
CHANCE: Chance = random.SystemRandom()


def _in_a_thread(name: str) -> Writer:
    return LogWriter(asyncio.get_running_loop(), name)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One machine, as a driver knows it."""

    #: CLOCK_BOOTTIME: never set, goes on while the machine is suspended.
    boottime_ns: Callable[[], int] = boottime_ns
    chance: Chance = CHANCE
    #: Makes a writer by its name; called in the event loop.
    make_writer: Callable[[str], Writer] = _in_a_thread


MACHINE = Surroundings()
