"""What the tests of the verbs share: a crash at each commit in turn."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Crash, Mortal

from flowdsl import Runtime
from flowdsl.storage import Storage
from flowdsl.testing import VirtualClock

_PAUSE = threading.Event()


def until(true: Callable[[], Any]) -> Any:
    """Wait until *true* answers something true, and return it. Another thread or process brings it about."""
    for _ in range(12_000):
        if found := true():
            return found
        _PAUSE.wait(0.005)
    raise AssertionError("it did not come about")


def with_a_crash_at_each_commit(
    make: Callable[[], Storage], execute: Callable[[Runtime], Any], *, most: int = 200
) -> Iterator[tuple[Runtime, Any]]:
    """Execute a program once for each of its commits, and let its process die there, before and after it.

    *execute* is called with a runtime whose storage dies, and then with a second one on the same records. Gives
    that second runtime, still open, and what *execute* returned, for each place; ends when the program gets
    through without dying.
    """
    for at in range(most):
        for after in (False, True):
            storage, clock = make(), VirtualClock()
            died = False
            try:
                with Runtime(Mortal(storage, at, after=after), clock=clock) as first:
                    execute(first)
            except Crash:
                died = True
            # A clock of its own, as a process has: what died may have left the other one counting it as busy.
            with Runtime(storage, clock=VirtualClock(clock.now())) as second:
                yield second, execute(second)
            storage.close()
        if not died:
            return
    pytest.fail(f"the program makes more than {most} commits")
