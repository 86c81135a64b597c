"""Sending the statements of a commit, on a connection that blocks and on one that is awaited."""

from typing import Any, TypeVar

import psycopg

from flowdsl.storage.postgres.writer import Dialogue

__all__ = ["drive", "drive_async"]

T = TypeVar("T")


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
