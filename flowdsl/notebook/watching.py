"""Runs shown while they execute: in a notebook as HTML, in a terminal as one line.

The rules
    * Outside :func:`live` nothing exists: no hook, no thread, no timer.
    * Hooks report only the beginning and end of a run, not its steps. A thread of our own reads the records
      of the run while it executes.
    * There are at most four frames a second. If a frame takes long, there are fewer: the thread works for a
      hundredth of the time. No frame, not even the last, reads more than about :data:`READ` records, because
      reading one takes as long as executing a quick step.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any, ClassVar, Protocol
from uuid import uuid4

from attrs import define, field

from flowdsl.blocks import block
from flowdsl.core.durations import seconds
from flowdsl.core.naming import in_notebook
from flowdsl.errors import FlowError
from flowdsl.handle import Run, look, records
from flowdsl.hooks import Hooks, installed
from flowdsl.notebook.frames import LAST, Frame, html, line

__all__ = ["Screen", "Watcher", "live"]

FRAME = 0.25
"""Seconds between two frames, at least."""

SHARE = 0.01
"""The part of the time that drawing may take."""

READ = 100
"""Records read for one frame, at most. If there are more, only the last ones are read, and the others are not
counted by name."""


class Screen(Protocol):
    """Where frames are drawn."""

    at_once: ClassVar[bool]
    """Whether the last frame of a run has to come before its caller goes on, and prints on the same line."""

    def draw(self, shown: "list[WatchedRun]") -> None:
        """Draw the runs that have a new frame."""

    def close(self) -> None:
        """End the drawing. The last picture stays."""


@define(eq=False)
class WatchedRun:
    """One watched run: since when (monotonic), the context of its cell, and its frame."""

    run: Run[Any]
    since: float
    context: Context
    frame: Frame = field(factory=Frame)
    visible: bool = False
    ended: bool = False


class Watcher(Hooks):
    """Hears of runs by hooks, and draws those that take longer than *after* seconds on *screen*."""

    def __init__(self, screen: Screen, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._after = after
        self._clock = clock
        self._runs: dict[str, WatchedRun] = {}
        self._changed = threading.Condition()
        self._looking = threading.Lock()
        self._drawing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def on_run_start(self, run: Run[Any]) -> None:
        """Watch it."""
        with self._changed:
            if run.id in self._runs or self._closed:
                return
            self._runs[run.id] = WatchedRun(run, self._clock(), copy_context())
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flowdsl-live", daemon=True)
                self._thread.start()
            self._changed.notify()

    def on_run_complete(self, run: Run[Any], result: Any) -> None:
        """Draw it for the last time."""
        self._end(run.id)

    def on_run_fail(self, run: Run[Any], error: BaseException) -> None:
        """The same."""
        self._end(run.id)

    def on_run_cancel(self, run: Run[Any]) -> None:
        """The same."""
        self._end(run.id)

    def _end(self, run_id: str) -> None:
        with self._changed:
            shown = self._runs.get(run_id)
            if shown is None:
                return
            if not shown.visible and self._after > 0:
                del self._runs[run_id]  # it has ended before it was shown
                return
        try:
            self._look(shown)  # now, because its runtime may be closed before the next frame
        finally:
            with self._changed:
                shown.ended = True
                self._changed.notify()
        if shown.visible and self._screen.at_once:
            self.tick()

    def _look(self, shown: WatchedRun) -> None:
        with self._looking:
            if not shown.ended:
                _look(shown)

    @block
    def sooner(self, after: float) -> Iterator[None]:
        """In the block, show runs already after *after* seconds."""
        before, self._after = self._after, min(self._after, after)
        try:
            yield
        finally:
            self._after = before

    def close(self) -> None:
        """Draw the last frames and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self.tick(last=True)
        self._screen.close()

    def tick(self, last: bool = False) -> float | None:
        """Draw what is due. Return the seconds until the next frame, or ``None`` if there is nothing to wait
        for."""
        with self._drawing:
            return self._tick(last)

    def _tick(self, last: bool) -> float | None:
        now = self._clock()
        with self._changed:
            due = [one for one in self._runs.values() if one.visible or now - one.since >= self._after]
            early = [one.since + self._after - now for one in self._runs.values() if one not in due]
        drawn = []
        for shown in due:
            try:
                if not shown.visible and shown.run.parent is not None:
                    self._forget(shown)  # a child is part of the picture of its root
                    continue
                shown.visible = True
                self._look(shown)
            except FlowError:  # its runtime was closed, or it was deleted
                self._forget(shown)
                continue
            drawn.append(shown)
            if shown.ended or last:
                self._forget(shown)
        if drawn:
            self._screen.draw(drawn)
        if any(not one.ended for one in drawn):
            return FRAME
        return min(early, default=None)

    def _forget(self, shown: WatchedRun) -> None:
        with self._changed:
            self._runs.pop(shown.run.id, None)

    def _work(self) -> None:
        rest = 0.0
        while True:
            with self._changed:
                if not self._closed and rest > 0:
                    self._changed.wait(rest)  # a run that begins or ends meanwhile waits for this rest too
                if self._closed:
                    return
            begun = time.thread_time()
            wait = self.tick()
            rest = max((time.thread_time() - begun) / SHARE, FRAME)
            if wait is None:
                with self._changed:
                    if not self._closed and not self._runs:
                        self._changed.wait()
                rest = 0.0


