"""Steps, and a workflow that replays, for the tests of check_replay."""

import datetime
import os
import random
from typing import Any

import pytest

from flowdsl import now, rng, sleep, step, store, uuid4, workflow
from flowdsl.testing import ReplayMismatch, check_replay


@step
def charge(what: Any) -> str:
    """A step."""
    return f"paid {what}"


@step
def draw() -> float:
    """A step whose result is another each time."""
    return random.random()


@step
def environ() -> str:
    """Settings from a step."""
    return os.environ["HOME"] + str(datetime.date.today())


@workflow
def careful(n: int) -> Any:
    when = now()
    sleep("3 days")
    store.increment("count")
    found = [charge(one) for one in sorted({"a", "b"})]
    return [when, draw(), str(uuid4()), rng().random(), found, store.get("count"), n, environ()]


def refused(made: Any, *args: Any, **options: Any) -> str:
    """The story of a workflow that does not replay."""
    with pytest.raises(ReplayMismatch) as caught:
        check_replay(made, *args, **options)
    return str(caught.value)
