"""How the statements of a commit are sent: on a connection that blocks, or on one that is awaited. Async code
sends several statements in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from flowdsl.storage.postgres.rows import Dialogue
from flowdsl.threads import ThreadPool

__all__ = ["Threads", "drive", "drive_async"]

T = TypeVar("T")

_MOST = 8  # threads


class Threads:
    """A few threads for transactions of async code. They are our own, because all threads of the loop's pool
    may be waiting for such a transaction."""

    def __init__(self) -> None:
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPool:
        return ThreadPool(_MOST, "flowdsl-postgres")

    async def call(self, work: Callable[[], T]) -> T:
        """What *work* returns in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False)

    def after_fork(self) -> None:
        """In the child: none of the threads is there."""
        self._pool = self._new_pool()


def drive(connection: "psycopg.Connection[Any]", work: Dialogue[T]) -> T:
    """Send the statements of *work* on a connection that blocks."""
    try:
        statement, values = next(work)
        while True:
            try:
                cursor = connection.execute(statement, values, binary=True)
                rows = cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                statement, values = work.throw(error)
            else:
                statement, values = work.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def drive_async(connection: "psycopg.AsyncConnection[Any]", work: Dialogue[T]) -> T:
    """Send the statements of *work* on a connection that is awaited."""
    try:
        statement, values = next(work)
        while True:
            try:
                cursor = await connection.execute(statement, values, binary=True)
                rows = await cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                statement, values = work.throw(error)
            else:
                statement, values = work.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result
