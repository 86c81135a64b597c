"""Threads that a body starts by itself: the run does not reach into them, so a step that they call is a plain
call and leaves no record. Where that can be told, it is said.

The implementation
    A thread does not know who started it, but who did mostly holds it: in a variable, a list or a pool, while
    he starts it or waits for it. So the first step that a bare thread calls looks at the bodies that execute,
    and says so if one of their variables holds that thread. Nothing is changed to find out.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from flowdsl.engine.context import RunState
from flowdsl.engine.drive import Body
from flowdsl.engine.engine import engines

__all__ = ["say_if_lost"]


class _Looked(threading.local):
    done = False


_looked = _Looked()
_BODIES = (Body.sync.__code__, Body.aio.__code__)


def say_if_lost(path: str) -> None:
    """Warn, once in a run, if one of its bodies has started this thread: step *path*, called here, is no part
    of it."""
    if _looked.done:
        return
    _looked.done = True
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name.startswith("flowdsl-"):  # ours know their run
        return
    for run, variables in _bodies():
        if not run.strayed and any(_holds(value, thread) for value in variables.values()):
            run.strayed = True
            name = path.rpartition(".")[2]
            warnings.warn(
                f"step {path} is called in a thread that run {run.id} started by itself; the run does not "
                f"reach there, so the call is not recorded. Use {name}.submit(…) or {name}.map(…) in a body",
                RuntimeWarning,
                stacklevel=4,
            )
            return


def _holds(value: Any, thread: threading.Thread) -> bool:
    if isinstance(value, ThreadPoolExecutor):
        value = value._threads
    elif isinstance(value, dict):
        value = value.copy().values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return value is thread
    return any(one is thread for one in list(value))


def _bodies() -> Iterator[tuple[RunState, dict[str, Any]]]:
    """The variables of all code that executes in a body, with the run."""
    active = [state for engine in engines() for state in engine.owned.executions()]
    if not active:
        return
    for frame in list(sys._current_frames().values()):
        yield from _inside(_stack(frame))
    for state in active:
        coroutine = getattr(state.scope.home, "get_coro", lambda: None)()
        yield from _inside(reversed(list(_awaited(coroutine))))


def _inside(frames: Iterator[FrameType]) -> Iterator[tuple[RunState, dict[str, Any]]]:
    """What of *frames*, innermost first, stands in a body."""
    above: list[FrameType] = []
    for frame in frames:
        if frame.f_code in _BODIES:
            run = frame.f_locals["self"].frame.run
            yield from ((run, one.f_locals) for one in above)
            above = []
        else:
            above.append(frame)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None)
