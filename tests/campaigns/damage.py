"""A stored database in which a bit is flipped, or from which the end is cut off.

* ``payload``: a bit of one stored payload (arguments, result or exception of a run, outcome of a step, signal, memo).
  It is refused with ``CorruptPayload``, which names the run and the step, and everything else reads as before;
* ``flip`` and ``cut``: anywhere in the file of a database that was closed. Each payload reads as it was
  stored, and each fault is a typed error. What SQLite does not notice is counted: missing rows, and changed
  facts beside the payloads;
* ``log flip`` and ``log cut``: anywhere in the write-ahead log of a process that was killed. After a flipped
  bit no acknowledged commit disappears without an error. Nobody can notice that a log is shorter, so that is
  counted.
"""

import os
import random
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen

from flowdsl import Retry, Runtime, step, store, wait_for, workflow
from flowdsl.core.records import RunFilter
from flowdsl.errors import FlowError, StorageError
from flowdsl.testing import EffectLog

from .lives import Ended, Life
from .plants import PLANTS
from .report import Report

__all__ = ["damage"]

KINDS = ("payload", "payload", "flip", "cut", "log flip", "log cut")

_log = EffectLog(os.devnull)
_stop = False


# What is stored ---------------------------------------------------------------------------------------------


@step
def make(run: str, number: int) -> dict[str, Any]:
    """A value that is like no other: small, middling, or over several pages."""
    _log.note("step", run, number)
    size = (8, 150, 2500, 30)[number % 4]
    return {"run": run, "number": number, "text": random.Random(f"{run}/{number}").randbytes(size).hex()}


@step(retry=Retry(attempts=1))
def refuse(run: str) -> None:
    """An exception with a value."""
    raise LookupError(random.Random(run).randbytes(40).hex())


@step(memo=True)
def known(what: str) -> str:
    """A value that runs share."""
    _log.note("step", what)
    return random.Random(what).randbytes(40).hex()


@workflow(id="{name}")
def run(name: str, text: str) -> list[Any]:
    """Steps; some runs fail, some are interrupted before they take their signal."""
    values: list[Any] = [make(name, number) for number in range(4)]
    store.set("text", text)
    if "fails" in name:
        refuse(name)
    if "waits" in name:
        if _stop:
            raise KeyboardInterrupt
        values.append(wait_for("go", timeout=0))
        values.append(make(name, 4))
    return values


@workflow
def remember() -> str:
    """A hit of the memo."""
    return known("memo")


NAMES = [f"{number}-{kind}" for number in range(5) for kind in ("completes", "fails", "waits")]


def _call(name: str) -> Any:
    return run(name, random.Random(f"text/{name}").randbytes(60).hex())


def _build(path: Path, killed: bool) -> int:
    """Fill a database; with *killed*, leave it as a killed process does, with its last commit in doubt."""
    global _stop
    _stop = True
    with Runtime(f"sqlite:///{path}") as runtime:
        for name in NAMES:
            try:
                _call(name)
            except (LookupError, KeyboardInterrupt):
                pass
            if "waits" in name:
                runtime.signal(
                    name, "go", {"for": name, "text": random.Random(f"go/{name}").randbytes(50).hex()}
                )
        remember()
        if killed:
            runtime.signal(NAMES[2], "last")
            os.kill(os.getpid(), signal.SIGKILL)
    return 0


# What is read: this executes in a child ---------------------------------------------------------------------

Place = tuple[str, str]
"""A run and what of it: ``args``, ``outcome``, ``state``, ``facts``, ``continued``, or the key of a step."""


class _Reader:
    def __init__(self, log: EffectLog) -> None:
        self.log = log

    def note(self, run: str, what: str, read: Callable[[], Any]) -> Any:
        """Try to read one thing; what came of it goes into the log."""
        try:
            found = read()
        except FlowError as error:
            step = error.step or getattr(error, "key", None)
            self.log.note("refused", run, what, type(error).__name__, error.run, step, str(error))
            return None
        except LookupError as error:
            if type(error) is not LookupError:  # the exception of a run that fails, and no other
                raise
            found = str(error)
        self.log.note("read", run, what, found)
        return found


def _outcome(handle: Any) -> Any:
    error = handle.exception()
    return handle.result() if error is None else [type(error).__name__, str(error)]


def _facts(record: Any) -> list[Any]:
    return [
        record.status,
        record.workflow,
        record.number,
        record.key,
        record.args_preview,
        record.result_preview,
    ]


