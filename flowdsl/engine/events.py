"""Events: ``send`` calls every handler that ``@on`` registered, in the background."""

import contextvars
from functools import partial
from typing import Any

from flowdsl.engine.calls import send_off
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.registry import HANDLERS
from flowdsl.engine.scope import StepView

__all__ = ["send_event"]


def send_event(engine: Engine, event: Any, payload: Any) -> None:
    """Call the handlers of *event* with *payload*: functions and steps as they are, workflows as runs.
    Errors go to the error hook and the log."""
    if not isinstance(event, str):
        raise TypeError(f"an event is named by a string; got {event!r}")
    if not event.strip():
        raise ValueError("an event's name is not empty")
    for path, fn, is_async in HANDLERS.of(event):
        view = StepView("", "", path, "send", 1, engine.clock.now())
        token = current.set(None)  # handlers are outside the run that sends
        try:
            # in this context, so that it finds the same runtime
            there = fn if is_async else partial(contextvars.copy_context().run, fn)
            send_off(engine, StepDef(fn, path, is_async), there, (payload,), {}, view, kind="handler")
        finally:
            current.reset(token)
