"""The steps, log lines and audit entries of a run, as plain values."""

from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from flowdsl.codecs.payloads import Payloads
from flowdsl.core.by_fields import ByFields
from flowdsl.core.facts import Logged, facts_of
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.words import clean
from flowdsl.engine.engine import Engine
from flowdsl.errors import CorruptPayload

__all__ = ["AuditEntry", "LogLine", "Look", "StepRecord", "when"]


def when(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as an aware datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@frozen(slots=True, eq=False, repr=False)
class StepRecord(ByFields):
    """One recorded step, as ``run.steps()`` shows it. ``args`` is a readable preview; times are aware
    datetimes in UTC."""

    _engine: Engine
    _step: Step

    @property
    def key(self) -> str:
        """40 hex digits; with the run's id, the address of the record."""
        return self._step.key

    @property
    def path(self) -> str:
        """Dotted name of the step."""
        return self._step.path

    @property
    def scope(self) -> str:
        """Where the call was made: ``""`` for the run itself, else the key of the enclosing step or the name
        of the branch."""
        return self._step.scope

    @property
    def occurrence(self) -> int:
        """0 for the first such call of the scope, 1 for the second, …"""
        return self._step.occurrence

    @property
    def ordinal(self) -> int:
        """The n-th call of its path in the scope, from 0."""
        return self._step.ordinal

    @property
    def kind(self) -> str:
        """``step``, ``child``, ``sleep``, …"""
        return self._step.kind

    @property
    def status(self) -> StepStatus:
        """Its status."""
        return self._step.status

    @property
    def attempts(self) -> int:
        """How often the body was executed (0: answered by a memo)."""
        return self._step.attempts

    @property
    def args(self) -> str:
        """The arguments, readable and shortened."""
        return self._step.args

    @property
    def preview(self) -> str:
        """The result or the error, readable and shortened."""
        return self._step.preview

    @property
    def created_at(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self._step.created_at, UTC)

    @property
    def completed_at(self) -> datetime | None:
        """When it was recorded as completed or failed."""
        return when(self._step.completed_at)

    def result(self) -> Any:
        """The stored result. For a failed step it raises the stored error."""
        error = self.error
        if error is not None:
            raise error
        step = self._step
        if step.payload is None:
            return None
        return self._engine.payloads.unpack(step.payload, step.run_id, step.key, "result")

    @property
    def error(self) -> BaseException | None:
        """The stored error of a failed step, else ``None``."""
        step = self._step
        if step.status is not StepStatus.FAILED or step.payload is None:
            return None
        return self._engine.payloads.unpack_error(step.payload, step.run_id, step.key, "error")

    def __repr__(self) -> str:
        return clean(f"<step {self.path}({self.args}) {self.status} {self.preview}>")


@frozen(slots=True, eq=False, repr=False)
class LogLine(ByFields):
    """A line that ``log(message, **fields)`` stored: *at*, an aware datetime in UTC; *step*, the scope of the
    call (``None``: the run itself)."""

    at: datetime
    message: str
    fields: dict[str, Any]
    step: str | None = None

    @classmethod
    def of(cls, record: Step, payloads: Payloads | None = None) -> "LogLine":
        """The line in a record of kind ``log``.

        If the codec hides values, the line is in the payload, and is read only with *payloads*.
        """
        message: str = record.preview
        fields: dict[str, Any] = {}
        if record.payload is not None and payloads is None:
            message = "(encrypted)"
        elif record.payload is not None and payloads is not None:
            line = payloads.unpack(record.payload, record.run_id, record.key, "log")
            message, fields = line["message"], line["fields"]
        else:
            try:
                facts = facts_of(record)
            except CorruptPayload:
                facts = None
            fields = dict(facts.fields) if isinstance(facts, Logged) else {}
        return cls(datetime.fromtimestamp(record.created_at, UTC), message, fields, record.scope or None)


@frozen(slots=True, eq=False, repr=False)
class AuditEntry(ByFields):
    """A change of a run by hand: *at*, an aware datetime in UTC; *who*, as ``user@host:pid``; *action*, such
    as ``"retry"`` or ``"resolve"``; *what* was changed, readable."""

    at: datetime
    who: str
    action: str
    what: str

    @classmethod
    def of(cls, record: Step) -> "AuditEntry":
        """The entry in a record of kind ``audit``."""
        at = datetime.fromtimestamp(record.created_at, UTC)
        return cls(at, record.preview, record.path.removeprefix("flowdsl."), record.args)


@frozen(slots=True, eq=False, repr=False)
class Look(ByFields):
    """The result of one look at a run: its row, its state (``interrupted`` for a running one that nobody
    executes), its records in order, and the time of the look, in seconds since the epoch."""

    run: Run
    state: str
    steps: list[Step]
    now: float
