"""What storages do around ``os.fork``.

A fork copies one thread and all memory. Locks of other threads stay held for ever in the child, and what they
were changing stays half changed. So each storage comes to rest before a fork, and goes on after it on both
sides.
"""

import os
import weakref
from typing import Protocol

__all__ = ["Forkable", "rest_before_fork"]


class Forkable(Protocol):
    """What :func:`rest_before_fork` takes."""

    def before_fork(self) -> None:
        """Come to rest: take the locks, so that nothing is under way."""

    def after_fork(self, in_child: bool) -> None:
        """Go on, in the parent or in the child."""


_living: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_resting: list[Forkable] = []


def rest_before_fork(storage: Forkable) -> None:
    """Call the methods of *storage* around each fork from now on, as long as it lives."""
    _living.add(storage)


def _before() -> None:
    for storage in list(_living):
        _resting.append(storage)
        storage.before_fork()


def _after(in_child: bool) -> None:
    while _resting:
        _resting.pop().after_fork(in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(False), after_in_child=lambda: _after(True)
    )
