"""A transaction of the PostgreSQL storage, in which operations are done.

Its methods are dialogues: they yield statements, and are sent their rows. So they are written once, for
connections that block and for those that are awaited.
"""

from collections.abc import Iterable
from typing import Any

from flowdsl.core.ownership import fits
from flowdsl.core.records import Step, Tags
from flowdsl.storage import columns
from flowdsl.storage.columns import Head, StoredRun
from flowdsl.storage.outcomes import Done, Fenced, Missing
from flowdsl.storage.postgres.rows import Dialogue, checked, is_text, step_values
from flowdsl.storage.postgres.statements import Statements

__all__ = ["Transaction"]

_MISSING = Missing()


class Transaction:
    """A transaction that the caller has begun, and will commit or roll back.

    *channel* is where its notifications go. ``heads`` is what is known of runs, whose rows it has locked;
    ``None`` for one that does not exist.
    """

    def __init__(self, sql: Statements, channel: str) -> None:
        self.sql = sql
        self.channel = channel
        self.heads: dict[str, Head | None] = {}
        self._now = 0.0

    def clock(self) -> Dialogue[float]:
        """The moment of this transaction on the database's clock. Most transactions need none."""
        if not self._now:
            ((self._now,),) = yield self.sql.now, ()
        return self._now

    def note_time(self, now: float) -> None:
        """Take *now*, which another statement has told, for the moment of this transaction if it has none."""
        self._now = self._now or now

    def forget_time(self) -> None:
        """Look at the clock again the next time: the transaction has waited for a lock."""
        self._now = 0.0

    def lock(self, run_ids: Iterable[str]) -> Dialogue[None]:
        """Lock runs in the order of their ids, so that no two transactions wait for each other."""
        ids = sorted(filter(is_text, set(run_ids)))
        if not ids:
            return
        found = yield self.sql.lock_runs, (ids,)
        self.heads = dict.fromkeys(ids)
        for run_id, *row in found:
            if columns.has_status(row):
                self.heads[run_id] = columns.head_of(run_id, row)
            else:  # it is damaged: whose operation it is reads it again, and is told
                del self.heads[run_id]

    def head(self, run_id: str) -> Dialogue[Head | None]:
        """The head of a run, which is locked. ``None`` if there is no such run."""
        if run_id not in self.heads:
            rows = (yield self.sql.lock_run, (run_id,)) if is_text(run_id) else []
            self.heads[run_id] = columns.head_of(run_id, rows[0]) if rows else None
        return self.heads[run_id]

    def knows(self, heads: dict[str, Head | None]) -> None:
        """Know of runs what was known before a part of the transaction was rolled back."""
        self.heads = heads

    def owned(self, run_id: str, epoch: int | None) -> Dialogue[Head | Fenced | Missing]:
        """The head of the run, if it has this epoch. Otherwise the outcome that says why not."""
        head = yield from self.head(run_id)
        if head is None:
            return _MISSING
        return head if fits(head, epoch) else (yield from self.fenced(run_id))

    def run(self, run_id: str) -> Dialogue[StoredRun | None]:
        """The run of this id, unless it was pruned."""
        rows = (yield self.sql.run_by_id, (run_id,)) if is_text(run_id) else []
        found = columns.stored_run_of(rows[0]) if rows else None
        return None if found is None or found.run.pruned else found

    def fenced(self, run_id: str) -> Dialogue[Fenced | Missing]:
        """The outcome of an operation that does not fit the run."""
        found = yield from self.run(run_id)
        return Fenced(found.run) if found else _MISSING

    def set_run(self, run_id: str, no: int, changes: dict[str, Any]) -> Dialogue[None]:
        """Set fields of the run with number *no*."""
        values = checked(
            [columns.encode_run_field(name, value) for name, value in changes.items()],
            [changes.get(name) for name in ("key", "workflow", "parent")],
        )
        yield self.sql.update_run(tuple(changes)), (*values, no)
        if "tags" in changes:
            yield self.sql.drop_tags, (no,)
            yield from self.add_tags(no, changes["tags"])
        if "status" in changes or "epoch" in changes:
            self.heads.pop(run_id, None)

    def add_tags(self, no: int, tags: Tags) -> Dialogue[None]:
        """Add the tags of the run with number *no*."""
        if items := columns.tag_items(tags):
            names, values = zip(*items, strict=True)
            yield self.sql.add_tags, (no, list(names), list(values))

    def append(self, head: Head, step: Step) -> Dialogue[Done]:
        """Append a step to the journal of a run."""
        row = [head.no, head.last + 1, *step_values(step)]
        yield self.sql.append_steps, [[value] for value in row]
        return Done(head.grew())

    def clear(self) -> Dialogue[None]:
        """Delete everything, but remember which epochs were used."""
        ((epoch,),) = yield self.sql.highest_epoch, ()
        yield self.sql.keep_epoch, (epoch,)
        for statement in self.sql.clear:
            yield statement, ()
