"""Values that a replay must see again: the time, random numbers, ids; and log lines that it must not repeat.

``now`` is recorded, together with the next record or before the next body begins, whichever comes first.
``uuid4`` and ``rng`` are derived from the run and the call's place in its scope, so they cost nothing. Up to
the point where it was forked, a fork draws what its origin drew. After that point its draws are its own.
"""

import logging
import random
import uuid
from datetime import UTC, datetime
from hashlib import blake2b

from flowdsl.core.facts import Forked, Logged, facts_of
from flowdsl.core.kinds import AUDIT, LOG, VALUE
from flowdsl.core.preview import preview
from flowdsl.core.records import Step
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.effects import Flow
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import keep
from flowdsl.engine.scope import Scope
from flowdsl.engine.user import Named, Value

__all__ = ["draw_rng", "draw_uuid4", "log", "now", "origins"]

logger = logging.getLogger("flowdsl")

_LONGEST_INT = 10_000  # bits; JSON refuses to write longer ones


class Now(Operation):
    """The time when this call was first made, in seconds since the epoch."""

    __slots__ = ()

    kind = VALUE
    path = "flowdsl.now"
    durable = False
    sequential = False  # whatever was recorded in its place is as good

    def execute(self, call: Call, prior: Step | None) -> Flow:
        engine = call.run.engine
        moment = engine.clock.now()
        payload, _ = engine.payloads.pack(moment, call.run.id, call.key, "result")
        keep(call, payload, datetime.fromtimestamp(moment, UTC).isoformat(" ", "milliseconds"))
        return None, moment
        yield  # a generator like the others, although it waits for nothing

    def answer(self, call: Call, record: Step) -> Flow:
        payloads = call.run.engine.payloads
        return None, payloads.unpack(record.payload or b"", call.run.id, record.key, "result")
        yield


def now(frame: Frame) -> datetime:
    """The time when this call was first made, aware, in UTC."""
    return datetime.fromtimestamp(at_once(frame, Now()), UTC)


class LogLine(Operation):
    """A line that is stored once, and handed to the standard library's logging."""

    __slots__ = ("_fields", "_message", "canonical")

    kind = LOG
    path = "flowdsl.log"
    durable = False
    sequential = False

    def __init__(self, frame: Frame, message: str, fields: Named) -> None:
        self._message = str(message).encode("utf-8", "backslashreplace").decode()  # any text can be stored
        self._fields = {name: _shown(value) for name, value in fields.items()}
        # each attempt of a step logs anew
        self.canonical = b"" if frame.step is None else b"%d" % frame.step.attempt

    def preview(self, limit: int = 200) -> str:
        return preview(self._message, limit)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, fields = call.run, self._fields
        payloads = run.engine.payloads
        if payloads.hides:
            line = {"message": self._message, "fields": fields}
            keep(call, payloads.pack(line, run.id, call.key, "log")[0], "", Logged({}))
            fields = {}
        else:
            keep(call, None, self._message, Logged(fields))
        step = call.frame.step
        logger.info(
            "%s%s",
            self._message,
            "".join(f" {name}={value}" for name, value in fields.items()),
            extra={"run": call.run.id, "step": None if step is None else step.key},
        )
        return None, None
        yield

    def answer(self, call: Call, record: Step) -> Flow:
        return None, None
        yield


def _shown(value: Value) -> Value:
    """*value* as JSON can hold it."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return preview(value)
    return value if isinstance(value, str | int | float | bool | None) else preview(value)


def log(frame: Frame, message: str, fields: Named) -> None:
    """Store a line with the run, once."""
    at_once(frame, LogLine(frame, message, fields))


# Draws of chance, without a record --------------------------------------------------------------------------


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
    run.stop.check(replays=True)
    with run.lock:
        number = scope.draw()
    source = run.origin
    for origin, draws in origins(run):
        if number < draws.get(scope.id, 0):
            source = origin
            break
    return blake2b(f"{source}\x00{scope.id}\x00{number}".encode(), digest_size=32).digest()


def draw_uuid4(frame: Frame) -> uuid.UUID:
    """The next ``uuid4`` of the frame's scope."""
    return uuid.UUID(bytes=_seed(frame.run, frame.scope)[:16], version=4)


def draw_rng(frame: Frame) -> random.Random:
    """The next ``rng`` of the frame's scope."""
    return random.Random(int.from_bytes(_seed(frame.run, frame.scope), "big"))
