"""Versions of workflows: whole or dotted numbers, so that *newer* is defined.

A worker executes runs of its own version and of older ones. It leaves newer ones to workers that know them.
"""

from collections.abc import Mapping

__all__ = ["is_known", "knows", "parts"]


_LONG = 1000  # digits; nobody counts so far, and Python refuses to read a number of 4,301


def parts(version: str) -> tuple[int, ...] | None:
    """The numbers of a version. ``None`` for text that is no version. No version at all is the oldest.

    >>> parts("1.10"), parts(""), parts("blue")
    ((1, 10), (), None)
    """
    if not version:
        return ()
    numbers = version.split(".")
    if not all(number.isascii() and number.isdigit() and len(number) < _LONG for number in numbers):
        return None
    found = [int(number) for number in numbers]
    while found and found[-1] == 0 and len(found) > 1:
        found.pop()
    return tuple(found)


def is_known(version: str, known: str) -> bool:
    """Whether code of version *known* may execute a run that began under *version*.

    >>> is_known("1.9", "1.10"), is_known("2", "1.10"), is_known("blue", "2"), is_known("blue", "blue")
    (True, False, False, True)
    """
    if version == known:
        return True
    ours, theirs = parts(known), parts(version)
    return ours is not None and theirs is not None and theirs <= ours


def knows(known: Mapping[str, str], workflow: str, version: str) -> bool:
    """Whether a worker that has these workflows, each by path with its version, may execute a run.

    >>> knows({"shop.checkout": "2"}, "shop.checkout", "1"), knows({}, "shop.checkout", "1")
    (True, False)
    """
    return workflow in known and is_known(version, known[workflow])
