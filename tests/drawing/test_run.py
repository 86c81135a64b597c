"""A run as HTML."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.drawing.run import ROWS, TEXT, run_html, shown_or_why

LIMIT = 200_000
EVIL = "<script>alert('1')</script>\"'&\x00\ud800"


def shown(steps=(), state="completed", **facts):
    """The HTML of a run."""
    about = {"created_at": 0.0, "finished_at": 2.5, "args_preview": "n=1", "result_preview": "'done'"} | facts
    run = Run("order-7", "shop.checkout", "k", status=RunStatus.COMPLETED, **about)
    return run_html(run, state, list(steps), 10.0)


def page(*args, **facts):
    """The same, parsed; it has to be well-formed."""
    return ElementTree.fromstring(shown(*args, **facts))


def recorded(name, status=StepStatus.COMPLETED, at=0.0, **facts):
    """A step."""
    about = {"created_at": at, "completed_at": at + 1.0} | facts
    return Step("order-7", name, f"shop.{name}", status=status, **about)


def text(element):
    """What a reader sees."""
    return " ".join("".join(element.itertext()).split())


def rows_of(found):
    """The texts of the table of steps."""
    return [[text(cell) for cell in row] for row in found.iter("tr")]


def test_a_page_shows_the_run_and_its_steps():
    """The page of a run has name, arguments, state, times and outcome, and a row for each step."""
    steps = [
        recorded("reserve", args="item='cup'", preview="'r-1'"),
        recorded("charge", StepStatus.FAILED, at=1.5, preview="Declined: no", attempts=3),
    ]
    found = page(steps)
    assert "✓ completed checkout(n=1) 2.5s" in text(found)
    assert "order-7 · begun 1970-01-01 00:00:00 UTC · 1 of 2 steps completed · 1 failed" in text(found)
    assert "→ 'done'" in text(found)
    assert rows_of(found) == [
        ["step", "state", "tries", "took", "arguments", "result"],
        ["reserve", "✓ completed", "", "1.0s", "item='cup'", "'r-1'"],
        ["charge", "✗ failed", "3", "1.0s", "", "Declined: no"],
    ]


def test_elements_carry_what_they_show():
    """Run, steps and bars carry their ids and states as attributes."""
    found = page([recorded("charge", StepStatus.FAILED)], state="failed")
    assert (found.get("data-run-id"), found.get("data-status")) == ("order-7", "failed")
    of_step = [one for one in found.iter() if one.get("data-step-key") == "charge"]
    assert {one.tag.rpartition("}")[2] for one in of_step} == {"tr", "g"}
    assert {one.get("data-status") for one in of_step} == {"failed"}


def test_the_users_line_comes_first():
    """An error shows its place and source line first, then type and message."""
    preview = "Declined: no\nshop.py:17 in charge\n    bank.pay(order)"
    found = page(state="failed", error_preview=preview, result_preview="")
    assert "shop.py:17 in charge bank.pay(order)Declined: no" in text(found)
    assert next(iter(found.iter("pre"))).text.strip() == "bank.pay(order)"


def test_an_undone_run_says_what_executes_it_again():
    """A failed run that was undone says what executes it again, and which of its rows are undos."""
    steps = [
        recorded("charge", StepStatus.UNDONE, preview="50"),
        recorded("refund", at=1.5, kind="undo"),
    ]
    facts = {"error_preview": "Declined: no"}
    found = page(steps, "failed", retryable=False, **facts)
    assert "its steps were undone: only retry or fork execute it again" in text(found)
    assert [row[0] for row in rows_of(found)] == ["step", "charge", "refund (undo)"]
    assert "undone: only" not in text(page(steps, "failed", retryable=True, **facts))
    assert "undone: only" not in text(page(steps, "cancelled", retryable=False, **facts))


def test_a_step_inside_another_stands_below_it():
    """A nested step is indented and has a lane of its own."""
    outer, inner = recorded("outer"), recorded("inner", scope="outer", at=0.2, completed_at=0.4)
    found = page([inner, outer])
    assert [row[0] for row in rows_of(found)[1:]] == ["outer", "└ inner"]
    bars = {one.get("data-step-key"): one for one in found.iter() if one.get("data-bar") is not None}
    assert (bars["outer"].get("data-depth"), bars["inner"].get("data-depth")) == ("0", "1")
    assert bars["outer"].get("data-lane") != bars["inner"].get("data-lane")


def test_a_page_shows_where_a_long_run_stands():
    """A long run shows its last steps, and how many were left out."""
    rows = rows_of(page([recorded(f"s{n}", at=float(n)) for n in range(ROWS + 30)]))
    assert len(rows) == ROWS + 2
    assert rows[1] == ["… 30 earlier ones"]
    assert rows[-1][0] == f"s{ROWS + 29}"


def test_long_texts_are_shortened():
    """A long argument is shortened."""
    (cell,) = [cell for cell in page([recorded("f", args="x" * 900)]).iter("code") if "xx" in text(cell)]
    assert text(cell) == "x" * (TEXT - 1) + "…"


@pytest.mark.parametrize("state", ["running", "interrupted", "pending", "cancelled"])
def test_a_run_that_goes_on_is_shown_in_every_state(state):
    """A run without an end, an outcome or steps is shown, in every state."""
    found = text(page(state=state, finished_at=None, result_preview=""))
    assert state in found
    assert ("by now" in found) is (state == "running")
    assert "→" not in found
    assert "no step is recorded" in found


def test_what_the_run_logged_is_folded():
    """Log lines show message and fields, without loading anything."""
    line = recorded("l", kind="log", preview="loaded", extra='{"fields": {"rows": 12}}')
    found = page([line])
    assert "1 line of log" in text(found)
    assert rows_of(found)[-1][1:] == ["loaded", "rows=12"]


def test_nothing_that_was_stored_is_taken_for_markup():
    """Names, ids, arguments, results, errors and logs are escaped, and unprintable characters are spelled."""
    steps = [
        recorded("f", args=EVIL, preview=EVIL, extra='{"child": "<b>"}'),
        Step("r", EVIL, EVIL, kind=EVIL, status=StepStatus.FAILED, preview=EVIL, args=EVIL),
        recorded("l", kind="log", preview=EVIL, extra='{"fields": {"<i>": "<i>"}}'),
    ]
    run = Run(EVIL, EVIL, "k", args_preview=EVIL, error_preview=EVIL, parent=EVIL)
    found = ElementTree.fromstring(run_html(run, EVIL, steps, 1.0))
    assert not [one for one in found.iter() if one.tag.rpartition("}")[2] in ("script", "i")]
    assert text(found).count("<script>") > 6


def test_a_page_holds_no_script_no_foreign_url_and_styles_nothing_else():
    """The page has no script and no foreign URL, and each style rule is only for our cards."""
    html = shown([recorded("f")])
    assert not re.search(r"<script|\son\w+=|@import|url\(|<link|<iframe", html)
    assert re.findall(r"https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    style = re.sub(r"@media[^{]+\{(.*?\})\}", r"\1", style, flags=re.DOTALL)
    selectors = [one for rule in re.findall(r"([^{}]+)\{", style) for one in re.split(r",(?![^(]*\))", rule)]
    assert selectors
    assert all(one.strip().startswith(".flowdsl") for one in selectors)


MANY = {
    "sequential": lambda n: recorded(f"s{n}", at=float(n), args="'" * 500, preview="&" * 500),
    "parallel": lambda n: recorded(f"s{n}", at=n / 1e4, completed_at=1.0 + n % 97),
    "failed": lambda n: recorded(f"s{n}", StepStatus.FAILED, at=float(n), preview="<" * 500),
    "named long": lambda n: Step("order-7", f"{n:0>900}", "<" * 5000, kind="<" * 999, created_at=float(n)),
    "logs": lambda n: recorded(f"s{n}", kind="log", preview="'" * 999, extra='{"fields": {"x": "' + "<" * 999 + '"}}'),
    "apart": lambda n: recorded(f"s{n}", at=n * (1.0 + n % 13), completed_at=n * (1.0 + n % 13) + n % 7),
}  # fmt: skip


@pytest.mark.parametrize("shape", MANY)
@pytest.mark.parametrize("count", [200, 10_000])
def test_no_run_makes_a_large_page(shape, count):
    """The page stays small, whatever the number and content of steps."""
    html = shown([MANY[shape](n) for n in range(count)], args_preview="<" * 9999, result_preview="&" * 9999)
    assert len(html.encode("utf-8")) <= LIMIT
    ElementTree.fromstring(html)


times = st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1.5, 9.0, 1e9])


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            Step,
            st.just("order-7"),
            st.text("ab~/", min_size=1, max_size=4),
            st.text(max_size=8),
            scope=st.text("ab~/", max_size=4),
            kind=st.sampled_from(["step", "sleep", "wait", "child", "value", "store", "log", "audit"]),
            status=st.sampled_from(list(StepStatus)),
            args=st.text(max_size=9),
            preview=st.text(max_size=9),
            created_at=times,
            completed_at=st.none() | times,
            extra=st.sampled_from(["", "{}", "[", '{"fields": 3, "begun": ["x", 1]}', '{"child": 7}']),
        ),
        max_size=8,
        unique_by=lambda step: step.key,
    ),
    st.sampled_from(["running", "interrupted", "completed", "failed", "?"]),
)
def test_any_journal_is_shown(journal, state):
    """The page of any journal is well-formed."""
    page(journal, state, finished_at=None, created_at=5.0)


def test_what_cannot_be_read_is_said():
    """An error while drawing is shown in words, because a notebook would show nothing."""

    def broken():
        raise OSError("<disk>")

    assert "OSError: &lt;disk&gt;" in shown_or_why("run order-7", broken)
