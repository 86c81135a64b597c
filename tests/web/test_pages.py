"""The pages: what stands on them, for runs of every kind."""

import re

from flowdsl import Retry, step, workflow


@step(retry=Retry(attempts=2, initial=0.0))
def charge(cents):
    """Fails for ever."""
    raise ConnectionError("the <bank> does not answer")


@step
def reserve(items):
    """Calls another step for each item."""
    return [check(item) for item in items]


@step
def check(item):
    """Succeeds."""
    return len(item)


@workflow(id="order-{order}", tags={"env": "prod"})
def checkout(order, items):
    """Fails in its last step."""
    reserve(items)
    charge(4990)


def failed(order="17"):
    """A failed run of :func:`checkout`."""
    try:
        checkout(order, ["shoe", "hat"])
    except ConnectionError:
        return f"order-{order}"
    raise AssertionError("it fails")


def test_the_list_shows_runs_with_status_and_link(client):
    """One row a run, the newest first, with a link that leads to it."""
    failed("1")
    failed("2")
    page = client()
    text = page.get("/").text
    assert re.findall(r'<tr data-run-id="([^"]+)" data-status="([^"]+)"', text) == [
        ("order-2", "failed"),
        ("order-1", "failed"),
    ]
    link = re.search(r'<a data-run-link href="([^"]+)">order-2<', text)[1]
    assert page.get(link).status_code == 200


def test_the_page_of_a_run_shows_steps_as_bars_and_rows(client):
    """The same steps, once as a bar and once as a row, nested ones below."""
    run = failed()
    text = client().get(f"/runs/{run}").text
    assert f'data-run-id="{run}" data-status="failed"' in text
    bars = re.findall(
        r'<a data-bar data-step-key="(\w+)" data-path="([^"]+)" data-status="(\w+)" data-attempts="(\d)"',
        text,
    )
    rows = re.findall(r'<tr data-step-key="(\w+)"', text)
    assert sorted(rows) == sorted(key for key, *_ in bars)
    assert [path.rpartition(".")[2] for _, path, _, _ in bars] == ["reserve", "check", "check", "charge"]
    assert bars[-1][2:] == ("failed", "2")
    assert 'data-total="4"' in text
    assert "the &lt;bank&gt; does not answer" in text
    assert "<bank>" not in text
