"""What each operation does in a transaction of PostgreSQL, and which rows it refuses.

A transaction first locks its runs in the order of their ids, so that no two transactions wait for each other.

If an operation has values that cannot be stored, it is refused before any of its statements is sent. If the
server refuses them all the same, everything begins anew, with a savepoint for each operation.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
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
from flowdsl.storage.postgres.claiming import claim_next
from flowdsl.storage.postgres.messages import add_signal, publish, reply, take_signal
from flowdsl.storage.postgres.rewriting import rewrite
from flowdsl.storage.postgres.rows import REFUSED, Dialogue, NotTaken, topic_key, unstorable
from flowdsl.storage.postgres.runs import (
    add_tags,
    claim_run,
    delete_run,
    key_lock,
    open_run,
    restart,
    update_run,
)
from flowdsl.storage.postgres.standalone import drop, put_memo, put_queue, put_schedule, put_worker
from flowdsl.storage.postgres.steps import drop_steps, put_step, put_steps
from flowdsl.storage.postgres.transaction import Transaction
from flowdsl.storage.topics import topics_of

__all__ = ["APPLY", "apply"]


def apply(tx: Transaction, operations: Sequence[Operation], careful: bool = False) -> Dialogue[list[Outcome]]:
    """One outcome for each of *operations*, in order. *careful*: with a savepoint for each."""
    yield from _lock(tx, operations)
    outcomes: list[Outcome] = []
    for steps, group in groupby(operations, key=lambda op: type(op) is PutStep and not op.once):
        if steps and not careful:
            outcomes += yield from put_steps(tx, list(group))  # type: ignore[arg-type]
            continue
        for operation in group:
            outcomes.append((yield from _apply_one(tx, operation, careful)))
    topics = [topic_key(topic) for topic in dict.fromkeys(topics_of(operations))]
    if topics:
        yield tx.sql.notify, (tx.channel, topics, topics)
    return outcomes


def _lock(tx: Transaction, operations: Sequence[Operation]) -> Dialogue[None]:
    keys = {key_lock(op.run.key) for op in operations if type(op) is OpenRun and op.run.number is not None}
    if keys:
        yield tx.sql.lock_keys, (sorted(keys),)
    yield from tx.lock(run_id for op in operations for run_id in _about(op))


def _apply_one(tx: Transaction, op: Operation, careful: bool) -> Dialogue[Outcome]:
    try:
        if not careful:
            return (yield from APPLY[type(op)](tx, op))
        yield "SAVEPOINT one", ()
        heads = dict(tx.heads)
        try:
            outcome: Outcome = yield from APPLY[type(op)](tx, op)
        except REFUSED as error:
            yield "ROLLBACK TO SAVEPOINT one", ()
            tx.knows(heads)
            return unstorable(error)
        yield "RELEASE SAVEPOINT one", ()
        return outcome
    except NotTaken as error:
        return unstorable(error)
    except CorruptPayload as error:  # what it is about is damaged
        return Unstorable(error)


def _about(op: Operation) -> Iterable[str]:
    """The ids of the runs that an operation needs to be locked."""
    match op:
        case OpenRun() | ClaimNext() | PutMemo() | DropMemo() | PutQueue() | DropQueue():
            return ()
        case PutSchedule() | DropSchedule() | PutWorker() | DropWorker() | Rewrite():
            return ()
        case PutStep() | TakeSignal():
            return (op.step.run_id,)
        case AddSignal():
            return (op.signal.run_id,)
        case Publish():
            return (op.item.run_id,)
        case _:
            return (op.run_id,)


APPLY: dict[type, Callable[[Transaction, Any], Dialogue[Outcome]]] = {
    OpenRun: open_run,
    ClaimRun: claim_run,
    ClaimNext: claim_next,
    UpdateRun: update_run,
    AddTags: add_tags,
    Restart: restart,
    PutStep: put_step,
    DropSteps: drop_steps,
    AddSignal: add_signal,
    TakeSignal: take_signal,
    Reply: reply,
    Publish: publish,
    DeleteRun: delete_run,
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
