"""Server-sent events: a run while it executes.

However many pages are open, one thread waits for changes of the storage; each stream then reads what is new
to it. A stream begins with what is recorded and ends with its run.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from attrs import define, field, frozen
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from flowdsl.core.records import Run, Step
from flowdsl.core.status import is_final
from flowdsl.core.views import log_view, run_view, scope_paths, step_view
from flowdsl.entries import LogLine
from flowdsl.errors import FlowError
from flowdsl.runtime import Runtime
from flowdsl.storage import Storage
from flowdsl.web.answers import Refusal
from flowdsl.web.api import LAST_SEQ
from flowdsl.web.asked import Asked
from flowdsl.web.query import number
from flowdsl.web.reading import shown_status

__all__ = ["Pulse", "stream"]

logger = logging.getLogger("flowdsl")

_TICK = 1.0  # seconds between two looks while nothing is written: nobody writes that a process has died
_PAUSE = 0.1  # seconds between two looks at least
_COMMENT = 15.0  # seconds of silence at most
_READERS = 2  # threads that read for all streams together
_BATCH = 1000  # records read at once


Found = TypeVar("Found")


@define(eq=False)
class Pulse:
    """Tells all streams of one event loop that something may have changed."""

    storage: Storage
    closed: bool = False
    _version: int = 0
    _streams: int = 0
    _beat: asyncio.Event = field(factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _loop: asyncio.AbstractEventLoop | None = None
    _readers: CapacityLimiter | None = None

    def open(self) -> None:
        """A stream begins."""
        self._at_home()
        self._streams += 1
        if self._task is None or self._task.done():
            self._beat = asyncio.Event()
            self._task = asyncio.create_task(self._watch())

    async def read(self, look: Callable[[], Found]) -> Found:
        """Read the storage in one of the few threads that all streams share."""
        self._at_home()
        return await to_thread.run_sync(look, limiter=self._readers)

    def leave(self) -> None:
        """A stream ends."""
        self._streams -= 1

    def close(self) -> None:
        """End all streams; can be called from any thread."""
        self.closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._beat.set)

    def _at_home(self) -> None:
        """Begin anew on another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._task, self._streams = loop, None, 0
            self._readers = CapacityLimiter(_READERS)

    async def wait(self, timeout: float) -> None:
        """Until something may have changed, *timeout* seconds at most."""
        try:
            await asyncio.wait_for(self._beat.wait(), timeout)
        except TimeoutError:
            pass

    async def _watch(self) -> None:
        seen = 0
        while self._streams and not self.closed:
            now = await run_in_threadpool(self.storage.wait_for_change, seen, _TICK)
            if now != seen:
                seen, beat = now, self._beat
                self._beat = asyncio.Event()
                beat.set()
            await asyncio.sleep(_PAUSE)


@frozen
class News:
    """What one look found: the row of the run, its records that are new, and whether there are more."""

    run: Run
    status: str
    fresh: tuple[Step, ...]
    more: bool


async def stream(asked: Asked, pulse: Pulse) -> Response:
    """The events of a run."""
    after = _position(asked)
    if await pulse.read(lambda: asked.runtime.run(asked.name) if asked.name else None) is None:
        raise Refusal(404, "there is no such run")
    if asked.request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return StreamingResponse(_events(asked.runtime, asked.name, after, pulse), media_type="text/event-stream")


def _position(asked: Asked) -> int:
    """The number of the last record that the client has."""
    sent = asked.request.headers.get("last-event-id", "").strip()
    if sent:
        return number([("Last-Event-ID", sent)], "Last-Event-ID", 0, LAST_SEQ, 0)
    return number(asked.query, "steps_after", 0, LAST_SEQ, 0)


def _look(runtime: Runtime, run_id: str, after: int) -> News | None:
    storage = runtime.storage
    run = storage.get_run(run_id) if run_id else None  # first: nothing is recorded after the end
    if run is None:
        return None
    fresh = storage.list_steps(run_id, after=after, limit=_BATCH, payloads=False)
    return News(run, shown_status(runtime, run), tuple(fresh), len(fresh) == _BATCH)


async def _events(runtime: Runtime, run_id: str, after: int, pulse: Pulse) -> AsyncIterator[str]:
    pulse.open()
    try:
        shown: dict[str, Any] | None = None
        generation = 0
        spoke = time.monotonic()
        while not pulse.closed:
            position = after
            try:
                news = await pulse.read(lambda: _look(runtime, run_id, position))  # noqa: B023 - called at once
            except FlowError as error:  # whoever asks again is told by the status
                logger.warning("the events of run %s end: %s", run_id, str(error))
                return
            if news is None:  # deleted meanwhile
                yield _event("end", {"id": run_id, "status": "deleted"})
                return
            if generation and news.run.generation != generation:  # its journal began anew
                after = 0
            generation = news.run.generation
            row = run_view(news.run, news.status)
            said = []
            if row != shown:
                said.append(_event("run", row))
                shown = row
            said += _told(news.fresh)
            after = max([after, *(step.seq for step in news.fresh)])
            if is_final(news.run.status) and not news.more:
                said.append(_event("end", {"id": run_id, "status": news.status}))
                yield "".join(said)
                return
            if said or time.monotonic() - spoke >= _COMMENT:
                yield "".join(said) or ":\n\n"
                spoke = time.monotonic()
            if not news.more:
                await pulse.wait(_TICK)
    finally:
        pulse.leave()


def _told(fresh: tuple[Step, ...]) -> list[str]:
    """The events of new records."""
    paths = scope_paths(fresh) if any(step.kind == "log" for step in fresh) else {}
    told = []
    for step in fresh:
        if step.kind == "log":
            told.append(_event("log", log_view(LogLine.of(step), paths), step.seq))
        elif step.kind not in ("store", "audit"):
            told.append(_event("step", step_view(step), step.seq))
    return told


def _event(name: str, data: Any, number: int | None = None) -> str:
    place = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{place}data: {json.dumps(data, separators=(',', ':'))}\n\n"
