"""Eight processes on one SQLite file, each of which calls a thousand runs of five steps.

* ``own``: runs that no other process calls;
* ``shared``: the same runs in all processes, each in another order: one executes a run, the others wait for
  it;
* ``numbered``: the same call in all processes at the same time; each is a run of its own.

No process may see an error, least of all that the database is locked. Every step is executed once, and everybody who
asks for a run gets the values of that one execution.
"""

import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import RunStatus, Runtime, current_run, step, workflow
from flowdsl.storage import SQLiteStorage
from flowdsl.testing import EffectLog

from .lives import Ended, Life
from .plants import PLANTS
from .report import Report

__all__ = ["crowd"]

PROCESSES = 8
STEPS = 5

_log = EffectLog(os.devnull)


@step
def work(number: int) -> list[Any]:
    """A step whose value names this execution."""
    run = current_run().id
    _log.note("step", run, number, os.getpid())
    return [run, number, os.getpid()]


@workflow(id="{name}")
def named(name: str) -> list[Any]:
    """Five steps, under an id."""
    return [work(number) for number in range(STEPS)]


@workflow
def numbered() -> list[Any]:
    """Five steps, under a number."""
    return [work(number) for number in range(STEPS)]


def _process(folder: Path, plant: str | None, gate: int, calls: list[Callable[[], Any]]) -> int:
    """What one process does, once all are there."""
    if plant:
        PLANTS[plant]()
    os.read(gate, 1)
    with Runtime(f"sqlite:///{folder}/flow.db"):
        for call in calls:
            try:
                values = call()
            except Exception as error:
                _log.note("error", f"{type(error).__name__}: {error}")
                return 1
            _log.note("result", values[0][0], values)
    return 0


def _parts(part: str, process: int, runs: int, rng: random.Random) -> list[Callable[[], Any]]:
    if part == "numbered":
        return [numbered] * runs
    names = [f"run-{process if part == 'own' else 's'}-{number}" for number in range(runs)]
    rng.shuffle(names)
    return [partial(named, name) for name in names]


def crowd(report: Report, given: Any) -> None:
    """``count`` runs of each process in each part."""
    runs = {"own": given.count, "shared": given.count, "numbered": max(given.count // 8, 1)}
    for part in [given.kind] if given.kind else runs:
        with tempfile.TemporaryDirectory(prefix="flowdsl-crowd-", dir=given.directory) as directory:
            wrong = _part(report, given, part, runs[part], Path(directory))
        if wrong:
            report.fail(part, *wrong[:20])


def _part(report: Report, given: Any, part: str, runs: int, folder: Path) -> list[str]:
    global _log
    _log = EffectLog(folder / "effects")
    gate, opens = os.pipe()
    lives = []
    for process in range(PROCESSES):
        calls = _parts(part, process, runs, random.Random(f"{given.seed}/{part}/{process}"))
        lives.append(Life(partial(_process, folder, given.plant, gate, calls), limit=3600))
    os.write(opens, b"x" * PROCESSES)
    wrong = [f"a process ended with {ended}" for life in lives if (ended := life.wait()) != Ended()]
    os.close(gate)
    os.close(opens)
    report.counts[f"calls ({part})"] = PROCESSES * runs
    return wrong + _judge(report, folder, runs if part == "shared" else PROCESSES * runs)


def _judge(report: Report, folder: Path, runs: int) -> list[str]:
    lines = _log.read()
    wrong = [line[1] for line in lines if line[0] == "error"]
    steps = [line[1:] for line in lines if line[0] == "step"]
    executed = Counter((run, number) for run, number, _ in steps)
    by = {(run, number): pid for run, number, pid in steps}
    wrong += [f"{place} was executed {times} times" for place, times in executed.items() if times > 1]
    if len(executed) != runs * STEPS:
        wrong.append(f"{len(executed)} steps were executed, not {runs * STEPS}")
    for _, run, values in (line for line in lines if line[0] == "result"):
        expected = [[run, number, by.get((run, number))] for number in range(STEPS)]
        if values != expected:
            wrong.append(f"somebody was given {values} for {run}, which has {expected}")
    with SQLiteStorage(folder / "flow.db") as storage:
        stored = storage.list_runs()
        if len(stored) != runs or any(run.status is not RunStatus.COMPLETED for run in stored):
            wrong.append(f"there are {len(stored)} runs, {Counter(run.status for run in stored)}")
        report.counts["steps"] += sum(len(storage.list_steps(run.id)) for run in stored)
    with closing(sqlite3.connect(folder / "flow.db")) as connection:
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        if whole != "ok":
            wrong.append(whole)
    report.counts["runs"] += runs
    return wrong
