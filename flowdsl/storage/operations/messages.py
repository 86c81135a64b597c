"""Operations on messages to a run, their replies, and the items that it publishes."""

from attrs import field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Item, Signal, Step
from flowdsl.storage.operations.checks import an_address, an_id

__all__ = ["AddSignal", "Publish", "Reply", "TakeSignal"]


@frozen(slots=True, eq=False, repr=False)
class AddSignal(ByFields):
    """Store a message for a run that has not ended (``pending``, ``running`` or ``failed``).

    If its ``key`` is not ``None`` and equals that of an earlier message of the same run and name, it is
    dropped: ``Done(seq of the earlier, existed=True)``. The same happens if the run has its ``id`` already.

    Outcome: ``Done(seq)``, ``Missing()`` (no such run) or ``Fenced(run)`` (``completed`` or ``cancelled``).
    """

    signal: Signal = field(validator=an_id("signal", "run_id", "id"))


@frozen(slots=True, eq=False, repr=False)
class TakeSignal(ByFields):
    """Mark message *signal_id* as taken by ``step.key``, and put the step: both or neither.

    Outcome: ``Done(seq of the step)``, ``Fenced(run)``, or ``Missing()`` (no such run or message, or it is
    already taken by another key).
    """

    signal_id: str = field(validator=an_id("signal id"))
    step: Step = field(validator=lambda _, __, step: an_address(step))
    epoch: int | None = None


@frozen(slots=True, eq=False, repr=False)
class Reply(ByFields):
    """Store the reply to a message. With *failed*, *payload* is an error. The first reply counts.

    *epoch* as in ``UpdateRun``. Outcome: ``Done()``, ``Done(existed=True)`` (there was one), ``Fenced(run)``,
    or ``Missing()`` (no such run or message).
    """

    run_id: str = field(validator=an_id("run id"))
    signal_id: str = field(validator=an_id("signal id"))
    payload: bytes
    preview: str = ""
    failed: bool = False
    epoch: int | None = None
    seal: bytes = b""


@frozen(slots=True, eq=False, repr=False)
class Publish(ByFields):
    """Store an item of a channel. The owner of the run numbers the items. An existing item stays as it is.

    *epoch* as in ``UpdateRun``. Outcome: ``Done()``, ``Done(existed=True)``, ``Fenced(run)`` or
    ``Missing()``.
    """

    item: Item = field(validator=an_id("item", "run_id", "channel"))
    epoch: int | None = None
