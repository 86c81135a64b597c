"""Who changes a run by hand. The audit of the run names them."""

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
    """In the block, changes are made by *who*.

    Sending a message and cancelling then leave an entry in the audit too. They leave none if a program does
    so without this block.

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
    """Whether a name was given for changes here."""
    return _named.get() is not None


def who_acts() -> str:
    """The name of whoever makes changes here: the given name, else ``user@host:pid``."""
    found = _named.get()
    if found is not None:
        return found
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"
