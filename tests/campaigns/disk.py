"""Full, read-only and failing disks while a program executes.

* ``error``: a system call of SQLite fails, once or from then on: writes, syncs and truncations with ``EIO`` or
  ``ENOSPC``, opening with ``EMFILE`` or ``EACCES``, writes that write only half;
* ``limit``: a file may not grow over a size (``RLIMIT_FSIZE``);
* ``full``: a small file system fills up;
* ``read-only``: a file system is read-only when the process starts.

The first process meets the fault. It must get a :class:`~flowdsl.errors.StorageError` or no error. Then the
fault is removed, and the same process must go on and end the run. Then a new process calls the run again. The
oracle is that of ``kills``: what a caller saw never executes again and never changes, and the result is that
without faults.
"""

import ctypes
import errno
import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from bodies import to_its_end
from programs import PLAYERS
from worlds import meet

from flowdsl import Runtime
from flowdsl.errors import StorageError
from flowdsl.storage import SQLiteStorage
from flowdsl.testing import VirtualClock

from .faults import BREAK, CUTS, FAIL, OPENS, SHORTEN, SYNCS, WRITES, shim
from .kills import Calm, Noting, Trial, calm_life, cases, folder_in, inspect, judge
from .lives import Ended, Life
from .plants import PLANTS
from .report import Report

__all__ = ["disk"]

_SMALL = 8 << 20  # bytes of the small file system


@frozen
class Fault:
    """What is wrong with the disk: for ``error``, at which of which calls, with what; for others a size in bytes."""

    kind: str
    size: int = 0
    calls: int = 0
    action: int = 0
    number: int = 0

    def __str__(self) -> str:
        name = errno.errorcode.get(self.number, "")
        return f"{self.kind} at {self.size} of calls {self.calls}, action {self.action} {name}"


