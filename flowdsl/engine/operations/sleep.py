"""Durable delays. The wake-up time is recorded first, then waited for.

Within a process a wait follows the clock's own passing time. So setting the machine's clock makes nothing
early or late, or happen twice. After a restart, the rest is the recorded time minus the wall clock's.
"""

from datetime import datetime

from flowdsl.core.durations import seconds
from flowdsl.core.facts import Sleeping, facts_of
from flowdsl.core.kinds import SLEEP
from flowdsl.core.records import Step
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.effects import Flow
from flowdsl.engine.execution import Frame
from flowdsl.engine.perform import durable
from flowdsl.engine.record import complete, pending
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import wait_out

__all__ = ["checked_moment", "sleep"]


class Sleep(Operation):
    """Wait for *length* seconds, or *until* a moment. The length is no part of the identity, so it may change
    later."""

    __slots__ = ("_length", "_until")

    kind = SLEEP
    path = "flowdsl.sleep"

    def __init__(self, length: float | None, until: float) -> None:
        self._length = length
        self._until = until

    def preview(self, limit: int = 200) -> str:
        return f"until {self._until:.0f}" if self._length is None else f"{self._length:g} s"

    def execute(self, call: Call, prior: Step | None) -> Flow:
        now = call.run.engine.clock.now()
        facts = None if prior is None else facts_of(prior)
        if isinstance(facts, Sleeping):  # a process that is gone has slept before
            left = facts.until - now
        else:
            left = self._until - now if self._length is None else self._length
            facts = Sleeping(self._until if self._length is None else now + left)
            yield from pending(call, facts)
        yield from wait_out(call.run, left)
        return (yield from complete(call, None, facts))


def sleep(frame: Frame, duration: Value = None, until: float | None = None) -> Flow:
    """Sleep for *duration*, or *until* a moment."""
    return durable(frame, Sleep(seconds(duration), 0.0) if until is None else Sleep(None, until))


def checked_moment(moment: Value) -> float:
    """An aware datetime in seconds since the epoch."""
    if not isinstance(moment, datetime):
        raise TypeError(f"sleep_until takes an aware datetime; got {moment!r}")
    if moment.tzinfo is None:
        raise ValueError(
            f"sleep_until takes an aware datetime; got the naive {moment!r}. datetime.now(UTC) is aware"
        )
    return moment.timestamp()
