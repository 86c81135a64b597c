"""Steps that the tests of executors send to worker processes, which import this module."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from flowdsl import Retry, current_step, log, step, store, workflow


class Declined(Exception):
    """An exception whose constructor takes more than its message."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


@step
def square(x: int) -> tuple[int, int, int]:
    """A plain body: result, process, attempt."""
    found = current_step()
    assert found is not None
    return x * x, os.getpid(), found.attempt


@step
def nested(x: int) -> int:
    """A step inside a worker."""
    return x + 100


@step
def counting(x: int) -> tuple[int, int]:
    """A body that logs, counts and calls a step."""
    log("counting", x=x)
    return store.increment("n"), nested(x)


@step(retry=Retry(attempts=3, initial=0))
def dies_once(flag: str) -> str:
    """A body whose process is killed the first time."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@step(retry=Retry(attempts=1))
def declines() -> None:
    """A body that raises its own exception."""
    raise Declined(7, "no funds")


@step(retry=Retry(attempts=1))
def takes(value: Any) -> Any:
    """A body that gives back what it got."""
    return value


@step(in_doubt="raise")
def charges(file: str) -> str:
    """A body that must not execute twice."""
    with Path(file).open("a") as opened:
        opened.write("x")
    return "charged"


@step(heartbeat=0.5, retry=Retry(attempts=None, initial=0))
def hangs(flag: str) -> Any:
    """A body that says how far it came and hangs there, until *flag* exists; the next one goes on."""
    found = current_step()
    assert found is not None
    if found.details is None:
        found.heartbeat("half")
        while not Path(flag).exists():
            time.sleep(0.01)
    return found.details


@workflow
def squares(n: int) -> list[tuple[int, int, int]]:
    """A fan-out."""
    return square.map(range(n))


@workflow
def counts(n: int) -> tuple[list[tuple[int, int]], int]:
    """A fan-out with shared state."""
    return counting.map(range(n)), store.get("n")


@workflow
def survives(flag: str) -> str:
    """One step whose worker dies."""
    return dies_once.submit(flag).result()


@workflow
def given_up(flag: str) -> Any:
    """One step whose worker hangs."""
    return hangs.submit(flag).result()


@workflow
def declined() -> None:
    """One step that fails."""
    declines.submit().result()


@workflow
def pays(file: str) -> str:
    """One step in a worker that must not execute twice."""
    return charges.submit(file).result()
