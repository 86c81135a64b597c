"""Durable execution for plain Python functions.

>>> from flowdsl import Runtime, step, workflow
>>> @step
... def double(x):
...     return 2 * x
>>> @workflow
... def twice(x):
...     return double(double(x))
>>> with Runtime("memory://"):
...     twice(3)
12
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from flowdsl import aio as aio
    from flowdsl import codecs as codecs
    from flowdsl import errors as errors
    from flowdsl import storage as storage
    from flowdsl import testing as testing
    from flowdsl.core.encoding import encode
    from flowdsl.core.queues import Queue
    from flowdsl.core.retry import Retry
    from flowdsl.core.schedules import Schedule
    from flowdsl.core.status import RunStatus, StepStatus
    from flowdsl.decorators import on, step, workflow
    from flowdsl.engine.operations.reply import Message
    from flowdsl.handle import Run
    from flowdsl.hooks import Hooks
    from flowdsl.runtime import Runtime, configure, current_runtime
    from flowdsl.verbs import (
        continue_as_new,
        current_run,
        current_step,
        gather,
        log,
        now,
        publish,
        race,
        receive,
        rng,
        schedule,
        send,
        sleep,
        sleep_until,
        store,
        uuid4,
        wait_for,
    )

__all__ = [
    "Hooks",
    "Message",
    "Queue",
    "Retry",
    "Run",
    "RunStatus",
    "Runtime",
    "Schedule",
    "StepStatus",
    "configure",
    "continue_as_new",
    "current_run",
    "current_runtime",
    "current_step",
    "encode",
    "gather",
    "log",
    "now",
    "on",
    "publish",
    "race",
    "receive",
    "rng",
    "schedule",
    "send",
    "sleep",
    "sleep_until",
    "step",
    "store",
    "uuid4",
    "wait_for",
    "workflow",
]

# Names are imported when they are first used: a command or a plug-in that needs one of our modules does not
# pay for all of them.
_HOMES = {
    "Hooks": "hooks",
    "Message": "engine.operations.reply",
    "Queue": "core.queues",
    "Retry": "core.retry",
    "Run": "handle",
    "RunStatus": "core.status",
    "Runtime": "runtime",
    "Schedule": "core.schedules",
    "StepStatus": "core.status",
    "configure": "runtime",
    "current_runtime": "runtime",
    "encode": "core.encoding",
    "on": "decorators",
    "step": "decorators",
    "workflow": "decorators",
}
_MODULES = frozenset({"aio", "codecs", "errors", "storage", "testing"})

if not _TYPE_CHECKING:  # where it would hide that a name is not there
    from flowdsl import first_use as _first_use

    _find = _first_use.from_homes(__name__, {name: _HOMES.get(name, "verbs") for name in __all__})

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            from importlib import import_module

            return import_module(f"{__name__}.{name}")
        return _find(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
