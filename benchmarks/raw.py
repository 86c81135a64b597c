"""The reference: ``sqlite3`` of the standard library, which only writes and reads the same bytes.

The table has flowdsl's columns, but no index and no key. Each insert is one statement in autocommit mode.
That is the lowest possible cost of a durable row in SQLite. So the ratio shows the whole cost of keys, index,
journal, codec and fencing.
"""

import pickle
import sqlite3
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

__all__ = ["Raw", "rows_of"]

Row = tuple[Any, ...]


def rows_of(path: Path, table: str = "steps") -> list[Row]:
    """The rows of *table* in a file that flowdsl wrote: the bytes to write again."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return rows


class Raw:
    """A table in a new file, or in memory (``synchronous="memory"``), that takes copies of *row*."""

    _numbers = count()

    def __init__(self, directory: Path, synchronous: str, row: Row) -> None:
        in_memory = synchronous == "memory"
        path = ":memory:" if in_memory else directory / f"raw-{next(self._numbers)}.db"
        self.row = row
        self.connection = sqlite3.connect(path, isolation_level=None)
        if not in_memory:
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute(f"PRAGMA synchronous = {synchronous}")
        names = ", ".join(f"c{n}" for n in range(len(row)))
        self.connection.execute(f"CREATE TABLE steps ({names})")
        self.insert = f"INSERT INTO steps VALUES ({', '.join('?' * len(row))})"

    def write(self, rows: int) -> float:
        """Insert *count* rows, each in a commit of its own. Return the seconds for all."""
        execute, insert, row = self.connection.execute, self.insert, self.row
        start = perf_counter()
        for _ in range(rows):
            execute(insert, row)
        return perf_counter() - start

    def write_together(self, batches: Iterable[int]) -> float:
        """Insert rows, one commit for each batch. Return the seconds for all."""
        connection, row = self.connection, self.row
        start = perf_counter()
        for size in batches:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(self.insert, [row] * size)
            connection.execute("COMMIT")
        return perf_counter() - start

    def read(self, value: Any) -> float:
        """Select all rows, and load a pickle of *value* for each. Return the seconds for all."""
        body = pickle.dumps(value)
        start = perf_counter()
        for _ in self.connection.execute("SELECT * FROM steps").fetchall():
            pickle.loads(body)
        return perf_counter() - start

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
