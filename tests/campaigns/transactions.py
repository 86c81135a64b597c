"""Transactional steps that are killed at every moment: the user's table and the journal agree.

Each trial is one run of four steps, sync or async, on SQLite or PostgreSQL: two transactional ones that insert a row
each, one of which fails at its first attempt after its row was inserted. Every third run undoes both at the
end. Its processes are killed, one after the other, at one of these moments:

* ``before``: the transaction has begun, the body has not;
* ``body``: a row is inserted;
* ``commit``: the body has returned, nothing is committed;
* ``after``: all is committed, the workflow has not heard of it;
* ``time``: at any moment.

The last process is not killed. Then the table must agree with the journal, and each row must exist once.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import Retry, Runtime, StepStatus, step, workflow
from flowdsl.storage import open_storage
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.relay import RelayStorage
from flowdsl.storage.step_transactions import StepTransaction

from .lives import Life
from .report import Report

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("engine", "storage")]
from transactions import Database, insert, insert_async, open_database  # noqa: E402

__all__ = ["transactions"]

MOMENTS = ("before", "body", "commit", "after", "time")
BACKENDS = ("full", "normal", "postgres")
LIVES = 3  # that are killed, of each run


class Fate:
    """Where this process dies: at the *at*-th arrival at a *moment*."""

    moment = ""
    at = 0
    table = ""

    def here(self, moment: str) -> None:
        """Die, if it is time."""
        if moment == self.moment:
            self.at -= 1
            if self.at == 0:
                os.kill(os.getpid(), signal.SIGKILL)


fate = Fate()


class Deadly(RelayStorage):
    """A storage at whose transactions the process may die."""

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        return self._begun()

    @contextmanager
    def _begun(self) -> Any:
        with self.storage.transaction() as transaction:
            fate.here("before")
            yield transaction

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        fate.here("commit")
        outcomes = self.storage.commit_transaction(transaction, operations)
        fate.here("after")
        return outcomes

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        fate.here("commit")
        outcomes = await self.storage.commit_transaction_async(transaction, operations)
        fate.here("after")
        return outcomes


_failed: set[str] = set()


def _first_time(name: str) -> None:
    fate.here("body")
    if name.endswith("pay") and name not in _failed:
        _failed.add(name)
        raise OSError("no line")


QUICK = Retry(attempts=5, initial=0.001)


@step(transaction=True, retry=QUICK)
def take_back(name: str, *, connection: Any = None) -> None:
    """The undo."""
    insert(connection, fate.table, f"{name} back")
    fate.here("body")


@step(transaction=True, retry=QUICK, undo=take_back)
def do(name: str, *, connection: Any = None) -> str:
    """A row and its record."""
    insert(connection, fate.table, name)
    _first_time(name)
    return name


@step(transaction=True, retry=QUICK, undo=take_back)
async def do_async(name: str, *, connection: Any = None) -> str:
    """The same, awaited."""
    await insert_async(connection, fate.table, name)
    _first_time(name)
    return name


class Sorry(Exception):
    """What makes a run undo its steps."""


@workflow(id="{name}")
def trip(name: str, fails: bool) -> str:
    """Two rows, that are taken back if it *fails*."""
    found = do(f"{name} book") + do(f"{name} pay")
    if fails:
        raise Sorry
    return found


@workflow(id="{name}")
async def trip_async(name: str, fails: bool) -> str:
    """The same in async code."""
    found = await do_async(f"{name} book") + await do_async(f"{name} pay")
    if fails:
        raise Sorry
    return found


def _live(database: Database, name: str, is_async: bool, fails: bool, moment: str, at: int) -> int:
    """One life of the run; whatever is wrong at its end is raised."""
    fate.moment, fate.at, fate.table = moment, at, database.table
    storage = Deadly(open_storage(database.url))
    with Runtime(storage) as rt:
        try:
            found = asyncio.run(trip_async(name, fails)) if is_async else trip(name, fails)
            assert not fails
            assert found == f"{name} book{name} pay"
        except Sorry:
            assert fails
        run = rt.run(name)
        assert run is not None
        steps = [one for one in run.steps() if one.kind == "step"]
        wanted = StepStatus.UNDONE if fails else StepStatus.COMPLETED
        assert [one.status for one in steps] == [wanted] * 2, steps
    storage.close()
    names = [f"{name} book", f"{name} pay"]
    wanted_rows = sorted(names + [f"{one} back" for one in names] * fails)
    rows = [row for row in database.rows() if row.startswith(f"{name} ")]
    assert rows == wanted_rows, rows
    return 0


def _trial(report: Report, rng: random.Random, number: int, database: Database, kind: str | None) -> None:
    is_async, fails = bool(rng.randrange(2)), not rng.randrange(3)
    live = partial(_live, database, f"t{number}", is_async, fails)
    for _ in range(LIVES):
        moment = kind or rng.choice(MOMENTS)
        life = Life(partial(live, moment, rng.randrange(1, 4)))
        ended = life.kill_after(rng.uniform(0.0, 0.15)) if moment == "time" else life.wait()
        if ended.killed:
            report.counts["kills"] += 1
            report.counts[f"kills at {moment}"] += 1
        elif ended.code:
            report.fail([number, database.kind, moment], ended.error)
    ended = Life(partial(live, "", 0)).wait()
    report.counts[f"runs on {database.kind}"] += 1
    if ended.killed or ended.code:
        report.fail([number, database.kind, "the last life"], ended.error)


def transactions(report: Report, given: Any) -> None:
    """As many kills as the report counts, a third of them on each kind of database."""
    with tempfile.TemporaryDirectory(dir=given.directory, ignore_cleanup_errors=True) as directory:
        databases = []
        for kind in BACKENDS:
            (Path(directory) / kind).mkdir()
            try:
                databases.append(open_database(kind, Path(directory) / kind))
            except BaseException as error:
                if type(error).__name__ != "Skipped":
                    raise
                report.skip(kind, str(error))
        number = 0
        while report.counts["kills"] < report.head["count"]:
            number += 1
            rng = random.Random(f"{report.head['seed']} {number}")
            _trial(report, rng, number, databases[number % len(databases)], given.kind)
