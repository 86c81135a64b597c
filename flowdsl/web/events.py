"""Server-sent events: a run while it executes.

One thread waits for changes of the storage, for any number of open pages. Then each stream reads what is new
to it. A stream begins with the records so far, and ends with its run.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from attrs import define, field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from flowdsl.core.records import Step
from flowdsl.core.views import log_view, run_view, scope_paths, step_view
from flowdsl.entries import LogLine
from flowdsl.errors import FlowError
from flowdsl.following import PAUSE, TICK, Following
from flowdsl.runtime import Runtime
from flowdsl.storage import Storage
from flowdsl.web.answers import Refusal
from flowdsl.web.api import LAST_SEQ
from flowdsl.web.page_request import PageRequest
from flowdsl.web.query import number

__all__ = ["Pulse", "stream"]

logger = logging.getLogger("flowdsl")

_COMMENT = 15.0  # seconds of silence, at most
_READERS = 2  # threads that read, for all streams together
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
        """Start again on another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._task, self._streams = loop, None, 0
            self._readers = CapacityLimiter(_READERS)

    async def wait(self, timeout: float) -> None:
        """Wait until something may have changed, *timeout* seconds at most."""
        try:
            await asyncio.wait_for(self._beat.wait(), timeout)
        except TimeoutError:
            pass

    async def _watch(self) -> None:
        seen = 0
        while self._streams and not self.closed:
            now = await run_in_threadpool(self.storage.wait_for_change, seen, TICK)
            if now != seen:
                seen, beat = now, self._beat
                self._beat = asyncio.Event()
                beat.set()
            await asyncio.sleep(PAUSE)


async def stream(request: PageRequest, pulse: Pulse) -> Response:
    """The events of a run."""
    after = _position(request)
    if await pulse.read(lambda: request.runtime.run(request.name) if request.name else None) is None:
        raise Refusal(404, "there is no such run")
    if request.http.method == "HEAD":
        return Response(media_type="text/event-stream")
    return StreamingResponse(
        _events(request.runtime, request.name, after, pulse), media_type="text/event-stream"
    )


def _position(request: PageRequest) -> int:
    """The number of the last record that the client has."""
    sent = request.http.headers.get("last-event-id", "").strip()
    if sent:
        return number([("Last-Event-ID", sent)], "Last-Event-ID", 0, LAST_SEQ, 0)
    return number(request.query, "steps_after", 0, LAST_SEQ, 0)


async def _events(runtime: Runtime, run_id: str, after: int, pulse: Pulse) -> AsyncIterator[str]:
    pulse.open()
    try:
        following = Following(runtime.storage, run_id, after)
        shown: dict[str, Any] | None = None
        spoke = time.monotonic()
        while not pulse.closed:
            try:
                look = await pulse.read(lambda: following.look(_BATCH))
            except FlowError as error:  # the next request gets the error as a status
                logger.warning("the events of run %s end: %s", run_id, str(error))
                return
            if look is None:  # deleted meanwhile
                yield _event("end", {"id": run_id, "status": "deleted"})
                return
            row = run_view(look.run, look.status)
            said = []
            if row != shown:
                said.append(_event("run", row))
                shown = row
            said += _told(look.fresh)
            if look.ended:
                said.append(_event("end", {"id": run_id, "status": look.status}))
                yield "".join(said)
                return
            if said or time.monotonic() - spoke >= _COMMENT:
                yield "".join(said) or ":\n\n"
                spoke = time.monotonic()
            if not look.more:
                await pulse.wait(TICK)
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