def _read_all(path: Path, plant: str | None) -> int:
    """Read everything, then continue what was interrupted."""
    global _log
    if plant:
        PLANTS[plant]()
    _log = EffectLog(path.parent / "effects")
    reader = _Reader(EffectLog(path.parent / "found"))
    runtime = None
    try:
        runtime = Runtime(f"sqlite:///{path}")
    except StorageError as error:
        reader.log.note("closed", type(error).__name__, str(error))
        return 0
    with runtime:
        reader.note("", "runs", lambda: sorted(one.id for one in runtime.storage.list_runs(RunFilter())))
        for name in NAMES:
            handle = reader.note(name, "", lambda: (runtime.run(name), None)[0] and True)
            if handle:
                _read_run(runtime, reader, name)
        for name in NAMES:
            if "waits" in name:
                reader.note(name, "continued", partial(_call, name))
        reader.note("memo", "", remember)
    return 0


def _read_run(runtime: Runtime, reader: _Reader, name: str) -> None:
    found = runtime.run(name)
    assert found is not None
    reader.note(name, "args", lambda: found.args)
    reader.note(name, "facts", lambda: _facts(found.record))
    if "waits" not in name:
        reader.note(name, "outcome", lambda: _outcome(found))
    reader.note(name, "state", found.state)
    try:
        steps = found.steps()
    except StorageError as error:
        reader.log.note("refused", name, "steps", type(error).__name__, error.run, error.step, str(error))
        return
    for one in steps:
        reader.note(name, one.key, lambda one=one: one.result() if one.status != "failed" else str(one.error))
        reader.note(
            name, f"facts of {one.key}", lambda one=one: [one.path, one.status, one.args, one.preview]
        )


# One trial --------------------------------------------------------------------------------------------------


@frozen
class Stored:
    """The database, whole: where it is, what is in it, and every payload as ``(run, what, bytes)``."""

    closed: Path
    killed: Path
    read: dict[Place, Any]
    payloads: list[tuple[str, str, bytes]]


def _look(
    folder: Path, plant: str | None
) -> tuple[dict[Place, Any], dict[Place, list[Any]], list[str], list[Any]]:
    """What a process can read there: values, refusals, what is wrong, and the bodies that it executed."""
    ended = Life(partial(_read_all, folder / "flow.db", plant), limit=30).wait()
    wrong = [] if ended == Ended() else [f"the reader ended with {ended}"]
    read, refused = {}, {}
    for what, *rest in EffectLog(folder / "found").read():
        if what == "read":
            read[rest[0], rest[1]] = rest[2]
        elif what == "refused":
            refused[rest[0], rest[1]] = rest[2:]
        else:
            refused["", "file"] = rest
    return read, refused, wrong, EffectLog(folder / "effects").read()


_PAYLOADS = """
SELECT id, 'args', args FROM runs UNION ALL
SELECT id, 'outcome', coalesce(result, error) FROM runs WHERE coalesce(result, error) IS NOT NULL UNION ALL
SELECT id, CASE kind WHEN 'store' THEN 'state' ELSE steps.key END, payload FROM steps JOIN runs ON runs.no = steps.seq >> 32 WHERE payload IS NOT NULL UNION ALL
SELECT runs.id, 'continued', payload FROM signals JOIN runs ON runs.no = signals.run WHERE name = 'go' UNION ALL
SELECT 'memo', '', payload FROM memos
"""


