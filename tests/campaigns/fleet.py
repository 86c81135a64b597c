"""Four workers on one SQLite file, killed again and again, on hosts whose clocks are hours apart.

The runs have the shapes of real graphs: chains, fan-outs, diamonds, nested steps, sleeps. Each body notes that it
begins, each caller notes when it has seen a result. Every run must end with the value that the graph has, and no
body may begin after its result was seen. The moments are those of the machine's monotonic clock, which all
processes share.
"""

import os
import random
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import RunStatus, Runtime, current_run, gather, sleep, step, workflow
from flowdsl.testing import EffectLog

from .lives import Life
from .report import Report

__all__ = ["fleet"]

WORKERS = 4
CLOCKS = (0.0, 7_200.0, -7_200.0, 86_400.0)
SHAPES = ("chain", "fan", "diamond", "nested", "sleeper")

_log = EffectLog(os.devnull)


@step
def work(name: str, value: int) -> int:
    """One node of a graph."""
    _log.note("begin", current_run().id, name, time.monotonic())
    return value + 1


@step
def nested(name: str, value: int) -> int:
    """A node that has nodes inside."""
    return seen(f"{name}/b", work(f"{name}/b", seen(f"{name}/a", work(f"{name}/a", value))))


def seen(name: str, value: int) -> int:
    """Note that the caller has the result of *name*."""
    _log.note("seen", current_run().id, name, time.monotonic())
    return value


@workflow(id="{shape}-{number}")
def graph(shape: str, number: int) -> int:
    """One of the shapes."""
    if shape == "chain":
        value = 0
        for n in range(5):
            value = seen(f"{n}", work(f"{n}", value))
        return value
    if shape == "fan":
        return sum(seen("all", value) for value in work.map([f"{n}" for n in range(6)], [0] * 6))
    if shape == "diamond":
        top = seen("top", work("top", 0))
        left, right = gather(work.submit("left", top), work.submit("right", top))
        return seen("end", work("end", left + right))
    if shape == "nested":
        return nested("inner", 0) + seen("last", work("last", 0))
    first = seen("first", work("first", 0))
    sleep(0.05)
    return seen("second", work("second", first))


VALUES = {"chain": 5, "fan": 6, "diamond": 5, "nested": 3, "sleeper": 2}


def _process(folder: Path, offset: float) -> int:
    """A worker on a host with a clock of its own."""
    real = time.time
    time.time = lambda: real() + offset
    with Runtime(f"sqlite:///{folder}/flow.db?synchronous=normal", lease=10) as runtime:
        # A worker that stands still for longer than its lease may begin a body that another one has executed.
        runtime.work(concurrency=8, drain=30)
    return 0


def _enqueue(folder: Path, count: int) -> int:
    with Runtime(f"sqlite:///{folder}/flow.db?synchronous=normal"):
        for number in range(count):
            graph.enqueue(SHAPES[number % len(SHAPES)], number)
    return 0


def _left(folder: Path) -> int:
    """How many runs have not ended. A process of its own looks, so that this one has nothing open."""
    with Runtime(f"sqlite:///{folder}/flow.db?synchronous=normal") as runtime:
        return min(len(runtime.runs(status=(RunStatus.PENDING, RunStatus.RUNNING))), 99)


def fleet(report: Report, given: Any) -> None:
    """``count`` runs; a worker is killed about every second."""
    global _log
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="flowdsl-fleet-", dir=given.directory) as directory:
        folder = Path(directory)
        _log = EffectLog(folder / "effects")
        Life(partial(_enqueue, folder, given.count), limit=600).wait()
        lives = [Life(partial(_process, folder, offset), limit=3600) for offset in CLOCKS]
        while Life(partial(_left, folder)).wait().code:
            time.sleep(rng.uniform(0.2, 1.5))
            place = rng.randrange(WORKERS)
            lives[place].kill_after(0)
            report.counts["kills"] += 1
            lives[place] = Life(partial(_process, folder, CLOCKS[place]), limit=3600)
        for life in lives:
            life.kill_after(0)
        wrong = _judge(report, folder, given.count)
    if wrong:
        report.fail("fleet", *wrong[:20])


def _judge(report: Report, folder: Path, count: int) -> list[str]:
    wrong = []
    with Runtime(f"sqlite:///{folder}/flow.db?synchronous=normal") as runtime:
        runs = runtime.runs()
        if len(runs) != count:
            wrong.append(f"{len(runs)} runs, not {count}")
        for run in runs:
            shape = run.id.partition("-")[0]
            if run.status != "completed" or run.result() != VALUES[shape]:
                wrong.append(f"{run.id} is {run.status} {run.exception()!r}")
    known: dict[tuple[str, str], float] = {}
    begun: Counter[tuple[str, str]] = Counter()
    lines = sorted((line for line in _log.read()), key=lambda line: line[3])
    for what, run_id, name, moment in lines:
        place = (run_id, name)
        if what == "seen":
            known.setdefault(place, moment)
        else:
            begun[place] += 1
            if place in known:
                wrong.append(f"{place} began again {moment - known[place]:.3f} s after its result was seen")
    report.counts["bodies"] = sum(begun.values())
    report.counts["bodies that were repeated, in flight at a kill"] = sum(n - 1 for n in begun.values())
    return wrong
