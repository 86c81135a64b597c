"""What the tests of the durable verbs share."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

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
