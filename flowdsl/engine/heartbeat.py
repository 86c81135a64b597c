"""The heartbeats of a step's body, kept as one record for each attempt.

The rules
    A beat says nothing about the outcome of its step: it has a record beside the step's own. So a body that
    was given up may beat as late as it likes, in this process or another. A step in doubt stays in doubt.
    The next attempt is given the details of the last beat, even if the process of that attempt died.
"""

import time
from collections.abc import Callable

from flowdsl.core.facts import Beating
from flowdsl.core.keys import content_digest, step_key
from flowdsl.core.kinds import BEAT
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call
from flowdsl.engine.effects import Effects, drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution
from flowdsl.engine.heart import STORED, Heart
from flowdsl.engine.record import commit, crossing
from flowdsl.engine.user import Value
from flowdsl.storage.base import Operation, PutStep

__all__ = ["Beats", "beat_of", "details_before", "heart_of", "last_words"]

_PATH = "flowdsl.heartbeat"


def beat_of(call: Call, attempt: int) -> Step:
    """The record for the beats of *attempt*, before the first beat."""
    content = content_digest(call.key, _PATH, str(call.generation), b"%d" % attempt)
    return Step(
        call.run.id,
        step_key(content, 0),
        _PATH,
        kind=BEAT,
        scope=call.key,
        ordinal=attempt,
        concurrent=True,
        args=f"attempt {attempt}",
    )


def _with_details(engine: Engine, beat: Step, details: Value) -> Step:
    """*beat* after the body has said *details*."""
    now = engine.clock.now()
    payload, loaded = engine.payloads.pack(details, beat.run_id, beat.key, "details")
    return beat._replace(
        status=StepStatus.COMPLETED,
        payload=payload,
        preview="" if details is None else engine.payloads.previews.value(loaded),
        created_at=now,
        completed_at=now,
        extra=Beating(now).to_json(),
    )


def _details_of(engine: Engine, beat: Step) -> Value:
    """The details in *beat*."""
    return engine.payloads.unpack(beat.payload or b"", beat.run_id, beat.key, "details")


def details_before(call: Call) -> Value:
    """The last details that an earlier process stored; ``None`` for none."""
    run = call.run
    record = run.journal.get(call.key)
    ended = 0 if record is None or record.status is StepStatus.UNDONE else record.attempts
    for attempt in (ended + 1, ended):  # the process of the first died during the attempt
        beat = run.journal.get(beat_of(call, attempt).key)
        if beat is not None:
            return _details_of(run.engine, beat)
    return None


def last_words(call: Call, attempt: int, heart: Heart) -> tuple[Operation, ...]:
    """What has to be stored when an *attempt* has failed, so that the next one begins with its details."""
    if heart.details is None:
        return ()
    return (PutStep(_with_details(call.run.engine, beat_of(call, attempt), heart.details), call.run.epoch),)


def heart_of(
    run: Execution,
    beat: Step,
    limit: float,
    ticks: Callable[[], float],
    details: Value,
    *,
    stored: bool = True,
) -> Heart:
    """The heartbeats of an attempt, recorded in *beat*, at most *limit* seconds on *ticks* apart. The attempt
    begins with *details*. Without *stored*, the beats are for this process alone."""

    def store(details: Value) -> None:
        if stored:
            drive(_beats(run, _with_details(run.engine, beat, details)))

    return Heart(limit, ticks, store, details)


def _beats(run: Execution, record: Step) -> Effects[None]:
    yield from commit(run, None, PutStep(record, run.epoch))
    run.writer.add(record)


class Beats:
    """Beats of an attempt's body in another process. They come through the storage, and go to *heart*.

    A body that executes says so at once. Before that it is not silent: it waits for a worker. Beats are
    stored five times in the limit, and read as often. So silence is noticed up to two fifths of the limit
    later.
    """

    def __init__(self, call: Call, beat: Step, heart: Heart) -> None:
        self.limit = heart.limit
        self.turn = heart.limit / STORED
        self._call = call
        self._heart = heart
        self._beat = beat
        self._known = call.run.journal.get(beat.key)
        self._heard: float | None = None

    def listen(self) -> None:
        """Read what was said since the last look."""
        engine = self._call.run.engine
        with crossing(self._call.run, self._call):
            beat = engine.storage.get_step(self._beat.run_id, self._beat.key)
        if beat is not None and beat != self._known:
            self._known, self._heard = beat, time.monotonic()
            self._heart.hear(_details_of(engine, beat))

    def silent(self) -> bool:
        """Whether the body has been silent for too long."""
        self.listen()
        return self._heard is not None and time.monotonic() - self._heard > self.limit + self.turn
