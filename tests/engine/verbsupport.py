"""What the tests of the durable verbs share."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from flowdsl import RunStatus, Runtime

_QUEUE = threading.Condition()


def until(true: Callable[[], Any]) -> Any:
    """Wait until something is so that another thread or process brings about."""
    for _ in range(12_000):
        if found := true():
            return found
        with _QUEUE:
            _QUEUE.wait(0.005)
    raise AssertionError("it did not come about")


async def auntil(true: Callable[[], Any]) -> Any:
    """As :func:`until`, on an event loop."""
    for _ in range(12_000):
        if found := true():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


def statuses(runtime: Runtime) -> list[RunStatus]:
    """Those of the children of run ``w``."""
    return sorted(child.status for child in runtime.run("w").children())
