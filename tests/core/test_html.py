"""A run as HTML."""

from xml.etree import ElementTree

import pytest

from flowdsl.core.html import STEPS, TEXT, run_page
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus


def page(steps=(), state="completed", **facts):
    """The page of a run, parsed; it has to be well-formed."""
    about = {"created_at": 0.0, "finished_at": 2.5, "args_preview": "n=1", "result_preview": "'done'"} | facts
    run = Run("order-7", "shop.checkout", "k", status=RunStatus.COMPLETED, **about)
    return ElementTree.fromstring(f"<div>{run_page(run, state, list(steps))}</div>")


def recorded(name, status=StepStatus.COMPLETED, **facts):
    """A step."""
    return Step("order-7", name, f"shop.{name}", status=status, attempts=1, **facts)


def text(element):
    """What a reader sees."""
    return " ".join("".join(element.itertext()).split())


def test_a_page_shows_the_run_and_its_steps():
    """Name, arguments, state, times and outcome; then a row for each step."""
    steps = [
        recorded("reserve", args="item='cup'", preview="'r-1'"),
        recorded("charge", StepStatus.FAILED, preview="Declined: no"),
    ]
    found = page(steps)
    assert "checkout(n=1) ✓ completed" in text(found)
    assert "order-7, begun 1970-01-01 00:00:00 UTC, took 2.5 s; 1 of 2 recorded steps completed" in text(
        found
    )
    assert "→ 'done'" in text(found)
    rows = [[text(cell) for cell in row] for row in found.iter("tr")]
    assert rows == [
        ["step", "state", "tries", "arguments", "result"],
        ["reserve", "✓ completed", "1", "item='cup'", "'r-1'"],
        ["charge", "✗ failed", "1", "", "Declined: no"],
    ]


def test_a_page_shows_where_a_long_run_stands():
    """The last steps are shown, and how many were left out."""
    rows = list(page([recorded(f"s{n}") for n in range(STEPS + 30)]).iter("tr"))
    assert len(rows) == STEPS + 2
    assert text(rows[1]) == "… 30 earlier ones"
    assert text(rows[-1][0]) == f"s{STEPS + 29}"


def test_long_texts_are_shortened():
    """A long argument does not fill the page."""
    (cell,) = [cell for cell in page([recorded("f", args="x" * 900)]).iter("code") if "x" in text(cell)]
    assert text(cell) == "x" * (TEXT - 1) + "…"


@pytest.mark.parametrize("state", ["running", "interrupted", "pending", "cancelled"])
def test_a_run_that_goes_on_is_shown_in_every_state(state):
    """Without an end, an outcome or steps; the state is named."""
    found = text(page(state=state, finished_at=None, result_preview=""))
    assert state in found
    assert "took" not in found
    assert "→" not in found
    assert "no step is recorded" in found


def test_nothing_of_a_page_is_taken_for_markup():
    """Names, arguments and results are escaped."""
    evil = "<script>alert(1)</script>"
    found = page([recorded("f", args=evil, preview=evil)], args_preview=evil, result_preview=evil)
    assert not list(found.iter("script"))
    assert text(found).count(evil) == 4
