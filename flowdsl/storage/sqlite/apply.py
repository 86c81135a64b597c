"""What each operation does in a transaction of SQLite, and which rows it refuses.

A refused operation has changed nothing: its first statement is the one that can fail for its values, and
SQLite takes back a failed statement by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flowdsl.errors import CorruptPayload
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
    Operation,
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
from flowdsl.storage.outcomes import Outcome, Unstorable
from flowdsl.storage.sqlite.claiming import claim_next
from flowdsl.storage.sqlite.messages import add_signal, publish, reply, take_signal
from flowdsl.storage.sqlite.rewriting import rewrite
from flowdsl.storage.sqlite.rows import UNSTORABLE, is_unstorable, unstorable
from flowdsl.storage.sqlite.runs import add_tags, claim_run, delete_run, open_run, restart, update_run
from flowdsl.storage.sqlite.standalone import drop, put_memo, put_queue, put_schedule, put_worker
from flowdsl.storage.sqlite.steps import drop_steps, put_step
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["APPLY", "apply"]

_FEW = 8  # for so few operations, reading ahead is not worth it


def apply(tx: Transaction, operations: Sequence[Operation]) -> list[Outcome]:
    """One outcome for each of *operations*, in order."""
    outcomes: list[Outcome] = []
    if len(operations) > _FEW:
        tx.read_heads({op.step.run_id for op in operations if type(op) is PutStep}
                      | {op.run_id for op in operations if type(op) is UpdateRun})  # fmt: skip
    for operation in operations:
        try:
            outcomes.append(APPLY[type(operation)](tx, operation))
        except CorruptPayload as error:  # what it is about is damaged
            outcomes.append(Unstorable(error))
        except UNSTORABLE as error:
            if not is_unstorable(error):
                raise
            outcomes.append(unstorable(error))
    return outcomes


APPLY: dict[type, Callable[[Transaction, Any], Outcome]] = {
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
    DropMemo: drop,
    PutQueue: put_queue,
    DropQueue: drop,
    PutSchedule: put_schedule,
    DropSchedule: drop,
    PutWorker: put_worker,
    DropWorker: drop,
    Rewrite: rewrite,
}
