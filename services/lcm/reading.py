"""Operations for all who wait for one: whoever asks while a read is under way shares the next one.

So a change costs an instance one read, or two, however many wait for it.

Invariant: a read that answers began after it was asked for.

Bound: as many ask as `feed.WATCHES_MAX` lets wait.
"""

import asyncio
from collections.abc import Mapping

from mesh.errors import NotFound, TrellisError
from services.lcm.model import Operation
from services.lcm.store import Store

Asked = dict[str, "asyncio.Future[Operation]"]


class Operations:
    """Reads operations while `run` runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: Asked = {}
        self._news = asyncio.Event()

    async def read(self, operation_id: str) -> Operation:
        """As it is now. Fails: `NotFound`; as `Store.operations_of`."""
        answer = self._asked.get(operation_id)
        if answer is None:
            answer = self._asked[operation_id] = asyncio.get_running_loop().create_future()
            self._news.set()
        return await asyncio.shield(answer)  # others may wait for it as well

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            asked, self._asked = self._asked, {}
            try:
                found = await self._store.operations_of(list(asked))
            except TrellisError as failure:
                for answer in asked.values():
                    answer.set_exception(failure)
                    answer.exception()  # nobody may be left who asks
            else:
                _answer(asked, found)


def _answer(asked: Asked, found: Mapping[str, Operation]) -> None:
    for operation_id, answer in asked.items():
        if operation_id in found:
            answer.set_result(found[operation_id])
        else:
            answer.set_exception(NotFound(f"There is no operation {operation_id}.", id=operation_id))
            answer.exception()  # as above
