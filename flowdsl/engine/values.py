"""Values that a replay must see again: the time, random numbers, ids; and log lines that it must not repeat.

``now`` is recorded, together with the next record or before the next body begins, whichever comes first.
``uuid4`` and ``rng`` are derived from the run and the call's place in its scope, so they cost nothing. A fork
draws what its origin drew before the point of the fork, and its own behind it.
"""

import logging
import random
import uuid
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from flowdsl.core.facts import Facts, Forked, Logged, facts_of
from flowdsl.core.kinds import AUDIT, LOG
from flowdsl.core.preview import preview
from flowdsl.core.status import StepStatus
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.marks import mark
from flowdsl.engine.scope import Scope
from flowdsl.engine.step import crossing, make_record, view_of

__all__ = ["draw", "log", "now", "origins"]

logger = logging.getLogger("flowdsl")


def now(frame: Frame) -> datetime:
    """The time when this call was first made, aware, in UTC."""
    run = frame.run
    call = mark(frame, "now", "value")
    record = run.journal.get(call.key)
    if record is None or record.payload is None:
        moment = run.engine.clock.now()
        payload, _ = run.engine.payloads.pack(moment, run.id, call.key, "result")
        record = make(call, payload, datetime.fromtimestamp(moment, UTC).isoformat(" ", "milliseconds"))
    else:
        run.journal.use(call.key)
        with crossing(run, call):
            moment = run.engine.payloads.unpack(record.payload, run.id, call.key, "result")
    return datetime.fromtimestamp(moment, UTC)


def make(call: Any, payload: bytes | None, shown: str, facts: Facts | None = None) -> Any:
    """Record a value with the next commit of the run."""
    run: Execution = call.run
    call.concurrent = True  # a value never diverges: whatever was recorded in its place is as good
    record = make_record(call, view_of(call, 1), StepStatus.COMPLETED, payload, shown, 1, facts)
    run.writer.keep(record)
    return record


class Origins:
    """The runs that a run was forked from, oldest first, each with the draws that its scopes had made at the
    point of the fork."""

    def __init__(self) -> None:
        self._found: list[tuple[str, dict[str, int]]] | None = None

    def of(self, run: Execution) -> list[tuple[str, dict[str, int]]]:
        """Those of *run*, from its journal at the first look."""
        if self._found is None:
            found: list[tuple[str, dict[str, int]]] = []
            for step in run.journal:
                facts = facts_of(step) if step.kind == AUDIT else None
                if isinstance(facts, Forked):
                    found = [(origin, draws) for origin, draws in facts.draws]
            self._found = found
        return self._found


def origins(run: Execution) -> list[tuple[str, dict[str, int]]]:
    """Where the draws of *run* come from before the point of its fork."""
    return run.part(Origins).of(run)


def _seed(run: Execution, scope: Scope) -> bytes:
    with run.lock:
        number = scope.draw()
    source = run.id
    for origin, draws in origins(run):
        if number < draws.get(scope.id, 0):
            source = origin
            break
    return blake2b(f"{source}\x00{scope.id}\x00{number}".encode(), digest_size=32).digest()


def draw(frame: Frame, what: str) -> Any:
    """The next ``uuid4`` or ``rng`` of the frame's scope."""
    frame.run.stop.check()
    seed = _seed(frame.run, frame.scope)
    if what == "uuid4":
        return uuid.UUID(bytes=seed[:16], version=4)
    return random.Random(int.from_bytes(seed, "big"))


def log(frame: Frame, message: str, fields: dict[str, Any]) -> None:
    """Store a line with the run, once, and hand it to the standard library's logging."""
    run = frame.run
    message = str(message).encode("utf-8", "backslashreplace").decode()  # any text can be stored
    # each attempt of a step logs anew
    attempt = b"" if frame.step is None else b"%d" % frame.step.attempt
    call = mark(frame, "log", LOG, attempt, preview(message, 200))
    if run.journal.get(call.key) is not None:
        run.journal.use(call.key)
        return
    shown = {
        name: value if isinstance(value, str | int | float | bool | None) else preview(value)
        for name, value in fields.items()
    }
    make(call, None, message, Logged(shown))
    logger.info(
        "%s%s",
        message,
        "".join(f" {name}={value}" for name, value in shown.items()),
        extra={"run": run.id, "step": frame.step.key if frame.step is not None else None},
    )
