"""Four workers, killed again and again: on one SQLite file, and on PostgreSQL, on hosts whose clocks are hours apart.

The runs have the shapes of real graphs: chains, fan-outs, diamonds, nested steps, sleeps. Each body notes that it
begins, each caller notes when it has seen a result. Every run must end with the value that the graph has, and no
body may begin after its result was seen. The moments are those of the machine's monotonic clock, which all
processes share.
"""

import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import RunStatus, Runtime, current_run, gather, sleep, step, workflow
from flowdsl.testing import EffectLog

from .bodies import begin, judge, seen
from .lives import Life
from .report import Report

sys.path[:0] = [str(Path(__file__).parents[1] / "storage")]
from postgres_server import postgres_url  # noqa: E402

__all__ = ["fleet"]

WORKERS = 4
CLOCKS = (0.0, 7_200.0, -7_200.0, 86_400.0)
SHAPES = ("chain", "fan", "diamond", "nested", "sleeper")

_log = EffectLog(os.devnull)


@step
def work(name: str, value: int) -> int:
    """One node of a graph."""
    begin(_log, current_run().id, name)
    return value + 1


@step
def nested(name: str, value: int) -> int:
    """A node that has nodes inside."""
    return known(f"{name}/b", work(f"{name}/b", known(f"{name}/a", work(f"{name}/a", value))))


def known(name: str, value: int) -> int:
    """Note that the caller has the result of *name*."""
    seen(_log, current_run().id, name)
    return value


@workflow(id="{shape}-{number}")
def graph(shape: str, number: int) -> int:
    """One of the shapes."""
    if shape == "chain":
        value = 0
        for n in range(5):
            value = known(f"{n}", work(f"{n}", value))
        return value
    if shape == "fan":
        return sum(known("all", value) for value in work.map([f"{n}" for n in range(6)], [0] * 6))
    if shape == "diamond":
        top = known("top", work("top", 0))
        left, right = gather(work.submit("left", top), work.submit("right", top))
        return known("end", work("end", left + right))
    if shape == "nested":
        return nested("inner", 0) + known("last", work("last", 0))
    first = known("first", work("first", 0))
    sleep(0.05)
    return known("second", work("second", first))


VALUES = {"chain": 5, "fan": 6, "diamond": 5, "nested": 3, "sleeper": 2}


def _process(url: str, offset: float) -> int:
    """A worker on a host with a clock of its own. Its lease is short: whoever stands still loses its runs, and
    begins nothing of them afterwards."""
    real = time.time
    time.time = lambda: real() + offset
    with Runtime(url, lease=2) as runtime:
        runtime.work(concurrency=8, drain=30)
    return 0


def _enqueue(url: str, count: int) -> int:
    with Runtime(url):
        for number in range(count):
            graph.enqueue(SHAPES[number % len(SHAPES)], number)
    return 0


def _left(url: str) -> int:
    """How many runs have not ended. A process of its own looks, so that this one has nothing open."""
    with Runtime(url) as runtime:
        return min(len(runtime.runs(status=(RunStatus.PENDING, RunStatus.RUNNING))), 99)


def fleet(report: Report, given: Any) -> None:
    """``count`` runs, half of them on each database; a worker is killed about every second."""
    with tempfile.TemporaryDirectory(
        prefix="flowdsl-fleet-", dir=given.directory, ignore_cleanup_errors=True
    ) as directory:
        file = f"sqlite:///{directory}/flow.db?synchronous=normal"
        places = {"sqlite": (file, (0.0,) * WORKERS)}  # of one machine, which has one clock
        try:
            places["postgres"] = (postgres_url(), CLOCKS)
        except BaseException as error:
            if type(error).__name__ != "Skipped":
                raise
            report.skip("postgres", str(error))
        kinds = [given.kind] if given.kind else list(places)
        for kind in kinds:
            url, clocks = places[kind]
            _fleet(report, random.Random(f"{given.seed} {kind}"), url, clocks, given.count // len(kinds))


def _fleet(report: Report, rng: random.Random, url: str, clocks: tuple[float, ...], count: int) -> None:
    global _log
    with tempfile.TemporaryDirectory(prefix="flowdsl-fleet-") as directory:
        _log = EffectLog(Path(directory) / "effects")
        Life(partial(_enqueue, url, count), limit=600).wait()
        lives = [Life(partial(_process, url, offset), limit=3600) for offset in clocks]
        while Life(partial(_left, url)).wait().code:
            time.sleep(rng.uniform(0.2, 1.5))
            place = rng.randrange(WORKERS)
            lives[place].kill_after(0)
            report.counts["kills"] += 1
            lives[place] = Life(partial(_process, url, clocks[place]), limit=3600)
        for life in lives:
            life.kill_after(0)
        ended = Life(partial(_look, url, count), limit=600).wait()
        if ended.code:
            report.fail(url, ended.error)
        found = judge(_log.read())
        report.counts[f"runs on {url.partition(':')[0]}"] += count
        report.counts["bodies"] += found.bodies
        report.counts["bodies that were repeated, in flight at a kill"] += found.repeated
        if found.wrong:
            report.fail(url, *found.wrong[:20])


def _look(url: str, count: int) -> int:
    """Every run has its value."""
    with Runtime(url) as runtime:
        runs = runtime.runs()
        assert len(runs) == count, len(runs)
        for run in runs:
            shape = run.id.partition("-")[0]
            assert run.status == "completed", (run.id, run.status, run.exception())
            assert run.result() == VALUES[shape], (run.id, run.result())
    return 0
