"""What a run receives, and how it answers: :class:`Message`, with ``reply`` and ``refuse``.

The answer is stored with the message, and only the first one counts. It becomes durable with the run's next
commit, or a moment later. The asker gets it then. A run that dies before that answers anew.
"""

from attrs import field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.encoding import encode
from flowdsl.core.kinds import REPLY
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation, inside
from flowdsl.engine.effects import Flow
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import row
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, Refused, StepFailed
from flowdsl.storage.base import Reply

__all__ = ["Message"]


class Answer(Operation):
    """Answer a message with *value*, or refuse it with an error."""

    __slots__ = ("_asked", "_failed", "_signal_id", "_value", "canonical")

    kind = REPLY
    path = "flowdsl.reply"
    durable = False  # telling somebody of a failure does not compensate for it
    sequential = False

    def __init__(self, signal_id: str, value: Value, *, asked: bool, failed: bool) -> None:
        self._signal_id = signal_id
        self._value = value
        self._asked = asked
        self._failed = failed
        self.canonical = encode(signal_id)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        payloads, previews = run.engine.payloads, run.engine.payloads.previews
        if self._failed:
            payload, loaded = payloads.pack_error(self._value, run.id, self._signal_id, "refusal")
            if isinstance(loaded, StepFailed) and not isinstance(self._value, StepFailed):
                refused = Refused(str(self._value), run=run.id)
                payload, loaded = payloads.pack_error(refused, run.id, self._signal_id, "refusal")
            text = previews.error(loaded)
        else:
            payload, loaded = payloads.pack(self._value, run.id, self._signal_id, "reply")
            text = previews.value(loaded)
        reply = Reply(run.id, self._signal_id, payload, text, self._failed, run.epoch)
        record = row(call, StepStatus.COMPLETED, None, text, 1)
        run.writer.keep(record, *((reply,) if self._asked else ()), soon=self._asked)
        return None, None
        yield  # a generator like the others, although it waits for nothing

    def answer(self, call: Call, record: Step) -> Flow:
        return None, None
        yield


@frozen(slots=True, repr=False, eq=False)
class Message(ByFields):
    """A message that a run has received: its *name*, its *payload*, and its sender (``None``: not said)."""

    name: str
    payload: Value
    sender: str | None = None
    _run_id: str = field(default="", kw_only=True, alias="run_id")
    _id: str = field(default="", kw_only=True, alias="id")
    _asked: bool = field(default=False, kw_only=True, alias="asked")

    def reply(self, value: Value = None) -> None:
        """Answer the asker with *value*. The first answer counts; later ones are ignored.

        Raises :class:`~flowdsl.errors.ResultNotStorable` for a value that cannot be stored.
        """
        self._answer(value, failed=False)

    def refuse(self, error: Exception) -> None:
        """Raise *error* in the asker's code. If it cannot be stored, raise :class:`~flowdsl.errors.Refused`
        with its text there."""
        if not isinstance(error, Exception):
            raise TypeError(f"refuse() takes an exception, as ValueError('sold out'); got {error!r}")
        self._answer(error, failed=True)

    def _answer(self, value: Value, *, failed: bool) -> None:
        frame = inside("message.refuse" if failed else "message.reply")
        if frame.run.id != self._run_id:
            raise FlowError(
                f"message {self.name!r} was received by run {self._run_id}, and only that can answer it; "
                f"this is run {frame.run.id}",
                run=frame.run.id,
            )
        at_once(frame, Answer(self._id, value, asked=self._asked, failed=failed))

    def __repr__(self) -> str:
        sender = "" if self.sender is None else f" from {self.sender!r}"
        return f"<Message {self.name!r}{sender}: {self.payload!r}>"
