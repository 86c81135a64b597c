"""What the SQLite storage reads in a way of its own."""

import json
from collections.abc import Collection, Sequence

from flowdsl.core.records import Step
from flowdsl.storage.reading import SQLReading
from flowdsl.storage.sqlite import claim_statements as claims
from flowdsl.storage.sqlite.fragments import chunks_of
from flowdsl.storage.sqlite.read_statements import ReadStatements, attention
from flowdsl.storage.sqlite.rows import Row, steps_of

__all__ = ["SQLiteReading"]


class SQLiteReading(SQLReading[str]):
    """The readers of the storage."""

    def __init__(self) -> None:
        super().__init__(ReadStatements())

    def _steps_of(self, run_id: str, rows: list[Row]) -> list[Step]:
        return steps_of(run_id, rows)

    def _read_attention(self, run_ids: list[str]) -> list[Row]:
        return [row for chunk in chunks_of(run_ids) for row in self._read(attention(len(chunk)), chunk)]

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        names, known = tuple(queues or ()), json.dumps(list(workflows))
        count = None if queues is None else len(names)
        first = self._read(claims.of_queues(claims.FIRST_DUE, count, False), (*names, known))
        lost = self._read(claims.of_queues(claims.LEASE_ENDS, count, True), (known, *names))
        moment = min((one for (one,) in (*first, *lost) if isinstance(one, int | float)), default=None)
        return 0.0 if moment is not None and moment <= self.now() else moment
