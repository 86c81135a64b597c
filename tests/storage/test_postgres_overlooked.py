"""Waits that a commit may have overlooked."""

from types import SimpleNamespace

import pytest

pytest.importorskip("psycopg")

from flowdsl.storage.postgres import overlooked
from flowdsl.storage.postgres.overlooked import Overlooked


class Passing:
    """The time of this module, which passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(overlooked, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Passing:
    """The time."""
    return Passing(monkeypatch)


def test_a_wait_is_told_when_a_transaction_that_may_have_overlooked_it_has_ended(time: Passing) -> None:
    """Each transaction that was open when a wait was entered tells it once, and then nothing is looked at."""
    waits, under_way = Overlooked(), {"1", "2"}
    waits.enter(["a"], under_way)
    waits.enter(["b"], ["2"])
    for ended, told in [("1", {"a"}), ("2", {"a", "b"})]:
        time.now += waits.pause()
        assert waits.ended(lambda: under_way) == set()
        under_way.remove(ended)
        assert waits.ended(lambda: under_way) == set()  # it is not time yet
        time.now += waits.pause()
        assert waits.ended(lambda: under_way) == told
    assert waits.pause() == float("inf")


def test_a_wait_that_is_entered_during_a_look_is_kept(time: Passing) -> None:
    """A transaction that has begun since a look is not taken for one that has ended."""
    waits = Overlooked()
    waits.enter(["a"], ["1"])

    def read() -> list[str]:
        waits.enter(["b"], ["2"])
        return []

    time.now += waits.pause()
    assert waits.ended(read) == {"a"}
    time.now += waits.pause()
    assert waits.ended(list) == {"b"}


def test_long_transactions_are_looked_at_less_and_less(time: Passing) -> None:
    """A transaction of an hour is looked at a hundred times, but soon again when another wait is entered."""
    waits, looks, end = Overlooked(), 0, time.now + 3600
    waits.enter(["a"], ["1"])
    while time.now < end:
        time.now += waits.pause()
        waits.ended(lambda: ["1"])
        looks += 1
    assert 50 < looks < 150
    assert waits.pause() > 60
    waits.enter(["b"], ["1", "2"])
    assert waits.pause() < 0.1


def test_waits_that_are_always_entered_put_no_look_off(time: Passing) -> None:
    """A process that enters waits all the time looks as soon as one that has entered a single one."""
    waits, looks = Overlooked(), 0
    waits.enter(["a"], ["1"])

    def read() -> list[str]:
        nonlocal looks
        looks += 1
        return ["1"]

    for _ in range(100):
        time.now += 0.01
        waits.enter(["b"], ["1"])
        waits.ended(read)
    assert 5 < looks < 30


def test_what_nobody_waits_for_is_not_told(time: Passing) -> None:
    """Topics that are forgotten take no room, and are not told."""
    waits = Overlooked()
    waits.enter(["a", "b"], ["1"])
    waits.forget(["a"])
    time.now += waits.pause()
    assert waits.ended(list) == {"b"}
