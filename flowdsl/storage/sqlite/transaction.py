"""A transaction of the SQLite storage, in which operations are done.

What was read of a run is remembered until an operation changes it. Nobody else can write meanwhile.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from flowdsl.core.ownership import fits
from flowdsl.core.records import Step
from flowdsl.storage import columns
from flowdsl.storage.columns import Head, StoredRun
from flowdsl.storage.outcomes import Done, Fenced, Missing
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.fragments import chunks_of

__all__ = ["NUMBER", "Transaction"]

NUMBER = 0xFFFFFFFF
"""The bits of a stored ``seq`` that number the steps of one run."""

_MISSING = Missing()


class Transaction:
    """A transaction that the caller has begun on *connection*, and will commit or roll back.

    *now* is its moment, in seconds since the epoch. ``heads`` is what is known of runs; ``None`` for one that
    does not exist.
    """

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.heads: dict[str, Head | None] = {}

    def one(self, statement: str, *values: Any) -> rows.Row | None:
        """The first row of a statement."""
        row: rows.Row | None = self.execute(statement, values).fetchone()
        return row

    def head(self, run_id: str) -> Head | None:
        """The head of a run. ``None`` if there is no such run."""
        try:
            return self.heads[run_id]
        except KeyError:
            row = self.one(sql.RUN_HEAD, run_id)
            head = self.heads[run_id] = None if row is None else columns.head_of(run_id, row)
            return head

    def read_heads(self, run_ids: Iterable[str]) -> None:
        """Read at once what many operations would ask for one by one. A statement costs more than its row."""
        for chunk in chunks_of(run_ids):
            try:
                found = self.execute(sql.run_heads(len(chunk)), chunk).fetchall()
            except rows.UNSTORABLE as error:
                if not rows.is_unstorable(error):
                    raise
                continue  # one of the ids is not Unicode. Its own operation will say so
            for run_id, *row in found:
                if columns.has_status(row):  # otherwise its own operation will say so
                    self.heads[run_id] = columns.head_of(run_id, row)

    def owned(self, run_id: str, epoch: int | None) -> Head | Fenced | Missing:
        """The head of the run, if it has this epoch. Otherwise the outcome that says why not."""
        head = self.head(run_id)
        if head is None:
            return _MISSING
        return head if fits(head, epoch) else self.fenced(run_id)

    def run(self, run_id: str) -> StoredRun | None:
        """The run of this id, unless it was pruned."""
        row = self.one(sql.RUN_BY_ID, run_id)
        found = None if row is None else columns.stored_run_of(row)
        return None if found is None or found.run.pruned else found

    def fenced(self, run_id: str) -> Fenced | Missing:
        """The outcome of an operation that does not fit the run."""
        found = self.run(run_id)
        return Fenced(found.run) if found else _MISSING

    def set_run(self, run_id: str, no: int, changes: dict[str, Any]) -> None:
        """Set fields of the run with number *no*."""
        full, null, values = rows.given(changes, map(columns.encode_run_field, changes, changes.values()))
        self.execute(sql.update_run(full, null), (*values, no))
        if "tags" in changes:
            self.execute(sql.DROP_TAGS, (no,))
            self.executemany(sql.ADD_TAG, rows.tag_rows(no, changes["tags"]))
        if "status" in changes or "epoch" in changes:
            self.heads.pop(run_id, None)

    def insert(self, table: str, names: Sequence[str], values: Sequence[Any]) -> int:
        """Add a row, and return its number."""
        full, null, bound = rows.given(names, values)
        return self.execute(sql.insert(table, full, null), bound).lastrowid or 0

    def append(self, head: Head, step: Step) -> Done:
        """Append a step to the journal of a run."""
        full, values = rows.step_values(step)
        self.execute(sql.insert("steps", ("seq", *full)), (head.last + 1, *values))
        return Done(head.grew() & NUMBER)

    def clear(self) -> None:
        """Delete everything, but remember which epochs were used."""
        (epoch,) = self.one(sql.HIGHEST_EPOCH) or (0,)
        self.execute(sql.KEEP_EPOCH, (epoch,))
        for statement in sql.CLEAR:
            self.execute(statement)

    def tell_lasts(self, lasts: dict[str, int]) -> None:
        """Put into *lasts* what is known of the last steps of runs. It is durable now."""
        for run_id, head in self.heads.items():
            if head is None:
                lasts.pop(run_id, None)
            else:
                lasts[run_id] = head.last
