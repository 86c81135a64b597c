"""What the PostgreSQL storage reads in a way of its own."""

from collections.abc import Collection, Sequence

from flowdsl.core.records import Step
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.rows import Row, is_text, steps_of
from flowdsl.storage.postgres.statements import Statements
from flowdsl.storage.reading import SQLReading

__all__ = ["PostgresReading"]


class PostgresReading(SQLReading[Sql]):
    """The readers of the storage."""

    def __init__(self, sql: Statements) -> None:
        super().__init__(sql.reads)
        self._sql = sql

    def _steps_of(self, run_id: str, rows: list[Row]) -> list[Step]:
        return steps_of(run_id, rows)

    def _read_attention(self, run_ids: list[str]) -> list[Row]:
        return self._read(self._sql.reads.attention, ([run_id for run_id in run_ids if is_text(run_id)],))

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        asked = [list(workflows), *[None if queues is None else list(queues)] * 2]
        ((moment, now),) = self._read(self._sql.claims.next_due, asked * 2)
        return 0.0 if moment is not None and moment <= now else moment
