"""The style of all pictures, in a real browser."""

import os

import pytest
from web.browser import Browser, executable

from drawing.test_run import recorded, shown
from flowdsl.core.status import StepStatus

NARROW = 390


@pytest.fixture
def browser():
    """A browser of its own; without Chromium the test is skipped on a laptop, and fails in CI."""
    if executable() is None:
        reason = "no Chromium is installed here: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    found = Browser()
    yield found
    found.close()


def test_a_run_can_be_read_in_a_narrow_notebook(browser, tmp_path):
    """On a phone a card is as wide as the screen, rows stay flat, and the names in its bars can be read."""
    steps = [
        recorded("reserve", args="item='cup'", preview="'r-1'"),
        recorded("charge", StepStatus.FAILED, at=1.5, preview="Declined: " + "no words are short " * 8),
    ]
    path = tmp_path / "run.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{shown(steps, 'failed')}</body>")
    browser.resize(NARROW, 800)
    browser.go(path.as_uri())
    measured = """({
        page: document.documentElement.scrollWidth,
        rows: [...document.querySelectorAll('tbody tr')].map((e) => e.getBoundingClientRect().height),
        letters: [...document.querySelectorAll('.fd-name')].map((e) => e.getBoundingClientRect().height),
    })"""
    found = browser.run(measured)
    assert found["page"] == NARROW
    assert max(found["rows"]) < 200
    assert min(found["letters"]) > 8
