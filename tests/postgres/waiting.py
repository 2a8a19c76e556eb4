"""Waiting for what other tasks of the same loop do."""

import asyncio
from collections.abc import Callable

TURNS_MAX = 1_000


async def until_true(holds: Callable[[], bool]) -> None:
    """Let other tasks run until it holds."""
    for _ in range(TURNS_MAX):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"not within {TURNS_MAX} turns of the loop")
