"""Generated programs that use every verb, in this process, killed at every place where a life can end: before and after
each commit and in each body, and some once more while they recover. The grammar is ``grammar.VERBS``, the
laws are in ``verb_laws.py``: result, effects, run store and journal are those of an execution without faults. The full form
takes a PostgreSQL server as well; with ``--kind`` all programs are on ``memory``, ``sqlite`` or ``postgres``.
``--seed`` and ``--only`` repeat one program: a failure names its number as *trial*, and the storage.
"""

import itertools
import os
import random
import shutil
import tempfile
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

from grammar import VERBS, Fault, endings_of
from postgres_server import postgres_url
from verb_laws import Case

from flowdsl.testing import EffectLog

from .lives import Ended, Life, end_all
from .plants import PLANTS
from .report import Report

__all__ = ["laws"]

FULL = 10_000
"""From so many executions on, a server takes part."""

_AT_A_TIME = (os.cpu_count() or 1) + 1
_AHEAD = 20 * _AT_A_TIME  # programs, ended ones included, that wait for a slow one to be reported

_MOST = 100
"""So many failures say enough."""


def _check(index: int, given: Any, log: EffectLog, folder: Path) -> int:
    """All executions of one program."""
    if given.plant:
        PLANTS[given.plant]()
    tempfile.tempdir = str(folder)  # nothing cleans up when this process ends
    rng = random.Random(f"{given.seed}/{index}/how")
    program = VERBS.of_seed(f"{given.seed}/{index}")
    how: dict[str, Any] = {
        "is_async": rng.random() < 0.5,
        "kind": given.kind or _kind(index, given),
        "ending": rng.choice([*endings_of(program), "return"]),
        "cancel_at": rng.randrange(8),
    }

    def wrong(error: Exception, *when: Any) -> None:
        log.note("wrong", f"{program}, {how}, {when}: {type(error).__name__}: {error}")

    try:
        case = Case(program, **how)
    except Exception as error:  # a law that does not hold, or whatever came out of an execution
        wrong(error)
        return 0
    failures = 0
    for point in case.points():
        again = [Fault(rng.randrange(20), rng.random() < 0.5)] if rng.random() < 0.3 else []
        faults, pause = [point, *again], rng.choice([1.0, 7200.0])
        log.note("checked", how["kind"], how["ending"], len(faults))
        try:
            case.check(faults, pause)
        except Exception as error:
            wrong(error, faults, pause)
            failures += 1
            if failures == 3:  # the program is known by now
                break
    return 0


def _kind(index: int, given: Any) -> str:
    """The storage of a program: a draw of its own, so that ``--only`` and ``--kind`` change nothing else."""
    kinds = ["memory", "memory", "memory", "sqlite", *["postgres"] * (given.count >= FULL)]
    return random.Random(f"{given.seed}/{index}/kind").choice(kinds)


class _Trial:
    """The program *index*, all of whose executions are in a process of their own."""

    def __init__(self, index: int, given: Any, directory: str) -> None:
        self.index = index
        self._folder = Path(directory) / str(index)
        self._folder.mkdir()
        self._log = EffectLog(self._folder / "log")
        self._life = Life(partial(_check, index, given, self._log, self._folder), limit=1800)

    def over(self, seconds: float = 0.0) -> bool:
        """Whether it ends within *seconds*."""
        return self._life.over(seconds)

    def tell(self, report: Report) -> None:
        """Wait for its end, and report what was found."""
        ended = self._life.wait()
        report.counts["programs"] += 1
        for what, *rest in self._log.read():
            if what == "wrong":
                report.fail(self.index, *rest)
                continue
            kind, ending, deaths = rest
            report.counts["executions"] += 1
            report.counts["kills"] += deaths
            report.counts[f"on {kind}"] += 1
            report.counts[f"that end with a {ending}"] += 1
        if ended != Ended():
            report.fail(self.index, f"the process ended with {ended}")
        shutil.rmtree(self._folder)


def laws(report: Report, given: Any) -> None:
    """``count`` executions that are killed, of as many programs as it takes, or of the program *only*. A few
    programs execute at the same time, and are reported in the order of their numbers."""
    numbers = itertools.count() if given.only is None else iter([given.only])
    most = 1 if given.plant else _MOST
    if given.directory:
        tempfile.tempdir = str(given.directory)  # the server's files are there as well
    if given.kind == "postgres" or given.count >= FULL:
        postgres_url()  # starts the server, for all processes to come
    with tempfile.TemporaryDirectory(prefix="flowdsl-laws-", dir=given.directory) as directory:
        under_way: deque[_Trial] = deque()
        while report.counts["executions"] < given.count and len(report.failures) < most:
            living = sum(not trial.over() for trial in under_way)
            if len(under_way) < _AHEAD:
                for index in itertools.islice(numbers, _AT_A_TIME - living):
                    under_way.append(_Trial(index, given, directory))
            if not under_way:
                return
            if under_way[0].over(0.1):
                under_way.popleft().tell(report)
        end_all()
