"""What a call of a decorated step means where it stands: in a run, or outside."""

import asyncio
import logging
import warnings
from collections.abc import Callable, Generator
from typing import Any

from flowdsl.engine.callsite import user_level
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.effects import run_async, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame
from flowdsl.engine.scope import StepView
from flowdsl.engine.step import flush, identify, perform
from flowdsl.errors import Stopped
from flowdsl.hooks import BodyKind, BodyView

__all__ = ["NOTHING", "call_in_run", "refuse_mixing", "send_off"]

logger = logging.getLogger("flowdsl")


class _Nothing:
    """What ``mode="send"`` of an async step gives: awaiting it is allowed and gives ``None`` at once."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield

    def __repr__(self) -> str:
        return "<sent>"


NOTHING = _Nothing()


def refuse_mixing(frame: Frame, is_async: bool, what: str, name: str, alternative: str) -> None:
    """Raise for an async call in a sync body; warn, once for each name, for a sync call that blocks an
    event loop."""
    if is_async and not frame.is_async:
        raise TypeError(
            f"{what} {name} is async and was called in a sync body, which cannot await it: "
            f"{alternative}, or make the caller `async def`"
        )
    if frame.is_async and not is_async and name not in frame.run.engine.warned and _on_a_loop():
        frame.run.engine.warned.add(name)
        warnings.warn(
            f"sync {what} {name} blocks the event loop while it executes in an async body; `await "
            f"{name.rpartition('.')[2]}.{'start' if what == 'workflow' else 'submit'}(…)` "
            f"executes it in a thread",
            RuntimeWarning,
            stacklevel=user_level(),
        )


def _on_a_loop() -> bool:
    """Whether this thread executes an event loop; a thread of ``asyncio.to_thread`` does not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def call_in_run(frame: Frame, called: Invocation[StepDef], mode: str | None = None) -> Any:
    """The step, by its mode. Identity is taken here; an async step gives a coroutine that does the rest."""
    defn = called.defn
    mode = mode or defn.mode
    if mode == "send":
        return _send_in_run(frame, called)
    if defn.is_async is not frame.is_async:
        refuse_mixing(
            frame, defn.is_async, "step", defn.path, f"`{defn.path.rpartition('.')[2]}.submit(…).result()`"
        )
    call = identify(frame, called, mode)
    if defn.is_async:
        return run_async(perform(call))
    return run_sync(perform(call))


def _send_in_run(frame: Frame, called: Invocation[StepDef]) -> Any:
    call = identify(frame, called, "send")
    run_sync(flush(frame.run))
    view = StepView(frame.run.id, call.key, call.defn.path, "send", 1, frame.run.engine.clock.now())
    return send_off(frame.run.engine, call.defn, call.fn, call.args, call.kwargs, view, call.shown)


def send_off(
    engine: Engine,
    defn: StepDef,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    view: StepView,
    shown: str = "",
    kind: BodyKind = "step",
) -> Any:
    """Execute a body in the background, outside any run; errors go to the error hook and the log."""
    engine.hooks.fire("on_step_start", view)
    around, around_async = engine.hooks.around, engine.hooks.around_async
    seen = BodyView(kind, defn.path, view.run_id, view, fn, args, kwargs, shown, defn.is_async)

    def ended(error: BaseException | None, value: Any) -> None:
        view.duration = engine.clock.now() - view.started_at
        if error is None:
            engine.hooks.fire("on_step_complete", view, value)
            return
        engine.hooks.fire("on_step_error", view, error, 1)
        logger.error(
            "step %s, sent off, failed",
            defn.path,
            exc_info=error,
            extra={"run": view.run_id, "step": view.key},
        )

    if defn.is_async:

        async def work_async() -> None:
            try:
                if around_async is None:
                    value = await fn(*args, **kwargs)
                else:
                    value = await around_async(seen, lambda: fn(*args, **kwargs))
            except (Exception, Stopped) as error:
                ended(error, None)
            else:
                ended(None, value)

        engine.background_async(work_async)
        return NOTHING

    def work() -> None:
        try:
            value = fn(*args, **kwargs) if around is None else around(seen, lambda: fn(*args, **kwargs))
        except (Exception, Stopped) as error:
            ended(error, None)
        else:
            ended(None, value)

    engine.background(work)
    return None
