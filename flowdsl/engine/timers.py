"""Durable delays: the wake-up time is recorded first, then waited for.

Within a process a wait goes by the clock's own passing of time, so setting the machine's clock fires nothing
early or twice; after a restart, what is left is the recorded time less the wall clock's.
"""

from datetime import datetime
from typing import Any

from flowdsl.core.durations import seconds
from flowdsl.core.facts import Sleeping, facts_of
from flowdsl.core.journal import Decision
from flowdsl.core.kinds import SLEEP
from flowdsl.core.status import StepStatus
from flowdsl.engine.effects import Flow, wait_out
from flowdsl.engine.execution import Frame
from flowdsl.engine.marks import mark
from flowdsl.engine.step import StepCall, decide, make_record, perform, put_record, view_of
from flowdsl.errors import FlowError, Stopped

__all__ = ["checked_moment", "pause_until", "sleep"]


def checked_moment(moment: Any) -> float:
    """An aware datetime in seconds since the epoch."""
    if not isinstance(moment, datetime):
        raise TypeError(f"sleep_until takes an aware datetime; got {moment!r}")
    if moment.tzinfo is None:
        raise ValueError(
            f"sleep_until takes an aware datetime; got the naive {moment!r}. datetime.now(UTC) is aware"
        )
    return moment.timestamp()


def sleep(frame: Frame, duration: Any = None, until: float | None = None) -> Flow:
    """Sleep for *duration*, or *until* a moment. How long is not part of the identity, so it may be
    changed later."""
    length = None if until is not None else seconds(duration)
    shown = f"{length:g} s" if length is not None else f"until {until:.0f}"
    call = mark(frame, "sleep", SLEEP, shown=shown)
    return perform(call, lambda call: _sleep(call, length, until))


def _sleep(call: StepCall, length: float | None, until: float | None) -> Flow:
    decision = yield from decide(call)
    if not isinstance(decision, Decision):
        return decision
    run = call.run
    clock = run.engine.clock
    view = view_of(call, 1)
    facts = facts_of(decision.record) if decision.record is not None else None
    if isinstance(facts, Sleeping):
        wake_at = facts.until
        left = wake_at - clock.now()
    else:
        wake_at = until if until is not None else view.started_at + (length or 0.0)
        left = length if length is not None else wake_at - view.started_at
        facts = Sleeping(wake_at)
        yield from put_record(call, make_record(call, view, StepStatus.PENDING, None, "", 0, facts))
    yield from pause_until(call, left)
    payload, _ = run.engine.payloads.pack(None, run.id, call.key, "result")
    yield from put_record(call, make_record(call, view, StepStatus.COMPLETED, payload, "", 1, facts))
    return None, None


def pause_until(call: StepCall, left: float, *, begun: bool = True) -> Flow:
    """Wait *left* seconds, unless the run is told to stop. What has not *begun* ends when the run is about
    to."""
    run = call.run
    yield from wait_out(run, left, begun=begun)
    if run.stop.ending and not begun:
        raise Stopped(FlowError(f"run {run.id} has failed; this branch did not begin", run=run.id))
    return None, None
