"""A fresh stack, for work that must not fail because the present stack is used up."""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

__all__ = ["on_fresh_stack", "ran_out", "with_enough_stack"]

_T = TypeVar("_T")


def with_enough_stack(work: Callable[[], _T]) -> _T:
    """Do *work*. If the stack is too short, do it again on a fresh one.

    >>> with_enough_stack(lambda: 21 * 2)
    42
    """
    try:
        return work()
    except Exception as error:  # the stack may end anywhere in it
        if not ran_out(error):
            raise
    return on_fresh_stack(work)


def ran_out(error: BaseException) -> bool:
    """Say whether *error*, or an error from which it was raised, is a ``RecursionError``."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None or isinstance(link, RecursionError):
            break
        link = link.__context__ if link.__cause__ is None else link.__cause__
    return isinstance(link, RecursionError)


def on_fresh_stack(work: Callable[[], _T]) -> _T:
    """Do *work* in a new thread, which has a stack of its own. Return or raise what *work* does."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            done.append(work())
        except BaseException as error:  # it is raised in the calling thread
            failed.append(error)

    thread = Thread(target=target, name="flowdsl-stack")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
