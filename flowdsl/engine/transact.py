"""A body in a transaction of the storage, and the records that are committed with it.

The rules
    The rows of the body and the records of its step are committed together, or neither is. The records may be
    refused, because another process has the run by now, or a value cannot be stored. Then the rows are rolled
    back too. The body stores nothing else, because that would remain after a rollback.

The theory
    If the connection is lost in the middle of COMMIT, nobody knows whether it took effect, and the body
    cannot be sent again. But the transaction had locked its run. An operation under the same epoch waits for
    its end. After that, the record is there or it is not.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from flowdsl.core.records import Step
from flowdsl.engine.batch import Written
from flowdsl.engine.body import Body
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.effects import Commit, Effect, Effects, Read
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution
from flowdsl.engine.user import Value, Work
from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import Done, Operation, Outcome, PutStep, UpdateRun
from flowdsl.storage.step_transactions import NotCommitted, StepTransaction

__all__ = ["no_transactions", "transacted"]

T = TypeVar("T")

Answer = tuple[BaseException | None, list[Outcome]]
"""The error of the body or of its work in the transaction; without one, the outcomes of the commit."""


class _Unknown(Exception):
    """The connection was lost in the middle of COMMIT."""


class _Transacted(Effect):
    """Execute *body* in a transaction, and commit what *records* makes of its result. Gives an
    :data:`Answer`."""

    __slots__ = ("body", "called", "engine", "records")

    def __init__(
        self,
        engine: Engine,
        called: Invocation[StepDef],
        body: Body,
        records: Callable[[Value], tuple[Operation, ...]],
    ) -> None:
        self.engine = engine
        self.called = called
        self.body = body
        self.records = records

    def sync(self) -> Answer:
        committer, storage = self.engine.committer, self.engine.storage
        with committer.transaction() as transaction:
            self._connect(transaction)
            with committer.within():
                error, value = self.body.sync()
            if (error := transaction.fault(error)) is not None:
                return error, []
            try:
                return None, storage.commit_transaction(transaction, self.records(value))
            except (NotCommitted, StorageUnavailable) as fault:
                return _meaning(fault), []

    async def aio(self) -> Answer:
        """As ``sync``, in a task. If the task is cancelled, the beginning or end of the transaction is not
        interrupted."""
        committer, storage = self.engine.committer, self.engine.storage
        transaction_block = committer.transaction_async()
        transaction, cancelled = await _settled(transaction_block.__aenter__())
        answer: Answer = cancelled, []
        try:
            if cancelled is None:
                self._connect(transaction)
                with committer.within():
                    error, value = await self.body.aio()
                answer = transaction.fault(error), []
                if answer[0] is None:
                    committing = storage.commit_transaction_async(transaction, self.records(value))
                    outcomes, cancelled = await _settled(committing)
                    answer = None, outcomes
        except (NotCommitted, StorageUnavailable) as fault:
            answer = _meaning(fault), []
        finally:
            _, late = await _settled(transaction_block.__aexit__(None, None, None))
        if cancelled is not None or late is not None:
            raise Written(answer)
        return answer

    def _connect(self, transaction: StepTransaction) -> None:
        self.body.shares_transaction(*self.called.defn.connected(self.called, transaction.connection))


def _meaning(fault: NotCommitted | StorageUnavailable) -> Exception:
    """Returns an error of the body. Raises one of the storage."""
    if isinstance(fault, NotCommitted):
        return fault.error
    if not fault.outcome_unknown:
        raise fault
    unknown = _Unknown()
    unknown.__cause__ = fault.__cause__ or fault
    return unknown


async def _settled(work: Work[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Wait for the end of *work*, however often this task is cancelled. Returns the first cancelling too."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    return task.result(), cancelled


def no_transactions(engine: Engine, path: str) -> TypeError:
    """The error of transactional step *path* on a storage that has no transactions to share."""
    return TypeError(
        f"step {path} is transactional, and {type(engine.storage).__name__} has no transactions: its effects "
        "and its record are committed together in SQLite or PostgreSQL, such as Runtime('postgresql://…')"
    )


def transacted(
    run: Execution,
    called: Invocation[StepDef],
    body: Body,
    records: Callable[[Value], tuple[Operation, ...]],
    elsewhere: Callable[[Effect], Answer] | None = None,
) -> Effects[Answer]:
    """Execute the *body* of *called* in a transaction, which is committed with what *records* makes of its
    result.

    Raises :class:`~flowdsl.errors.Stopped` if a record is refused, and ``StorageError``. *elsewhere* performs
    the effect for a sync run whose body is async.
    """
    operations: tuple[Operation, ...] = ()

    def made(value: Value) -> tuple[Operation, ...]:
        nonlocal operations
        operations = records(value)
        return operations

    error: BaseException | None
    outcomes: list[Outcome]
    effect = _Transacted(run.engine, called, body, made)
    if elsewhere is not None:
        error, outcomes = elsewhere(effect)
    else:
        error, outcomes = (yield effect) if called.defn.is_async else effect.sync()
    if isinstance(error, _Unknown):
        record = yield from _committed(run, operations)
        if record is None:
            return error.__cause__, []
        error = None
        outcomes = [Done(record.seq) for _ in operations]
    if error is None:
        for outcome, operation in zip(outcomes, operations, strict=True):
            run.writer.accept(outcome, operation)
    return error, outcomes


def _committed(run: Execution, operations: tuple[Operation, ...]) -> Effects[Step | None]:
    """The last record of *operations*, if their transaction was committed. Its end is not known here."""
    same_epoch = UpdateRun(run.id, {}, epoch=run.epoch)
    (outcome,) = yield Commit(run.engine, (same_epoch,))  # waits until that transaction has released the run
    run.writer.accept(outcome, same_epoch)
    last = [operation.step for operation in operations if isinstance(operation, PutStep)][-1]
    found: Step | None = yield Read(run.engine.storage, lambda: run.engine.storage.get_step(run.id, last.key))
    return found if found is not None and found.status is last.status else None
