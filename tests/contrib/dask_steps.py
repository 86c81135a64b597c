"""Steps and workflows that the tests of Dask send to its workers, which import this module."""

import os
import signal
import time
from pathlib import Path

from flowdsl import Retry, step, workflow


def note(folder: str, what: str) -> int:
    """Write down that a body began; how often it had."""
    with Path(folder, what).open("a") as file:
        file.write("x")
    return Path(folder, what).stat().st_size - 1


def die() -> None:
    """Kill this worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@step
def reserve(folder: str) -> int:
    """Takes its effect and ends."""
    return note(folder, "reserve")


@step
def pack(folder: str) -> int:
    """Kills its worker the first time."""
    found = note(folder, "pack")
    if not found:
        die()
    return found


@step(in_doubt="raise", retry=Retry(attempts=3, initial=0))
def charge(folder: str) -> str:
    """Kills its worker whenever it is executed."""
    note(folder, "charge")
    die()
    return "charged"


@workflow
def order(folder: str) -> tuple[int, int]:
    """A whole run: one step completes, the next one kills its worker."""
    return reserve(folder), pack(folder)


@workflow
async def double(x: int) -> int:
    """An async run."""
    return 2 * x


@workflow
def pays(folder: str) -> str:
    """One submitted step that must not execute twice."""
    return charge.submit(folder).result()


@step
def waits(folder: str, n: int) -> int:
    """Begins, and ends when it is let go."""
    note(folder, f"begun-{n}")
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return n


@workflow
def crowd(folder: str) -> list[int]:
    """More steps than there are workers."""
    return waits.map([folder] * 6, range(6))
