"""Programs in child processes that are killed with SIGKILL: at each commit, at system calls, at random
moments, in recovery, and during a migration of the schema. Some have a second process that waits for the run,
or a stale owner.

The oracle is a file to which every body and every caller appends a line (:class:`flowdsl.testing.EffectLog`).
It is outside the storage, and its lines survive a SIGKILL:

* a step whose result a caller saw never executes again, and every later process sees the same result;
* the lines of two processes are never mixed, because a run has one owner;
* the result is that of an execution without faults, on another storage;
* in the end no run is unfinished, and SQLite finds no fault in its file.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from bodies import to_its_end
from grammar import REPLAYED, Program, Slot
from programs import PLAYERS, World, execute
from worlds import meet

from flowdsl import RunStatus, Runtime
from flowdsl.engine import owner
from flowdsl.errors import LeaseLost
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.migrations import Migration, migrations
from flowdsl.storage.sqlite import file
from flowdsl.testing import CrashingStorage, EffectLog, VirtualClock

from .faults import CUTS, KILL, SYNCS, TEAR, WRITES, shim
from .lives import Ended, Life
from .plants import PLANTS
from .report import Report

__all__ = ["Calm", "Noting", "Trial", "calm_life", "cases", "folder_in", "inspect", "judge", "kills"]

_CALLS = WRITES | SYNCS | CUTS
_SHORT = 0.2  # seconds of a lease that is to run out


# Deaths -----------------------------------------------------------------------------------------------------


@frozen
class Death:
    """How a life is ended: *at* the n-th ``commit`` (before or after it took effect), at the n-th system call that
    writes (``write``, or ``tear``: in the middle of it), after a part of the time that a whole life takes
    (``moment``), or not at all. In the body number *stops* it stands still until it is woken, as on a machine that
    is suspended. With *migrates*, its release has a newer schema than the one before."""

    how: str = "none"
    at: float = 0
    when: Any = "after"
    stops: int = 0
    migrates: bool = False


NO = Death()


@frozen
class Calm:
    """An execution without faults: what a life costs, and what it must give."""

    result: Any
    commits: int
    bodies: int
    calls: int
    size: int
    seconds: float


@frozen
class Trial:
    """One database: *program* as a run, by a given id or by its number, and the lives that it gets."""

    program: Program
    is_async: bool
    deaths: tuple[Death, ...]
    named: bool = False
    recovers: bool = False
    stale: bool = False
    plant: str | None = None
    folder: Path = Path()

    def kinds(self) -> set[str]:
        """What is tried here, in words."""
        found = {death.how for death in self.deaths}
        found |= {"stale"} if self.stale else set()
        found |= {"migration" for death in self.deaths if death.migrates}
        return found | {"beside" for death in self.deaths if death.stops and not self.stale}

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "flow.db"

    @property
    def log(self) -> EffectLog:
        """What really happened."""
        return EffectLog(self.folder / "effects")


# One life: this executes in the child -----------------------------------------------------------------------


@define(eq=False, kw_only=True)
class Noting(World):
    """The world of a program, outside of its process."""

    log: EffectLog
    life: int
    stops: int = 0
    mine: list[str] = field(factory=list)

    def begin(self, slot: Slot) -> Any:
        """A body begins: its execution has a name that no other has."""
        with self.lock:
            name = f"{self.life}.{len(self.mine) + 1}"
            self.mine.append(name)
            self.log.note("begin", self.life, slot, name)
            if len(self.mine) == self.stops:
                os.kill(os.getpid(), signal.SIGSTOP)
        return name

    def times(self, slot: Slot) -> int:
        """How often *slot* was executed, by whatever process."""
        place = json.loads(json.dumps(slot))
        return sum(line[0] == "begin" and line[2] == place for line in self.log.read())

    def saw(self, slot: Slot, outcome: Any) -> None:
        """A caller has an outcome."""
        with self.lock:
            self.log.note("saw", self.life, slot, outcome)


def _newer() -> list[Migration]:
    """The schema of a later release: it changes tables and rows, which must happen once."""
    known = migrations("sqlite")
    script = (
        "ALTER TABLE steps ADD COLUMN note TEXT NOT NULL DEFAULT '';"
        "CREATE TABLE later (runs INTEGER);"
        "INSERT INTO later SELECT count(*) FROM runs;"
        "UPDATE steps SET note = note || 'migrated';"
    )
    return [*known, Migration(len(known) + 1, "later", script)]


def _live(trial: Trial, number: int, death: Death, calm: bool = False, alone: bool = False) -> int:
    trial.log.note("life", number, repr(death))
    if trial.plant:
        PLANTS[trial.plant]()
    if death.migrates:
        file.migrations = lambda dialect: _newer()  # type: ignore[attr-defined]
    if trial.stale:
        owner._host_of = lambda pid: f"host{number}|boot|namespace"  # type: ignore[assignment]
    if calm and shim():
        shim().arm("flow.db", _CALLS, 0, KILL)
    elif death.how in ("write", "tear"):
        shim().arm("flow.db", _CALLS, int(death.at), TEAR if death.how == "tear" else KILL)
    world = meet(Noting(program=trial.program, seed=number, log=trial.log, life=number, stops=death.stops))
    storage = SQLiteStorage(trial.path)
    relay: Any = CrashingStorage(storage, None)
    if death.how == "commit":
        relay = CrashingStorage(storage, int(death.at), when=death.when, outcome="kill")
    clock = VirtualClock(1_000_000.0 * (number + 1))
    try:
        with Runtime(relay, clock=clock, lease=_SHORT if trial.stale else 30.0) as runtime:
            result = _outcome(trial, runtime)
    except LeaseLost:
        trial.log.note("lost", number)
        return 0
    trial.log.note("result", number, result)
    if calm:
        size = max(file.stat().st_size for file in trial.folder.glob("flow.db*"))
        storage.close()
        trial.log.note("calm", relay.commits, len(world.mine), shim().disarm() if shim() else 0, size)
    storage.close()
    return inspect(trial) if alone and death.how == "none" else 0


def _outcome(trial: Trial, runtime: Runtime) -> Any:
    whole = PLAYERS[trial.is_async].whole
    if trial.named:
        return to_its_end(whole.options(id="the-run"), trial.is_async)
    known = [run for run in runtime.runs() if run.parent is None]
    if known and known[0].status is RunStatus.COMPLETED:  # to call it again would be the next number
        return known[0].result()
    if trial.recovers and (found := runtime.recover()):
        return found[0].result()
    return to_its_end(whole, trial.is_async)


def inspect(trial: Trial, path: Path | None = None) -> int:
    """Whether anything is left over. The last life does it, which nobody kills; a process takes less than another one
    beside it."""
    if any(death.migrates for death in trial.deaths):
        file.migrations = lambda dialect: _newer()  # type: ignore[attr-defined]
    wrong = []
    path = path or trial.path
    with SQLiteStorage(path) as storage:
        runs = storage.list_runs()
        if len([run for run in runs if run.parent is None]) != 1:
            wrong.append(f"not one run: {[run.id for run in runs]}")
        wrong += [f"{run.id} is {run.status}" for run in runs if run.status is not RunStatus.COMPLETED]
        wrong += [f"{run.id} has an owner" for run in runs if run.owner is not None]
        steps = [step for run in runs for step in storage.list_steps(run.id)]
        wrong += [f"{step.path} is pending" for step in steps if step.status == "pending"]
    with closing(sqlite3.connect(path)) as connection:
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        if whole != "ok":
            wrong.append(whole)
        if any(death.migrates for death in trial.deaths):
            later = connection.execute("SELECT count(*) FROM later").fetchone()
            notes = connection.execute("SELECT DISTINCT note FROM steps WHERE note != ''").fetchall()
            if later != (1,) or notes not in ([], [("migrated",)]):
                wrong.append(f"migrated more or less than once: {later} {notes}")
    trial.log.note("left", wrong)
    return 0


# The oracle -------------------------------------------------------------------------------------------------


def judge(lines: list[Any], expected: Any, stale: int | None = None) -> list[str]:
    """What is wrong with a log, in words. The life *stale* was frozen and overtaken: what it begins afterwards is
    discarded, and counts only where somebody sees it."""
    wrong, seen, turns = [], {}, []
    results = []
    for what, *rest in lines:
        if what in ("begin", "saw"):
            life, slot, value = rest[0], json.dumps(rest[1]), rest[2]
            overtaken = life == stale and any(turn != stale for turn in turns)
            if not overtaken and turns[-1:] != [life]:
                if life in turns:
                    wrong.append(f"two owners: life {life} went on at {slot} while {turns[-1]} had the run")
                turns.append(life)
            if what == "begin" and slot in seen and not overtaken:
                wrong.append(f"{slot} was acknowledged and executed again by life {life}")
            if what == "saw" and seen.setdefault(slot, value) != value:
                wrong.append(f"{slot} was seen as {seen[slot]} and then as {value}")
        elif what == "result":
            results.append(rest[1])
        elif what == "lost" and rest[0] != stale:
            wrong.append(f"life {rest[0]} lost its run though it was alive")
        elif what == "left":
            wrong += rest[0]
    wrong += [f"the result was {found}, not {expected}" for found in results if found != expected]
    if not results:
        wrong.append("there is no result")
    return wrong


# One trial: this executes in the campaign -------------------------------------------------------------------


def calm_life(trial: Trial) -> Calm:
    """Measure *trial* without faults, and see what it gives elsewhere."""

    def elsewhere() -> int:
        result, _ = execute(trial.program, World(), MemoryStorage(), trial.is_async)
        trial.log.note("expected", result)
        return 0

    began = time.monotonic()
    ended = Life(partial(_live, trial, 0, NO, True)).wait()
    seconds = time.monotonic() - began
    if ended != Ended() or Life(elsewhere).wait() != Ended():
        raise RuntimeError(f"{trial} does not end without faults: {ended} {trial.log.read()}")
    found = {line[0]: line[1:] for line in trial.log.read()}
    commits, bodies, calls, size = found["calm"]
    if found["result"][1] != found["expected"][0]:
        raise RuntimeError(
            f"{trial} gives {found['result'][1]} on SQLite and {found['expected'][0]} in memory"
        )
    return Calm(found["expected"][0], commits, bodies, calls, size, seconds)


def _try(trial: Trial, calm: Calm, report: Report) -> None:
    """Live all lives of *trial*, count those that were killed, and judge."""
    wrong: list[str] = []
    number = 0
    migrated = False
    for death in (*trial.deaths, NO):
        migrated = migrated or death.migrates
        death = evolve(death, migrates=migrated)
        number += 1
        report.counts["lives"] += 1
        recovers = number > 1 and not death.migrates
        if death.stops:
            ended, more = _pair(trial, number, death)
            number += 1
            wrong += more
            report.counts["stale owners"] += trial.stale
        else:
            life = Life(partial(_live, trial, number, death, alone=True))
            ended = life.kill_after(death.at * calm.seconds) if death.how == "moment" else life.wait()
        if ended.killed and death.how != "none":
            report.counts["kills"] += 1
            report.counts[f"kills at a {death.how}"] += 1
            report.counts["kills in recovery"] += recovers
            report.counts["kills in migration"] += death.migrates
            report.counts["kills beside a waiting process"] += death.stops > 0
        elif ended != Ended():
            wrong.append(f"life {number} ended with {ended}")
        elif not death.migrates:
            break
    lines = trial.log.read()
    if lines[-1][0] != "left":  # the last life was to be killed, and was not
        if Life(partial(inspect, trial)).wait() != Ended():
            wrong.append("the storage cannot be inspected")
        lines = trial.log.read()
    wrong += judge(lines, calm.result, 1 if trial.stale else None)
    report.counts["trials"] += 1
    if wrong:
        report.fail(repr(evolve(trial, folder=Path())), *wrong, json.dumps(lines))


def _pair(trial: Trial, number: int, death: Death) -> tuple[Ended, list[str]]:
    """Two lives on one run. The first stands still for a while; then it goes on, and may be killed. The second waits
    for it: until it has ended, or until its lease is over."""
    first = Life(partial(_live, trial, number, death))
    stopped = first.wait(stopped=True)
    if not stopped.stopped:
        return stopped, []
    second = Life(partial(_live, trial, number + 1, evolve(NO, migrates=death.migrates)))
    second.over(_SHORT * 10 if trial.stale else 0.1)
    first.go_on()
    ended, other = first.wait(), second.wait()
    return ended, [] if other == Ended() else [f"life {number + 1} ended with {other}"]


def _trials(trial: Trial, calm: Calm, rng: random.Random) -> list[Trial]:
    """All deaths of one program: at each commit, as often at a system call and at a moment, some with more."""

    def moment() -> Death:
        return Death("moment", rng.uniform(0, 1.05))

    def call(limit: int) -> Death:
        return Death(rng.choice(["write", "tear"]), rng.randint(1, limit)) if shim() else moment()

    def commit() -> Death:
        return Death("commit", rng.randint(1, calm.commits), rng.choice(["before", "after"]))

    def more() -> tuple[Death, ...]:
        again = [rng.choice([commit, moment, partial(call, max(calm.calls, 1))])() for _ in range(3)]
        return tuple(again[: rng.choice([0, 0, 0, 1, 1, 2])])

    points = [Death("commit", at, when) for at in range(1, calm.commits + 1) for when in ("before", "after")]
    points += [call(max(calm.calls, 1)) for _ in points] + [moment() for _ in points]
    found = [
        evolve(trial, deaths=(death, *more()), named=rng.random() < 0.5, recovers=rng.random() < 0.3)
        for death in points
    ]
    for _ in range(3):
        migrating = evolve(rng.choice([call(16), Death("moment", rng.uniform(0, 0.5))]), migrates=True)
        found.append(evolve(trial, deaths=(commit(), migrating)))
    stops = rng.randint(1, max(calm.bodies, 1))
    beside = Death("commit", rng.randint(calm.commits // 2, calm.commits), "before", stops)
    found.append(evolve(trial, deaths=(beside,), named=True))
    found.append(evolve(trial, deaths=(Death(stops=stops),), named=True, stale=True))
    rng.shuffle(found)
    return found


def cases(seed: int, only: int | None) -> Iterator[tuple[int, Program, bool]]:
    for index in itertools.count():
        program = REPLAYED.of_seed(f"{seed}/{index}")
        if only is None or index == only:
            yield index, program, random.Random(f"{seed}/{index}").choice([False, True])
        if index == only:
            return


def kills(report: Report, given: Any) -> None:
    """Kill until there were *count* kills (or stale owners), or one program (*only*) has been killed everywhere."""
    if not shim():
        report.skip("kills at a write", shim().reason)
    for index, program, is_async in cases(given.seed, given.only):
        rng = random.Random(f"{given.seed}/{index}/deaths")
        with folder_in(given.directory) as folder:
            plain = Trial(program, is_async, (), folder=folder)
            calm = calm_life(plain)
        report.counts["programs"] += 1
        for trial in _trials(evolve(plain, plant=given.plant), calm, rng):
            if given.kind and given.kind not in trial.kinds():
                continue
            done = report.counts["stale owners" if given.kind == "stale" else "kills"]
            if done >= given.count or len(report.failures) >= (1 if given.plant else 5):
                return
            with folder_in(given.directory) as folder:
                _try(evolve(trial, folder=folder), calm, report)


class folder_in:
    def __init__(self, where: Path | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="flowdsl-kills-", dir=where))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
