"""A bounded queue between synchronous senders and one writing task."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """What waits to be written to one stream.

    Bound: *bound* items; the oldest is dropped for a new one, because Raft says
    everything again and the newest says most.
    """

    def __init__(self, bound: int) -> None:
        self._items: deque[T] = deque(maxlen=bound)
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Queue *item*; False when the oldest had to go."""
        had_room = len(self._items) < (self._items.maxlen or 0)
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return had_room

    async def wait_filled(self) -> None:
        """Wait until there is something. One task at a time."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def take(self) -> T:
        """The oldest item, as soon as there is one."""
        if not self._items:
            await self.wait_filled()
        return self._items.popleft()

    async def take_some(self, count_max: int, weight_max: int, weigh: Callable[[T], int]) -> list[T]:
        """The oldest items, at least one, up to either bound."""
        taken = [await self.take()]
        weight = weigh(taken[0])
        items = self._items
        while items and len(taken) < count_max and (weight := weight + weigh(items[0])) <= weight_max:
            taken.append(items.popleft())
        return taken

    def clear(self) -> None:
        self._items.clear()
