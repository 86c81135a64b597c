"""Generated programs, sync and async, that are cancelled at random moments: from inside at a commit or in a
body, by cancelling their task, from another process, and after a SIGKILL at a commit. Another SIGKILL may
come while they are being undone. See ``tests/laws/stopped.py``.

In the end no run is unfinished. In a run that failed or was cancelled, and in the runs that it had called,
each completed step was undone once. (After a kill, an undo that was in flight may have begun again.) In all
other runs no step was undone.
"""

import os
import random
import re
import shutil
import signal
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field
from grammar import STOPPED
from stopped import RUN, Moments, Stop, live, standing
from stopped_bodies import World
from worlds import meet

from flowdsl import Runtime, current_run
from flowdsl.errors import FlowError
from flowdsl.storage import SQLiteStorage
from flowdsl.testing import EffectLog

from .lives import Life
from .plants import PLANTS
from .report import Report

__all__ = ["cancels"]

KINDS = ("inside", "inside", "inside", "outside", "kill")


@define(eq=False, kw_only=True)
class Noting(World):
    """A world that is there after its process was killed."""

    log: EffectLog
    life: int
    names: list[str] = field(factory=list)

    def did_it(self, kept: bool = False) -> Any:
        """A body is about to return: its token."""
        with self.lock:
            token = f"{'k' if kept else ''}{self.life}.{len(self.names)}"
            self.names.append(token)
            self.log.note("did", current_run().id, token)
            return token

    def undid_it(self, token: Any) -> None:
        """The undo of *token* is about to return."""
        self.log.note("undid", token)


class Other:
    """Another process, which cancels the run when it is told to."""

    def __init__(self, path: Path) -> None:
        self._asked, self._ask = os.pipe()
        self._heard, self._hear = os.pipe()
        self.life = Life(partial(self._wait, path))

    def _wait(self, path: Path) -> int:
        os.close(self._ask)
        if os.read(self._asked, 1):
            with SQLiteStorage(path) as storage, Runtime(storage) as runtime:
                try:
                    runtime.cancel(RUN)
                except FlowError:  # it has ended
                    pass
            os.write(self._hear, b"!")
        return 0

    def cancel(self) -> None:
        """Let it cancel, and wait until it has."""
        os.close(self._hear)
        os.write(self._ask, b"!")
        os.read(self._heard, 1)

    def end(self) -> None:
        """Close the pipes, so that it ends."""
        for one in (self._asked, self._ask, self._heard):
            os.close(one)
        self.life.wait()


def _first(
    program: Any, is_async: bool, path: Path, stops: list[Stop], seed: Any, other: Other | None
) -> int:
    """The life that executes the program."""
    log = EffectLog(path.with_name("effects"))
    storage = SQLiteStorage(path, synchronous="normal")
    slow = random.Random(f"{seed}/slow").choice([0, 0, 3])

    def how(stop: Stop) -> bool:
        if stop.how == "kill":
            log.note("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        if stop.how == "outside":
            assert other is not None
            other.cancel()
            Moments.pause = 0.03  # until it is seen
        return stop.how in ("kill", "outside")

    live(program, is_async, storage, stops, slow=slow, seed=seed, world=Noting(log=log, life=1), how=how)
    storage.close()
    return 0


def _later(path: Path, number: int, at: int | None) -> int:
    """A life that ends what is unfinished; it is killed at its commit number *at*."""
    log = EffectLog(path.with_name("effects"))
    with SQLiteStorage(path, synchronous="normal") as inner:

        def tell(_: Stop) -> None:
            log.note("killed")
            os.kill(os.getpid(), signal.SIGKILL)

        stops = [] if at is None else [Stop(at, "kill", after=number % 2 == 0)]
        storage = Moments(inner, stops, tell, 0, 0)
        meet(Noting(log=log, life=number))
        with Runtime(storage) as runtime:
            if runtime.run(RUN) is not None:
                try:
                    runtime.cancel(RUN)
                except FlowError:  # it has ended
                    pass
    return 0 if at is not None else _inspect(path)


def _inspect(path: Path) -> int:
    """The end of the last life: what is wrong."""
    log = EffectLog(path.with_name("effects"))
    kills = 0
    did, undid = [], Counter[Any]()
    for what, *rest in log.read():
        kills += what == "killed"
        if what == "did":
            did.append(tuple(rest))
        if what == "undid":
            undid[rest[0]] += 1
    with SQLiteStorage(path) as storage, Runtime(storage) as runtime:
        if runtime.run(RUN) is None:
            return 0
        recorded = {
            (run.id, step.result())
            for run in runtime.runs()
            for step in run.steps()
            if step.kind == "step" and re.search("(act|nested)$", step.path)
            if step.status in ("completed", "undone")
        }
        # a body that was in flight when its process died may have no record, or another one
        world = World(did=[each for each in did if not kills or each in recorded], undid=undid)
        wrong = standing(storage, world, again=kills)
        log.note("ended", str(runtime.run(RUN).status), len(world.did), sum(map(bool, undid.values())), kills)
    for one in wrong:
        log.note("wrong", one)
    return 0


def _trial(index: int, given: Any, folder: Path) -> EffectLog:
    rng = random.Random(f"{given.seed}/{index}")
    program, is_async, kind = STOPPED.program(rng.choice), rng.random() < 0.5, rng.choice(KINDS)
    kind = given.kind or kind
    hows = {"inside": ["cancel", "cancel", "task"] if is_async else ["cancel"]}.get(kind, [kind])
    stops = [
        Stop(
            int(rng.expovariate(1 / 7)),
            rng.choice(hows),
            rng.random() < 0.5,
            rng.random() < 0.4,
            rng.random() < 0.5,
        )
        for _ in range(rng.choice([1, 1, 2]) if kind == "inside" else 1)
    ]
    path = folder / "flow.db"
    log = EffectLog(folder / "effects")
    log.note("trial", kind, is_async)
    other = Other(path) if kind == "outside" else None
    ended = Life(partial(_first, program, is_async, path, stops, index, other)).wait()
    if other is not None:
        other.end()
    if ended.code or (ended.signal and not ended.killed):
        log.note("wrong", f"the first life ended with {ended}")
    again = [rng.randrange(12) for _ in range(rng.randrange(3))] if kind == "kill" else []
    for number, at in enumerate([*again, None], 2):
        ended = Life(partial(_later, path, number, at)).wait()
        if ended.code or (ended.signal and not ended.killed):
            log.note("wrong", f"life {number} ended with {ended}")
    if any(line[0] == "wrong" for line in log.read()):
        log.note("wrong", f"{program} {stops}")
    return log


def cancels(report: Report, given: Any) -> None:
    """``count`` cancels of as many programs, or the trial *only*, all or of one *kind*."""
    if given.plant:
        PLANTS[given.plant]()
    indices = range(given.count) if given.only is None else [given.only]
    for index in indices:
        folder = Path(tempfile.mkdtemp(prefix="flowdsl-cancels-", dir=given.directory))
        try:
            lines = _trial(index, given, folder).read()
        finally:
            shutil.rmtree(folder)
        for what, *rest in lines:
            if what == "trial":
                report.counts["cancels"] += 1
                report.counts[f"of kind {rest[0]}"] += 1
                report.counts["async" if rest[1] else "sync"] += 1
            if what == "ended":
                report.counts[f"runs {rest[0]}"] += 1
                report.counts["steps undone"] += rest[2]
                report.counts["kills"] += rest[3]
        if wrong := [line[1] for line in lines if line[0] == "wrong"]:
            report.fail(index, *wrong)
            if len(report.failures) >= 5:
                return
