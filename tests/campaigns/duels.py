"""Two processes want one run: on a SQLite file and on PostgreSQL.

Each duel is of one of these kinds:

* ``call``: both call the workflow at the same moment;
* ``left``: the run's process was killed in the middle, and both continue the run;
* ``enqueued``: both are workers, and the run waits in a queue;
* ``killed``: both call, and the process that executes is killed between two steps or in a body;
* ``zombie``: the owner stands still (SIGSTOP) before or after a commit, in a body or between two steps, until
  its lease is over and the other one has ended the run. Then it goes on.

The run must end with its value for every caller. No body may begin after its result was seen. The writes of a
zombie must be refused: no record of it may replace one of its successor. Only a body that was executing when
its lease was lost may overlap.
"""

import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import Runtime, step, workflow
from flowdsl.errors import LeaseLost
from flowdsl.storage import open_storage
from flowdsl.storage.operations import Operation, PutStep
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.relay import RelayStorage
from flowdsl.testing import EffectLog

from .bodies import begin, judge, seen
from .lives import Life
from .plants import PLANTS
from .report import Report

sys.path[:0] = [str(Path(__file__).parents[1] / "storage")]
from postgres_server import postgres_url  # noqa: E402

__all__ = ["duels"]

KINDS = ("call", "left", "enqueued", "killed", "zombie")
MOMENTS = ("before", "after", "body", "between")
STEPS = 4
LEASE = 0.5  # seconds, of a zombie

_log = EffectLog(os.devnull)


class Fate:
    """What happens to this process at the *at*-th arrival at a *moment*: a signal."""

    moment = ""
    at = 0
    number = signal.SIGKILL

    def here(self, moment: str) -> None:
        """Stand still or die, if it is time."""
        if moment == self.moment:
            self.at -= 1
            if self.at == 0:
                os.kill(os.getpid(), self.number)


fate = Fate()


class Fateful(RelayStorage):
    """A storage at whose commits of completed steps the process may stand still or die."""

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        counts = any(isinstance(one, PutStep) and one.step.completed_at for one in operations)
        if counts:
            fate.here("before")
        outcomes = self.storage.commit(operations)
        if counts:
            fate.here("after")
        return outcomes


@step
def work(run_id: str, number: int) -> str:
    """Something that shows who did it."""
    begin(_log, run_id, str(number))
    fate.here("body")
    return f"{number} by {os.getpid()}"


@workflow(id="{name}")
def duel(name: str) -> list[str]:
    """A few steps, one after the other; their results are those that were recorded first."""
    found = []
    for number in range(STEPS):
        found.append(work(name, number))
        seen(_log, name, str(number))
        fate.here("between")
    return found


def _caller(url: str, name: str, moment: str, at: int, number: int, lease: float) -> int:
    """One of the two; its result is in the log."""
    fate.moment, fate.at, fate.number = moment, at, signal.Signals(number)
    storage = Fateful(open_storage(url))
    try:
        with Runtime(storage, lease=lease):
            try:
                _log.note("result", name, os.getpid(), duel(name))
            except LeaseLost:
                _log.note("refused", name, os.getpid())
    finally:
        storage.close()
    return 0


def _worker(url: str, name: str) -> int:
    """One of two workers: it works until the run has ended."""
    with Runtime(url, lease=30) as rt:
        thread = threading.Thread(target=rt.work, kwargs={"concurrency": 2})
        thread.start()
        run = rt.run(name)
        assert run is not None
        _log.note("result", name, os.getpid(), run.result(60))
        rt.close()
        thread.join()
    return 0


def _enqueue(url: str, name: str) -> int:
    with Runtime(url):
        duel.enqueue(name)
    return 0


def _fight(url: str, name: str, kind: str, rng: random.Random) -> list[Life]:
    """Let two of them have it; the lives that have to end well."""
    quiet = partial(_caller, url, name, "", 0, signal.SIGKILL, 30.0)
    if kind == "enqueued":
        Life(partial(_enqueue, url, name)).wait()
        return [Life(partial(_worker, url, name)) for _ in range(2)]
    if kind == "call":
        return [Life(quiet), Life(quiet)]
    at = rng.randrange(1, STEPS + 1)
    if kind == "left":
        Life(partial(_caller, url, name, rng.choice(MOMENTS), at, signal.SIGKILL, 30.0)).wait()
        return [Life(quiet), Life(quiet)]
    if kind == "killed":
        mortal = partial(_caller, url, name, rng.choice(MOMENTS), at, signal.SIGKILL, 30.0)
        return [Life(mortal), Life(quiet)]
    zombie = Life(partial(_caller, url, name, rng.choice(MOMENTS), at, signal.SIGSTOP, LEASE))
    if zombie.wait(stopped=True).stopped:
        rival = Life(partial(_caller, url, name, "", 0, signal.SIGKILL, 30.0))
        rival.over(60.0)
        zombie.go_on()
        return [rival, zombie]
    return []


def _judge(url: str, names: list[str]) -> int:
    """Each run has ended, its journal holds each step once, and everybody was told the same."""
    told: dict[str, list[Any]] = {}
    for line in _log.read():
        if line[0] == "result":
            told.setdefault(line[1], []).append(line[3])
    with Runtime(url) as rt:
        for name in names:
            run = rt.run(name)
            assert run is not None, name
            assert run.status == "completed", (name, run.status)
            result = run.result()
            recorded = [one.result() for one in run.steps() if one.kind == "step"]
            assert recorded == result, (name, recorded, result)
            assert all(one == result for one in told.get(name, [])), (name, result, told[name])
    return 0


def _places(directory: str, report: Report) -> list[str]:
    (Path(directory) / "file").mkdir()
    urls = [f"sqlite:///{directory}/file/flow.db?synchronous=normal"]
    try:
        urls.append(postgres_url())
    except BaseException as error:
        if type(error).__name__ != "Skipped":
            raise
        report.skip("postgres", str(error))
    for url in urls:
        Life(partial(_prepare, url)).wait()
    return urls


def _prepare(url: str) -> int:
    open_storage(url).close()
    return 0


def duels(report: Report, given: Any) -> None:
    """``count`` duels; every fifth is one with a zombie."""
    global _log
    if given.plant:
        PLANTS[given.plant]()
    with tempfile.TemporaryDirectory(
        prefix="flowdsl-duels-", dir=given.directory, ignore_cleanup_errors=True
    ) as directory:
        urls = _places(directory, report)
        _log = EffectLog(Path(directory) / "effects")
        names: dict[str, list[str]] = {url: [] for url in urls}
        for number in range(given.count):
            if given.only is not None and number != given.only:
                continue
            rng = random.Random(f"{given.seed} {number}")
            kind = given.kind or KINDS[number % len(KINDS)]
            url = urls[(number // len(KINDS) + number) % len(urls)]
            name = f"{kind}-{number}"
            names[url].append(name)
            for life in _fight(url, name, kind, rng):
                ended = life.wait()
                if ended.code or (ended.signal and not ended.killed):
                    report.fail([number, kind, url], ended.error)
            report.counts[f"duels: {kind}"] += 1
            report.counts[f"on {url.partition(':')[0]}"] += 1
        for url in urls:
            if (ended := Life(partial(_judge, url, names[url])).wait()).code:
                report.fail(url, ended.error)
        lines = list(_log.read())
        found = judge(lines)
        report.counts["late owners that were refused"] = sum(line[0] == "refused" for line in lines)
        report.counts["bodies"] = found.bodies
        report.counts["bodies that overlapped or were in flight at a kill"] = found.repeated
        if found.wrong:
            report.fail("bodies", *found.wrong[:20])
