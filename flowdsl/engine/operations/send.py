"""Work that is sent off: steps of mode ``send``, and the handlers of an event. They execute in the
background, outside any run and without a record. They repeat on resume. Errors go to the error hook and the
log."""

import contextvars
import logging
from collections.abc import Generator
from functools import partial

from flowdsl.engine.call import identify
from flowdsl.engine.definitions import Parts, StepDef
from flowdsl.engine.effects import drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.operations.step import StepOperation
from flowdsl.engine.record import flush
from flowdsl.engine.registry import HANDLERS
from flowdsl.engine.scope import StepView
from flowdsl.engine.user import Args, Function, Named, Value
from flowdsl.errors import Stopped
from flowdsl.hooks import BodyKind, BodyView

__all__ = ["NOTHING", "send_event", "send_off", "send_step"]

logger = logging.getLogger("flowdsl")


class _Nothing:
    """What ``mode="send"`` of an async step gives. It may be awaited, and gives ``None`` at once."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield

    def __repr__(self) -> str:
        return "<sent>"


NOTHING = _Nothing()


def send_event(engine: Engine, event: Value, payload: Value) -> None:
    """Call the handlers of *event* with *payload*. Functions and steps are called as they are, workflows as
    runs. Errors go to the error hook and the log."""
    if not isinstance(event, str):
        raise TypeError(f"an event is named by a string; got {event!r}")
    if not event.strip():
        raise ValueError("an event's name must not be empty")
    for path, fn, is_async in HANDLERS.of(event):
        view = StepView("", "", path, "send", 1, engine.clock.now())
        token = current.set(None)  # handlers are outside the run that sends
        try:
            # in this context, to find the same runtime
            there = fn if is_async else partial(contextvars.copy_context().run, fn)
            send_off(engine, StepDef(fn, path, is_async), there, (payload,), {}, view, kind="handler")
        finally:
            current.reset(token)


def send_step(frame: Frame, called: Parts[StepDef]) -> Value:
    """Send off a step of *frame*'s run."""
    defn, fn, _, args, kwargs = called
    operation = StepOperation().bind(called, "send")
    call = identify(frame, operation)
    engine = frame.run.engine
    drive(flush(frame.run))
    view = StepView(frame.run.id, call.key, operation.path, "send", 1, engine.clock.now())
    return send_off(engine, defn, fn, args, kwargs, view, call.shown)


def send_off(
    engine: Engine,
    defn: StepDef,
    fn: Function,
    args: Args,
    kwargs: Named,
    view: StepView,
    shown: str = "",
    kind: BodyKind = "step",
) -> Value:
    """Execute a body in the background, outside any run. Errors go to the error hook and the log."""
    engine.hooks.fire("on_step_start", view)
    around, around_async = engine.hooks.around, engine.hooks.around_async
    seen = BodyView(kind, defn.path, view.run_id, view, fn, args, kwargs, shown, defn.is_async)

    def ended(error: BaseException | None, value: Value) -> None:
        view.ended(engine.clock.now())
        if error is None:
            engine.hooks.fire("on_step_complete", view, value)
            return
        engine.hooks.fire("on_step_error", view, error, 1)
        logger.error(
            "step %s, sent off, failed",
            defn.path,
            exc_info=engine.payloads.previews.exc_info(error),
            extra={"run": view.run_id, "step": view.key},
        )

    if defn.is_async:

        async def work_async() -> None:
            try:
                if around_async is None:
                    value = await fn(*args, **kwargs)
                else:
                    value = await around_async(seen, lambda: fn(*args, **kwargs))
            except (Exception, Stopped) as error:  # nobody waits for it
                ended(error, None)
            else:
                ended(None, value)

        engine.background_async(work_async)
        return NOTHING

    def work() -> None:
        try:
            value = fn(*args, **kwargs) if around is None else around(seen, lambda: fn(*args, **kwargs))
        except (Exception, Stopped) as error:  # nobody waits for it
            ended(error, None)
        else:
            ended(None, value)

    engine.background(work)
    return None
