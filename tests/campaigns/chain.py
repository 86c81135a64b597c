"""A chain of detached runs: each starts the next and ends. A worker executes them. Its process is killed at
any moment, even between the start of the next run and the end of its starter.

The oracle is a file in which each link notes itself and the memory of its process, and the rows. Every run
exists once, has ended, and was started by the one before. At its end the last process has as many objects and
threads as after a thousand links. Its memory has grown by at most the 16 MB that SQLite keeps of the file.
"""

import gc
import os
import random
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import Runtime, current_runtime, step, workflow
from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.storage import SQLiteStorage
from flowdsl.testing import EffectLog

from .lives import Ended, Life
from .report import Report

__all__ = ["chain"]

YOUNG = 1_000
"""Links after which a life has all that it needs."""
CACHE = 20 * 1024
"""kB that a life may take more than that, however long it is: SQLite keeps pages of the file, and a little."""
OBJECTS = 2_000
"""Objects that it may have more than that: a run that is kept would be some hundred."""


def _memory() -> int:
    """What this process holds of the machine's memory, in kB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@step(name="chain.note")
def note(n: int, path: str) -> None:
    """Tell the outside."""
    running = objects = 0
    if n % 100 == 0:
        gc.collect()
        objects = len(gc.get_objects())
        running = len(current_runtime().runs(status="running", limit=100))
    EffectLog(path).note(n, os.getpid(), _memory(), threading.active_count(), running, objects)


@workflow(name="chain.sync", id="link-{n}")
def link(n: int, last: int, path: str) -> int:
    """One link."""
    note(n, path)
    if n < last:
        link.options(detached=True).start(n + 1, last, path)
    return n


@workflow(name="chain.async", id="link-{n}")
async def alink(n: int, last: int, path: str) -> int:
    """One link, async."""
    await note.submit(n, path)
    if n < last:
        alink.options(detached=True).start(n + 1, last, path)
    return n


def _work(database: str, kind: str, last: int, path: str) -> int:
    """A worker that ends when the last link has."""
    with Runtime(SQLiteStorage(database, synchronous="normal"), lease=2.0) as runtime:
        first = {"sync": link, "async": alink}[kind]
        if runtime.run("link-1") is None:
            first.enqueue(1, last, path)

        def ends() -> None:
            while (end := runtime.run(f"link-{last}")) is None or end.status is not RunStatus.COMPLETED:
                pause.wait(0.05)
            while runtime.runs(status="running", limit=1):
                pause.wait(0.05)
            runtime.close()

        pause = threading.Event()
        watch = threading.Thread(target=ends)
        watch.start()
        runtime.work()
        watch.join()
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    EffectLog(path).note("left", left)
    return 0


def _killed(life: Life, log: EffectLog, links: int) -> bool:
    """Kill *life* when it has executed so many links, at whatever it does then."""
    before = log.count()
    while not life.over(0.002):
        if log.count() >= before + links:
            return life.kill_after(0.0).killed
    return life.wait().killed


def _judge(database: str, noted: list[Any], last: int) -> list[str]:
    wrong = []
    with SQLiteStorage(database, synchronous="normal") as storage:
        runs = {run.id: run for run in storage.list_runs(RunFilter())}
    if len(runs) != last:
        wrong.append(f"{len(runs)} runs, not {last}")
    for n in range(1, last + 1):
        run = runs.get(f"link-{n}")
        starter = f"link-{n - 1}" if n > 1 else None
        if run is None or run.status is not RunStatus.COMPLETED or run.owner is not None:
            wrong.append(f"link-{n} is left as {run and run.status}")
        elif (run.started_by, run.parent) != (starter, None):
            wrong.append(f"link-{n} was started by {run.started_by}, its parent is {run.parent}")
    left = [names for what, *rest in noted if what == "left" for names in rest]
    if left != [[]]:
        wrong.append(f"threads are left: {left}")
    return wrong[:10]


def _grown(report: Report, kind: str, links: list[Any]) -> list[str]:
    """How the last life looked when it was young, and at its end."""
    pid = links[-1][1]
    mine = [one for one in links if one[1] == pid]
    looked = [one for one in mine[min(YOUNG, len(mine) - 1) :] if one[5]]
    if not looked:
        return []
    report.counts[f"{kind}: links of the last life"] = len(mine)
    report.counts[f"{kind}: most running at once"] = max(one[4] for one in looked)
    young, old = looked[0], looked[-1]
    for when, seen in (("young", young), ("at its end", old)):
        for what, number in zip(("kB", "threads", "objects"), (seen[2], seen[3], seen[5]), strict=True):
            report.counts[f"{kind}: {what} {when}"] = number
    wrong = []
    if old[2] - young[2] > CACHE or old[5] - young[5] > OBJECTS:
        wrong.append(f"it grows: {young} when it was young, {old} at its end")
    if max(one[3] for one in looked) > young[3] + 20:
        wrong.append("threads pile up")
    return wrong


def chain(report: Report, given: Any) -> None:
    """``count`` links of a sync chain, and as many of an async one."""
    rng = random.Random(given.seed)
    for kind in [given.kind] if given.kind else ["sync", "async"]:
        with tempfile.TemporaryDirectory(prefix="flowdsl-chain-", dir=given.directory) as directory:
            database, log = f"{directory}/flow.db", EffectLog(Path(directory) / "log")
            life = partial(_work, database, kind, given.count, str(log.path))
            for _ in range(min(10, given.count // 20)):
                if _killed(Life(life), log, rng.randint(1, max(2, given.count // 40))):
                    report.counts[f"{kind}: kills"] += 1
            ended = Life(life, limit=1800).wait()
            noted = log.read()
            links = [one for one in noted if one[0] != "left"]
            wrong = _judge(database, noted, given.count) + _grown(report, kind, links)
            if ended != Ended():
                wrong.append(f"the last life ended with {ended}")
            report.counts[f"{kind}: executed"] = len(links)
            if wrong:
                report.fail(kind, *wrong)
