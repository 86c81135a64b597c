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

import importlib
import logging
import typing

from flowdsl import aio as aio
from flowdsl import codecs as codecs
from flowdsl import errors as errors
from flowdsl import storage as storage
from flowdsl.core.encoding import encode
from flowdsl.core.retry import Retry
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.decorators import on, step, workflow
from flowdsl.handle import Run
from flowdsl.hooks import Hooks
from flowdsl.runtime import Runtime, configure, current_runtime
from flowdsl.verbs import (
    current_run,
    current_step,
    gather,
    log,
    now,
    rng,
    schedule,
    send,
    sleep,
    sleep_until,
    store,
    uuid4,
    wait_for,
)

logging.getLogger("flowdsl").addHandler(logging.NullHandler())  # silent by default


if not typing.TYPE_CHECKING:

    def __getattr__(name):
        if name == "testing":  # not loaded with the rest: most processes never need it
            return importlib.import_module("flowdsl.testing")
        raise AttributeError(f"module 'flowdsl' has no attribute {name!r}")


__all__ = [
    "Hooks",
    "Retry",
    "Run",
    "RunStatus",
    "Runtime",
    "StepStatus",
    "configure",
    "current_run",
    "current_runtime",
    "current_step",
    "encode",
    "gather",
    "log",
    "now",
    "on",
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


if not typing.TYPE_CHECKING:  # where it would hide that a name is not there

    def __getattr__(name: str) -> object:
        if name == "testing":  # imported when it is asked for: a program that runs has no use for it
            from importlib import import_module

            return import_module("flowdsl.testing")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
