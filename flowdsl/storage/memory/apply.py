"""Which function does an operation, in memory."""

from collections.abc import Callable
from typing import Any

from flowdsl.storage.memory.claiming import claim_next
from flowdsl.storage.memory.messages import add_signal, publish, reply, take_signal
from flowdsl.storage.memory.rewriting import rewrite
from flowdsl.storage.memory.runs import add_tags, claim_run, delete_run, open_run, restart, update_run
from flowdsl.storage.memory.standalone import (
    drop_memo,
    drop_queue,
    drop_schedule,
    drop_worker,
    put_memo,
    put_queue,
    put_schedule,
    put_worker,
)
from flowdsl.storage.memory.steps import drop_steps, put_step
from flowdsl.storage.memory.tables import Tables
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
    ClaimNext,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropQueue,
    DropSchedule,
    DropSteps,
    DropWorker,
    OpenRun,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    PutWorker,
    Reply,
    Restart,
    Rewrite,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Outcome

__all__ = ["APPLY"]

APPLY: dict[type, Callable[[Tables, Any], Outcome]] = {
    OpenRun: open_run,
    ClaimRun: claim_run,
    ClaimNext: claim_next,
    UpdateRun: update_run,
    AddTags: add_tags,
    Restart: restart,
    DeleteRun: delete_run,
    PutStep: put_step,
    DropSteps: drop_steps,
    AddSignal: add_signal,
    TakeSignal: take_signal,
    Reply: reply,
    Publish: publish,
    PutMemo: put_memo,
    DropMemo: drop_memo,
    PutQueue: put_queue,
    DropQueue: drop_queue,
    PutSchedule: put_schedule,
    DropSchedule: drop_schedule,
    PutWorker: put_worker,
    DropWorker: drop_worker,
    Rewrite: rewrite,
}
