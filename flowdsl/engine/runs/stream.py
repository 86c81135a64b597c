"""Reading the channels of a run from any process: the last item, or all of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator

from flowdsl.core.records import Item
from flowdsl.core.status import is_final
from flowdsl.core.words import clean
from flowdsl.engine.engine import Engine
from flowdsl.engine.operations.publish import checked_channel, item_of
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import check_waiting
from flowdsl.errors import RunNotFound, WaitTimeout
from flowdsl.storage.topics import run_topic
from flowdsl.threads import wait_in_thread

__all__ = ["Stream", "latest"]

_PAGE = 500  # items that are read at a time
_LOOK = 0.5  # longest time between two looks, in seconds, where nothing tells of a change
_TURN = 0.05  # seconds between two looks of async code


class Stream:
    """The items of a channel, oldest first. Iterate over it; in async code use ``async for``.

    Each iteration begins anew. Without *follow* it ends after the present items. With *follow* it ends when
    the run has ended.
    """

    def __init__(self, engine: Engine, run_id: str, channel: str, after: int, follow: bool) -> None:
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            raise ValueError(f"after= is the number of items to pass over, from 0; got {after!r}")
        self._engine = engine
        self._run_id = run_id
        self._channel = checked_channel(channel)
        self._after = after
        self._follow = follow

    def _pages(self) -> Generator[list[Item] | None, None, None]:
        """Pages of items. ``None`` means that nothing is there yet."""
        storage = self._engine.storage
        after = self._after
        while True:
            run = storage.get_run(self._run_id)  # before the items: the last of them come before the end
            page = storage.list_items(self._run_id, self._channel, after=after, limit=_PAGE)
            if page:
                after = page[-1].n
                yield page
            elif run is None or is_final(run.status) or not self._follow:
                if run is None and self._after == after:
                    raise RunNotFound(f"no run {self._run_id!r} in this storage", run=self._run_id)
                return
            else:
                yield None

    def __iter__(self) -> Iterator[Value]:
        storage = self._engine.storage
        topics = (run_topic(self._run_id),)
        seen = storage.wait_for_change(0, 0.0, topics)
        for page in self._pages():
            if page is None:
                self._engine.require_open(self._run_id)
                seen = storage.wait_for_change(seen, _LOOK, topics)
                check_waiting()
            for item in page or ():
                yield item_of(self._engine, item)

    async def __aiter__(self) -> AsyncIterator[Value]:
        pages = self._pages()
        inline = self._engine.storage.inline
        while True:
            page = next(pages, ()) if inline else await wait_in_thread(next, pages, ())
            if page is None:
                self._engine.require_open(self._run_id)
                await asyncio.sleep(_TURN)
                continue
            if not page:
                return
            for item in page:
                yield item_of(self._engine, item)

    def __repr__(self) -> str:
        return clean(f"<stream {self._channel!r} of run {self._run_id}>")


def latest(engine: Engine, run_id: str, channel: str, timeout: float | None) -> Value:
    """The last item of *channel*, or ``None``. With *timeout* (seconds), wait for the first one.

    Raises :class:`~flowdsl.errors.WaitTimeout`; at once if the run has ended without an item.
    """
    checked_channel(channel)
    storage = engine.storage
    topics = (run_topic(run_id),)
    end = None if timeout is None else time.monotonic() + timeout
    seen = storage.wait_for_change(0, 0.0, topics)
    while True:
        run = storage.get_run(run_id)
        item = storage.last_item(run_id, channel)
        if item is not None:
            return item_of(engine, item)
        if run is None:
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        if end is None:
            return None
        left = end - time.monotonic()
        if left <= 0 or is_final(run.status):
            raise WaitTimeout(f"run {run_id} has published nothing on {channel!r}", run=run_id)
        engine.require_open(run_id)
        seen = storage.wait_for_change(seen, min(left, _LOOK), topics)
        check_waiting()
