"""``publish``: put an item on a channel of the run. Whoever can read the storage can read it.

The run numbers the items of each channel: 1, 2, …. So an item that is sent to the storage again gets the same
place. The record of the publishing is stored together with the item, so a replay publishes nothing.
"""

from flowdsl.core.facts import Published
from flowdsl.core.kinds import PUBLISH
from flowdsl.core.records import Item, Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation, keyed
from flowdsl.engine.effects import Flow
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import row
from flowdsl.engine.user import Value
from flowdsl.storage.base import Publish

__all__ = ["Channels", "checked_channel", "item_of", "publish"]


def checked_channel(channel: Value) -> str:
    """The name of a channel."""
    if not isinstance(channel, str):
        raise TypeError(f"a channel is named by a string; got {channel!r}")
    if not channel.strip():
        raise ValueError("a channel's name must not be empty")
    return channel


class Channels:
    """How many items each channel of a run has."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def begin(self, counts: dict[str, int]) -> None:
        """Continue after the stored items."""
        self._counts = dict(counts)

    def next(self, channel: str) -> int:
        """The number of the next item. The caller holds the run's lock."""
        number = self._counts.get(channel, 0) + 1
        self._counts[channel] = number
        return number


def _address(channel: str, n: int) -> str:
    """The place that an item is sealed for: its channel and number."""
    return f"{n}@{channel}"


def item_of(engine: Engine, item: Item) -> Value:
    """The value of a stored item."""
    return engine.payloads.unpack(item.payload, item.run_id, _address(item.channel, item.n), "item")


class PublishItem(Operation):
    """Append *item* to *channel*."""

    __slots__ = ("_channel", "_item", "canonical")

    kind = PUBLISH
    path = "flowdsl.publish"
    durable = False  # code that shows a failure has not compensated for it
    sequential = False

    def __init__(self, channel: str, item: Value) -> None:
        self._channel = channel
        self._item = item
        self.canonical = keyed(channel, item)

    def preview(self, limit: int = 200) -> str:
        return repr(self._channel)[:limit]

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, payloads = call.run, call.run.engine.payloads
        channel = self._channel
        with run.lock:
            n = run.part(Channels).next(channel)
        payload, loaded = payloads.pack(self._item, run.id, _address(channel, n), "item")
        text = payloads.previews.value(loaded)
        record = row(call, StepStatus.COMPLETED, None, text, 1, Published(channel, n))
        item = Item(run.id, channel, n, payload, text, record.created_at)
        run.writer.keep(record, Publish(item, run.epoch), soon=True)
        return None, None
        yield  # a generator like the others, although it waits for nothing

    def answer(self, call: Call, record: Step) -> Flow:
        return None, None
        yield


def publish(frame: Frame, channel: str, item: Value) -> None:
    """Append *item* to *channel* of the executing run, once."""
    at_once(frame, PublishItem(checked_channel(channel), item))
