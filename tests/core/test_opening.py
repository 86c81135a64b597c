"""What opening a run makes of it, in which order."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.opening import Answers, Unanswered, opening
from flowdsl.storage.operations import OpenRun
from flowdsl.testing.storage.samples import a_run

OTHER = a_run("other", owner="you")


def decided(op: OpenRun, **answers: Any) -> tuple[Any, list[Any]]:
    """The decision, and the questions that were asked. *answers* are those to them; ids are taken if they say
    so."""
    asked: list[Any] = []
    given: list[Any] = []
    while True:
        try:
            return opening(op, Answers(given), None), asked
        except Unanswered as question:
            if question.run is not None:
                asked.append(question.run.id)
                given.append(question.run.id not in answers.get("taken", ()))
            else:
                asked.append(question.name)
                unknown = (0, 0, 5.0, None) if question.name == "numbers" else None
                given.append(answers.get(question.name, unknown))


def test_the_same_work_is_found_before_any_other():
    """A run that is the same work and has not ended is found, whatever the id."""
    op = OpenRun(a_run("r", number=None, dedup="d"), 60.0)
    assert decided(op, same_work=("", OTHER)) == ((OTHER,), ["same_work"])


def test_a_given_id_is_found_or_inserted():
    """The run of an id is found; otherwise it is inserted, above the epochs of all deleted runs. It counts
    neither the numbers of its key, nor what its nonce has opened under another id."""
    op = OpenRun(a_run("r", number=None), 60.0, nonce="n")
    assert decided(op, by_id=("", OTHER)) == ((OTHER,), ["by_id"])
    run, asked = decided(op, numbers=(3, 7, 5.0, OTHER))
    assert asked == ["by_id", "numbers", "r"]
    assert (run.id, run.number, run.epoch, run.lease_until) == ("r", None, 8, 65.0)


def test_an_id_that_another_process_takes_meanwhile_is_looked_at_again():
    """If the id is taken between the look and the insertion, it is looked for once more. That has an end."""
    op = OpenRun(a_run("r", number=None), 60.0)
    assert decided(op, taken={"r"}) == ((), ["by_id", "numbers", "r"] * 3)


def test_what_was_sent_again_is_opened_again():
    """An opening finds what it has inserted, by its nonce, before it looks for runs to continue."""
    mine = a_run("r-1", number=1, owner="me")
    op = OpenRun(a_run("r", number=0, owner="me"), 60.0, nonce="n")
    assert decided(op, numbers=(1, 0, 5.0, mine), continuable=(OTHER,)) == (mine, ["numbers"])
    given_id = OpenRun(a_run("r", number=None, owner="me"), 60.0, nonce="n")
    found = a_run("r", number=None, owner="me")
    assert decided(given_id, by_id=("n", found))[0] == found
    assert decided(given_id, by_id=("m", found))[0] == (found,)


@given(
    highest=st.integers(0, 3), fresh=st.booleans(), some=st.booleans(), number=st.none() | st.integers(1, 5)
)
def test_a_number_is_continued_or_the_next_free_one(
    highest: int, fresh: bool, some: bool, number: int | None
) -> None:
    """Runs to continue are found unless a fresh one is wanted; otherwise the next free number is inserted."""
    op = OpenRun(a_run("r", number=0), 60.0, fresh=fresh, number=number)
    numbers, taken = (highest, 0, 5.0, None), {f"r-{highest + 1}"}
    decision, _ = decided(op, numbers=numbers, continuable=(OTHER,) if some else (), taken=taken)
    if highest and some and not fresh:
        assert decision == (OTHER,)
    elif number is None:
        assert decision.id == f"r-{highest + 2}"
    elif number > highest + 1:
        assert decision.id == f"r-{number}"
    else:
        assert decision == ()
    assert ("continuable" in decided(op, numbers=numbers)[1]) == bool(highest and not fresh)
