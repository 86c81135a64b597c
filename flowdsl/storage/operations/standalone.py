"""Operations on records that belong to no run: memos, queues, schedules and workers."""

from attrs import field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Memo, QueueRow, ScheduleRow, WorkerRow
from flowdsl.storage.operations.checks import an_id

__all__ = [
    "DropMemo",
    "DropQueue",
    "DropSchedule",
    "DropWorker",
    "PutMemo",
    "PutQueue",
    "PutSchedule",
    "PutWorker",
]


@frozen(slots=True, eq=False, repr=False)
class PutMemo(ByFields):
    """Insert or replace a memo. Outcome: ``Done()``."""

    memo: Memo = field(validator=an_id("memo", "key"))


@frozen(slots=True, eq=False, repr=False)
class DropMemo(ByFields):
    """Delete a memo. A missing one is no error. Outcome: ``Done()``."""

    key: str = field(validator=an_id("memo key"))


@frozen(slots=True, eq=False, repr=False)
class PutQueue(ByFields):
    """Insert or replace a queue. With *if_new*, an existing one stays: ``Done(existed=True)``. Otherwise
    ``Done()``."""

    row: QueueRow = field(validator=an_id("queue", "name"))
    if_new: bool = False


@frozen(slots=True, eq=False, repr=False)
class DropQueue(ByFields):
    """Delete a queue. A missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=an_id("queue name"))


@frozen(slots=True, eq=False, repr=False)
class PutSchedule(ByFields):
    """Insert or replace a schedule. With *if_new*, an existing one stays: ``Done(existed=True)``. With *was*,
    it is replaced only if it is as *was* says (apart from its seal), otherwise ``Missing()``. In all other
    cases ``Done()``."""

    row: ScheduleRow = field(validator=an_id("schedule", "name"))
    if_new: bool = False
    was: ScheduleRow | None = None


@frozen(slots=True, eq=False, repr=False)
class DropSchedule(ByFields):
    """Delete a schedule. A missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=an_id("schedule name"))


@frozen(slots=True, eq=False, repr=False)
class PutWorker(ByFields):
    """Insert or replace a worker. Outcome: ``Done()``."""

    row: WorkerRow = field(validator=an_id("worker", "id"))


@frozen(slots=True, eq=False, repr=False)
class DropWorker(ByFields):
    """Delete a worker. A missing one is no error. Outcome: ``Done()``."""

    id: str = field(validator=an_id("worker id"))
