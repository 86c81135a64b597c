"""The oracle of bodies: no body may begin after somebody has seen its result.

Bodies note when they begin, and callers when they have a result, by the machine's monotonic clock, which all
processes share.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from flowdsl.testing import EffectLog

__all__ = ["Found", "begin", "judge", "seen"]


def begin(log: EffectLog, *what: str) -> None:
    """The body *what* begins."""
    log.note("begin", *what, time.monotonic())


def seen(log: EffectLog, *what: str) -> None:
    """Its result has arrived."""
    log.note("seen", *what, time.monotonic())


@define
class Found:
    """How often bodies began, how often again before anybody had a result, and what went *wrong*."""

    bodies: int = 0
    repeated: int = 0
    wrong: list[str] = field(factory=list)


def judge(lines: Iterable[Any]) -> Found:
    """What the log says."""
    known: dict[tuple[str, ...], float] = {}
    begun: Counter[tuple[str, ...]] = Counter()
    found = Found()
    for line in sorted((one for one in lines if one[0] in ("begin", "seen")), key=lambda one: one[-1]):
        kind, *name, moment = line
        what = tuple(name)
        if kind == "seen":
            known.setdefault(what, moment)
        else:
            begun[what] += 1
            if what in known:
                found.wrong.append(
                    f"{what} began again {moment - known[what]:.3f} s after its result was seen"
                )
    found.bodies = sum(begun.values())
    found.repeated = sum(n - 1 for n in begun.values())
    return found
