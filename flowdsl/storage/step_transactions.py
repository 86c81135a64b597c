"""Transactions that the body of a step shares with its record.

The body gets a connection in an open transaction. The storage adds the record to that transaction and commits
it. So the user's rows and the record are both there, or neither is. The body cannot end the transaction
itself: its rows would then remain without the record.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, NoReturn

from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Outcome
from flowdsl.threads import ThreadPool

__all__ = ["NotCommitted", "StepTransaction", "Unending", "ended_by_itself", "in_threads", "refuse"]


class NotCommitted(Exception):
    """The transaction was rolled back for an *error* of the body: a constraint that is checked at the end, or
    a deadlock with another transaction."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class StepTransaction(ABC):
    """An open transaction. ``connection`` is for the body. ``committed`` says whether it has ended well."""

    connection: Any
    committed: bool = False
    thread: Executor | None = None  # it begins and ends this for async code, and does nothing else

    @abstractmethod
    def fault(self, error: BaseException | None) -> BaseException | None:
        """What the end of a body means that has raised *error* (or ``None``). Returns the error if its
        transaction can no longer be committed."""

    @abstractmethod
    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """As ``Storage.commit_transaction``."""


def refuse(what: str) -> NoReturn:
    """Raise, because a body has called *what* on its connection."""
    raise TypeError(
        f"{what} is refused on the connection of a transactional step: its transaction is committed together "
        "with the step's record when the body returns, and rolled back when it raises"
    )


def ended_by_itself() -> TypeError:
    """The error of a body that has ended its transaction by a statement of its own."""
    return TypeError(
        "the body of a transactional step has ended its transaction by itself (BEGIN, COMMIT or ROLLBACK), "
        "so its rows and its record cannot be committed together; leave that out: the transaction is "
        "committed when the body returns, and rolled back when it raises"
    )


@asynccontextmanager
async def in_threads(transaction: AbstractContextManager[StepTransaction]) -> AsyncIterator[StepTransaction]:
    """A *transaction* for async code. Its beginning and end block.

    It has its own thread, because all threads of a pool may be waiting for it to end.
    """
    loop = asyncio.get_running_loop()
    with ThreadPool(1, "flowdsl-transaction") as thread:
        entered = await loop.run_in_executor(thread, transaction.__enter__)
        entered.thread = thread
        try:
            yield entered
        finally:
            await loop.run_in_executor(thread, transaction.__exit__, None, None, None)


class Unending:
    """Comes before the driver's class of a connection that a body gets: the body cannot end its
    transaction."""

    __slots__ = ()

    def commit(self) -> NoReturn:
        refuse("commit()")

    def rollback(self) -> NoReturn:
        refuse("rollback()")

    def close(self) -> NoReturn:
        refuse("close()")

    def __enter__(self) -> NoReturn:
        refuse("`with connection:`, which commits,")