def _look(shown: WatchedRun) -> None:
    """Add the records since the last look to the frame. If there are too many, add only the last ones."""
    frame, run = shown.frame, shown.run
    seen = look(run, after=frame.seen, limit=READ)
    if len(seen.steps) < READ:
        frame.take(seen.run, seen.state, seen.steps, seen.now)
        return
    last = _last_number(run, seen.steps[-1].seq)
    end = look(run, after=max(last - LAST, seen.steps[-1].seq), limit=READ)
    frame.take(end.run, end.state, end.steps, end.now, skipped=True)


def _last_number(run: Run[Any], known: int) -> int:
    """About the highest number of a record of *run*. *known* is the number of one record. The search goes in
    steps that grow, and then shrink."""

    def beyond(number: int) -> bool:
        return bool(records(run, after=number, limit=1))

    stride = READ
    while beyond(known + stride):
        known += stride
        stride *= 2
    while stride > LAST:
        stride //= 2
        if beyond(known + stride):
            known += stride
    return known


def show(content: dict[str, str], name: str | None = None) -> Any:
    """Show *content* (texts by MIME type) below the cell. With a *name*, return a handle that can replace
    it."""
    from IPython import display

    put: Callable[..., Any] = display.display
    return put(content, raw=True, display_id=name)


@define
class NotebookScreen:
    """Shows one output for each run, which is replaced in place."""

    at_once: ClassVar[bool] = False
    handles: dict[str, Any] = field(factory=dict)

    def draw(self, shown: list[WatchedRun]) -> None:
        """Draw each run in its own output."""
        for one in shown:
            content = {"text/html": html(one.frame), "text/plain": line(one.frame)}
            known = self.handles.get(one.run.id)
            if known is not None:
                known.update(content, raw=True)
                continue
            # In the context of the cell that began the run, so the output is below that cell.
            name = f"flowdsl-{uuid4().hex}"  # of no other cell, also of those before a restart
            self.handles[one.run.id] = one.context.copy().run(show, content, name)

    def close(self) -> None:
        """Every output stays."""


class TerminalScreen:
    """Shows one line on standard error, which is replaced in place."""

    at_once: ClassVar[bool] = True

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._width = 0

    def draw(self, shown: list[WatchedRun]) -> None:
        """Draw the first run that has not ended, and say how many others there are."""
        first = next((one for one in shown if not one.ended), shown[-1])
        others = sum(not one.ended for one in shown) - (not first.ended)
        text = line(first.frame) + (f"  (+{others} more)" if others > 0 else "")
        self._put(text)
        if all(one.ended for one in shown):
            self.close()

    def _put(self, text: str) -> None:
        text = text[: _columns() - 1]
        self._stream.write(f"\r{text}{' ' * (self._width - len(text))}")
        self._stream.flush()
        self._width = len(text)

    def close(self) -> None:
        """The line stays."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


def _columns() -> int:
    import shutil

    return max(shutil.get_terminal_size().columns, 20)


def screen() -> Screen | None:
    """Where frames go here: the notebook, the terminal, or nowhere."""
    if in_notebook():
        return NotebookScreen()
    if sys.stderr is not None and sys.stderr.isatty():
        return TerminalScreen(sys.stderr)
    return None


@block
def live(after: Any = 0.5) -> Iterator[None]:
    """Show each run that begins in the block while it executes, when it has taken longer than *after* (a
    duration; 0 shows all).

    In a notebook there is one output for each run that was not started by another run. In a terminal there is
    one line on standard error. Elsewhere nothing is shown. The last frame stays. An inner block shows its
    runs in the same place as the outer one; its *after* may be shorter.

    >>> import flowdsl.notebook
    >>> with flowdsl.notebook.live():
    ...     pass
    """
    delay = seconds(after, "after")
    if _watching:
        with _watching[0].sooner(delay):
            yield
        return
    place = screen()
    if place is None:
        yield
        return
    watcher = Watcher(place, delay)
    _watching.append(watcher)
    try:
        with installed(watcher):
            yield
    finally:
        _watching.remove(watcher)
        watcher.close()


_watching: list[Watcher] = []
