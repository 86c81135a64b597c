"""Who acts by hand. The audit of a run that is changed names them."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar

from flowdsl.blocks import block

__all__ = ["acting_as", "is_named", "who_acts"]

_named: ContextVar[str | None] = ContextVar("flowdsl_acting", default=None)


@block
def acting_as(who: str) -> Iterator[None]:
    """What is changed in the block was changed by *who*.

    Then sending a message and cancelling leave an entry in the audit too, which they do not when a program
    does so.

    >>> with acting_as("web"):
    ...     who_acts()
    'web'
    """
    token = _named.set(who)
    try:
        yield
    finally:
        _named.reset(token)


def is_named() -> bool:
    """Whether somebody acts by hand here and has a name."""
    return _named.get() is not None


def who_acts() -> str:
    """Who acts here: the name given, else ``user@host:pid``."""
    found = _named.get()
    if found is not None:
        return found
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"