def _payloads(path: Path) -> list[tuple[str, str, bytes]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute(_PAYLOADS).fetchall()
    # The store of a run is empty once it has completed, and what was in it is not read any more.
    return [
        row for row in rows if row[0] in (*NAMES, "memo") and row[:2] != (f"{row[0][:2]}completes", "state")
    ]


def _store(folder: Path) -> Stored:
    closed, killed = folder / "closed", folder / "killed"
    for place in (closed, killed):
        place.mkdir()
        ended = Life(partial(_build, place / "flow.db", place == killed)).wait()
        if ended not in (Ended(), Ended(signal=signal.SIGKILL)):
            raise RuntimeError(f"the database could not be made: {ended}")
    (killed / "flow.db-shm").unlink(missing_ok=True)
    whole = folder / "whole"
    shutil.copytree(closed, whole)
    read, refused, wrong, _ = _look(whole, None)
    if refused or wrong:
        raise RuntimeError(f"the database cannot be read: {refused} {wrong}")
    return Stored(closed, killed, read, _payloads(closed / "flow.db"))


def damage(report: Report, given: Any) -> None:
    """Damage ``count`` copies of a database."""
    with tempfile.TemporaryDirectory(prefix="flowdsl-damage-", dir=given.directory) as directory:
        folder = Path(directory)
        stored = _store(folder)
        for number in range(given.count):
            rng = random.Random(f"{given.seed}/{number}")
            kind = rng.choice(KINDS)
            if given.kind not in (None, kind) or given.only not in (None, number):
                continue
            wrong = _try(stored, folder / str(number), kind, rng, report, given.plant)
            if wrong:
                report.fail(f"number {number}, {kind}", *wrong)
            shutil.rmtree(folder / str(number))
            if len(report.failures) >= (1 if given.plant else 5):
                return


def _try(
    stored: Stored, folder: Path, kind: str, rng: random.Random, report: Report, plant: str | None
) -> list[str]:
    shutil.copytree(stored.killed if kind.startswith("log") else stored.closed, folder)
    path = folder / ("flow.db-wal" if kind.startswith("log") else "flow.db")
    content = bytearray(path.read_bytes())
    target: Place | None = None
    if kind == "payload":
        target = _flip_in_payload(stored, content, path, rng)
    elif kind.endswith("flip"):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(content[: rng.randrange(len(content))])
    report.counts[kind] += 1
    read, refused, wrong, executed = _look(folder, plant)
    if target is not None:
        return wrong + _judge_payload(stored, target, read, refused, executed)
    return wrong + _judge_file(stored, kind, read, refused, report)


def _flip_in_payload(stored: Stored, content: bytearray, path: Path, rng: random.Random) -> Place:
    """Flip a bit of one payload, in its only copy in the file."""
    while True:
        run, what, payload = rng.choice(stored.payloads)
        at = rng.randrange(len(payload))
        start = max(0, min(at - 10, len(payload) - 20))
        window = payload[start : start + 20]
        if content.count(window) != 1:
            continue
        damaged = bytearray(content)
        damaged[content.index(window) + at - start] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if [one for one in _payloads(path) if one[:2] == (run, what)] != [(run, what, payload)]:
            return run, what


# The oracle -------------------------------------------------------------------------------------------------


def _judge_payload(
    stored: Stored,
    target: Place,
    read: dict[Place, Any],
    refused: dict[Place, list[Any]],
    executed: list[Any],
) -> list[str]:
    """Just the altered payload is refused, by name, and what depends on it."""
    run, what = target
    wrong = []
    expected = {target}
    if "waits" in run and what not in ("args", "continued"):
        expected.add((run, "continued"))
    for place in expected:
        if place not in refused:
            wrong.append(f"{place} was altered and read as {read.get(place)}")
            continue
        name, of_run, of_step, text = refused[place]
        if name != "CorruptPayload" or of_run is None or (run in NAMES and of_run != run):
            wrong.append(f"{place} was refused as {name} of run {of_run}: {text}")
        if what not in ("args", "outcome", "state", "continued", "") and of_step != what:
            wrong.append(f"{place} was refused as one of step {of_step}")
        if run in NAMES and run not in text:
            wrong.append(f"the message does not name the run: {text}")
    wrong += [f"{place} was refused too: {refused[place]}" for place in refused if place not in expected]
    wrong += [
        f"{place} reads {read.get(place)}, not {value}"
        for place, value in stored.read.items()
        if place not in expected and not _same(place, read.get(place), value)
    ]
    if (run, "continued") in expected and ["step", run, 4] in executed:
        wrong.append(f"{run} went on though it cannot be replayed")
    return wrong


def _judge_file(
    stored: Stored, kind: str, read: dict[Place, Any], refused: dict[Place, list[Any]], report: Report
) -> list[str]:
    """No value differs, and what is refused is refused with a type; what SQLite hides is counted."""
    wrong, hidden = [], []
    for place, value in stored.read.items():
        if place in refused and refused[place][0] == "WaitTimeout":
            hidden.append(f"the signal of {refused.pop(place)[1]} is gone")
        elif place in refused or _is_refused(place, refused):
            continue
        elif place not in read:
            hidden.append(f"{place} is gone")
        elif not _same(place, read[place], value):
            if "facts" in place[1] or place[1] in ("", "runs", "state"):  # made of rows
                hidden.append(f"{place} reads {read[place]}, not {value}")
            else:
                wrong.append(f"{place} reads {read[place]}, not {value}")
    if ("", "file") in refused:
        report.counts[f"{kind}: the file was refused"] += 1
    elif refused:
        report.counts[f"{kind}: something was refused"] += 1
    elif hidden:
        report.counts[f"{kind}: something was hidden by SQLite"] += 1
    else:
        report.counts[f"{kind}: nothing was lost"] += 1
    if hidden and kind == "log flip":
        wrong += [f"acknowledged, and gone without an error: {hidden}"]
    return wrong


def _is_refused(place: Place, refused: dict[Place, list[Any]]) -> bool:
    """Whether *place* could not be looked at, because what leads there was refused."""
    return bool({("", "file"), (place[0], ""), (place[0], "steps")} & set(refused))


def _same(place: Place, found: Any, expected: Any) -> bool:
    return bool(found == expected)
