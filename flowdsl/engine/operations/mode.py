"""A call of a decorated step in a run, by its mode."""

import asyncio
import warnings

from flowdsl.engine.call import identify
from flowdsl.engine.callsite import user_level
from flowdsl.engine.definitions import Parts, StepDef
from flowdsl.engine.effects import named, run_async
from flowdsl.engine.execution import Frame
from flowdsl.engine.operations.send import send_step
from flowdsl.engine.operations.step import StepOperation
from flowdsl.engine.perform import perform, perform_here
from flowdsl.engine.user import Value

__all__ = ["call_in_run", "refuse_mixing"]


def call_in_run(frame: Frame, called: Parts[StepDef], mode: str | None = None) -> Value:
    """Call the step by its mode. Its identity is taken here. An async step gives a coroutine for the rest."""
    defn = called[0]
    mode = mode or defn.mode
    if mode == "send":
        return send_step(frame, called)
    if defn.is_async is not frame.is_async:
        refuse_mixing(
            frame, defn.is_async, "step", defn.path, f"`{defn.path.rpartition('.')[2]}.submit(…).result()`"
        )
    call = identify(frame, StepOperation().bind(called, mode))
    return named(run_async(perform(call)), defn.path) if defn.is_async else perform_here(call)


def refuse_mixing(frame: Frame, is_async: bool, what: str, name: str, alternative: str) -> None:
    """Raise for an async call in a sync body. Warn, once for each name, of a sync call that blocks an event
    loop."""
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
    """Whether this thread executes an event loop. A thread of ``asyncio.to_thread`` does not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