class _Disk:
    """The fault, in the process that is hurt."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault, self.folder = fault, folder
        self.filler = folder / "filler"

    def hurt(self) -> None:
        """From now on it is there."""
        fault = self.fault
        if fault.kind == "error":
            shim().arm("flow.db", fault.calls, fault.size, fault.action, fault.number)
        elif fault.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, resource.RLIM_INFINITY))
        elif fault.kind == "full":
            _fill(self.filler, fault.size)
        elif fault.kind == "read-only":
            _mount(self.folder, "remount,ro")

    def lift(self) -> None:
        """It is gone."""
        if self.fault.kind == "error":
            shim().disarm()
        elif self.fault.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        elif self.fault.kind == "full":
            self.filler.unlink(missing_ok=True)
        elif self.fault.kind == "read-only":
            _mount(self.folder, "remount,rw")


def _fill(filler: Path, room: int) -> None:
    """Leave *room* bytes."""
    with filler.open("wb", buffering=0) as file:
        free = os.statvfs(filler.parent)
        left = free.f_bavail * free.f_frsize - room
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))


def _mount(where: Path, options: str) -> None:
    command = ["mount", "-o", options, *([] if "remount" in options else ["-t", "tmpfs", "tmpfs"]), where]
    subprocess.run(command, check=True, capture_output=True)


def _private() -> str:
    """Give this process a table of mounts of its own, so that its mounts end with it; or the reason why not."""
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "mounting needs the rights of root"
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    return done.stderr


# The lives --------------------------------------------------------------------------------------------------


def _hurt(trial: Trial, fault: Fault, place: Path) -> int:
    """Execute with the fault; then, in the same process, without it."""
    if trial.plant:
        PLANTS[trial.plant]()
    disk = _Disk(fault, place)
    meet(Noting(program=trial.program, seed=1, log=trial.log, life=1))
    call = partial(to_its_end, PLAYERS[trial.is_async].whole.options(id="the-run"), trial.is_async)
    disk.hurt()
    storage = runtime = None
    try:
        storage = SQLiteStorage(place / "flow.db", patience=1.0)
        runtime = Runtime(storage, clock=VirtualClock(1_000_000.0))
        with runtime:
            trial.log.note("result", 1, call())
    except StorageError as error:
        trial.log.note("error", type(error).__name__, str(error))
    disk.lift()
    storage = storage or SQLiteStorage(place / "flow.db")
    with Runtime(storage, clock=VirtualClock(2_000_000.0)):
        trial.log.note("result", 1, call())
    storage.close()
    return 0


def _again(trial: Trial, place: Path) -> int:
    """Another process."""
    meet(Noting(program=trial.program, seed=2, log=trial.log, life=2))
    with Runtime(f"sqlite:///{place}/flow.db", clock=VirtualClock(3_000_000.0)):
        whole = PLAYERS[trial.is_async].whole.options(id="the-run")
        trial.log.note("result", 2, to_its_end(whole, trial.is_async))
    return 0


# One trial --------------------------------------------------------------------------------------------------


def _faults(calm: Calm, rng: random.Random, kinds: set[str]) -> Iterator[Fault]:
    calls = max(calm.calls, 1)
    made: dict[str, Callable[[], Fault]] = {
        "error": lambda: Fault(
            "error", rng.randint(1, calls), *rng.choice(_CALLS), rng.choice([errno.EIO, errno.ENOSPC])
        ),
        "open": lambda: Fault(
            "error", rng.randint(1, 8), OPENS, rng.choice([FAIL, BREAK]), rng.choice(_OPENING)
        ),
        "limit": lambda: Fault("limit", rng.randint(20_000, calm.size + 2000)),
        "full": lambda: Fault("full", rng.randint(4096, calm.size + 100_000)),
        "read-only": lambda: Fault("read-only"),
    }
    for _ in range(10):
        for name, make in made.items():
            if name in kinds:
                yield make()


_CALLS = [
    (WRITES, FAIL),
    (WRITES, BREAK),
    (WRITES, SHORTEN),
    (SYNCS, FAIL),
    (SYNCS, BREAK),
    (CUTS, FAIL),
    (WRITES | SYNCS | CUTS, BREAK),
]
_OPENING = [errno.EMFILE, errno.EACCES, errno.EIO]


def disk(report: Report, given: Any) -> None:
    """``count`` faults."""
    kinds = {given.kind} if given.kind else {"error", "open", "limit", "full", "read-only"}
    if not shim():
        kinds -= {"error", "open"}
        report.skip("errors of system calls", shim().reason)
    if reason := _private():
        kinds -= {"full", "read-only"}
        report.skip("full and read-only file systems", reason)
    with tempfile.TemporaryDirectory(prefix="flowdsl-small-") as directory:
        small = Path(directory)
        if not reason:
            _mount(small, f"size={_SMALL}")
        for index, program, is_async in cases(given.seed, given.only):
            rng = random.Random(f"{given.seed}/{index}/disk")
            with folder_in(given.directory) as folder:
                trial = Trial(program, is_async, (), named=True, plant=given.plant, folder=folder)
                calm = calm_life(evolve(trial, plant=None))
            for fault in _faults(calm, rng, kinds):
                if report.counts["trials"] >= given.count or len(report.failures) >= (
                    1 if given.plant else 5
                ):
                    break
                with folder_in(given.directory) as folder:
                    place = small if fault.kind in ("full", "read-only") else folder
                    _try(evolve(trial, folder=folder), fault, place, calm, report)
            else:
                continue
            break
        if not reason:
            subprocess.run(["umount", small], check=True)


def _try(trial: Trial, fault: Fault, place: Path, calm: Calm, report: Report) -> None:
    try:
        ended = [Life(partial(_hurt, trial, fault, place)).wait(), Life(partial(_again, trial, place)).wait()]
        ended.append(Life(partial(inspect, trial, place / "flow.db")).wait())
    finally:
        if place != trial.folder:
            for file in place.iterdir():
                file.unlink()
    wrong = [f"a life ended with {end}" for end in ended if end != Ended()]
    lines = trial.log.read()
    errors = [line for line in lines if line[0] == "error"]
    wrong += judge([line for line in lines if line[0] != "error"], calm.result)
    report.counts["trials"] += 1
    report.counts[fault.kind] += 1
    for _, name, _ in errors:
        report.counts[f"{fault.kind}: {name}"] += 1
    if wrong:
        report.fail(f"{fault}; {trial.program}, {trial.is_async=}", *wrong, json.dumps(lines))
