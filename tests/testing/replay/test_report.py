"""The report of check_replay about a mistake."""

import datetime
import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from mistakes import random_above_four
from replay_steps import charge, refused

from flowdsl import step, store, workflow
from flowdsl.testing import ReplayMismatch, check_replay
from flowdsl.testing.replay import causes
from flowdsl.testing.replay.elsewhere import Elsewhere


def test_the_story_of_a_crash() -> None:
    """The report has what ran, what was replayed, where it went differently, on which line, why, and what to
    do."""

    @workflow
    def flow() -> str:
        charge("first")
        return charge(str(datetime.date.today()))

    with pytest.raises(ReplayMismatch) as caught:
        check_replay(flow)
    story = str(caught.value)
    assert caught.value.crash == 1
    assert story.startswith("flow() does not replay: it died after commit 1 (of 4 without a crash)")
    assert "ran before the crash:\n    charge('first'), which had begun and was not recorded" in story
    assert f"charge(what='{datetime.date.today()}')" in story
    assert "calls that the first execution did not make:\n        charge(" in story
    assert "test_report.py:" in story
    assert "it depends on: the wall clock\n" in story
    assert "what to do:" in story


def test_hypothesis_shrinks_to_the_smallest_input() -> None:
    """Under ``@given`` the report has the smallest input and the earliest crash."""
    flow = random_above_four  # other processes import its module again and again, and this one takes long

    @settings(max_examples=30, database=None)
    @given(st.integers(0, 100))
    def check(n: int) -> None:
        check_replay(flow, n)

    with pytest.raises(ReplayMismatch, match=r"random_above_four\(5\)"):
        check()


def test_it_dies_between_two_writes_to_the_store() -> None:
    """A crash between two store writes of a step repeats a read and write, and not an increment."""

    @step
    def read_and_write() -> None:
        store.set("n", store.get("n", 0) + 1)
        store.push("log", "written")

    @step
    def incremented() -> None:
        store.increment("n")
        store.push("log", "written")

    @workflow
    def careless() -> int:
        read_and_write()
        return store.get("n")

    @workflow
    def careful() -> int:
        incremented()
        return store.get("n")

    assert "set('n', 2)" in refused(careless)
    assert check_replay(careful).value == 1


def test_what_differs_by_itself_is_not_blamed_on_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference by chance is not blamed on the changed surroundings."""

    @workflow
    def flow() -> str:
        return charge("heads" if random.random() < 2 else "tails")

    real, plain = Elsewhere.sight, iter(["", "", "another call"])

    def sight(self, number, point, changes, *, notice=False, imported=()):
        found = real(self, number, point, changes, notice=notice, imported=imported)
        if notice:
            return found
        matters = len(changes) > 1 or changes == (causes.ENVIRONMENT,)
        return evolve(found, what=("another call" if matters else "") if changes else next(plain, ""))

    monkeypatch.setattr(Elsewhere, "sight", sight)
    with pytest.raises(ReplayMismatch, match="it depends on: random numbers\n"):
        check_replay(flow)
