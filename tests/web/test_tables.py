"""The tables of queues, schedules and workers."""

import re

import pytest

from flowdsl import Queue, Schedule, wait_for, workflow
from flowdsl.core.records import WorkerRow
from flowdsl.storage.operations import PutWorker
from flowdsl.web.graph import graph_of
from flowdsl.web.parts import Calls


class Bomb:
    """What is stored must not be loaded: this may be once, when it is checked as it is stored."""

    armed = False

    def __setstate__(self, state):
        assert not self.armed

    def __getstate__(self):
        return {"a": 1}


@workflow
def report(*args):
    return wait_for("go")


@pytest.fixture
def offering(runtime):
    """A runtime that has queues and a schedule."""
    for name in ("mail", "a/b <c>"):
        runtime.queues.put(Queue(name, rate="100/min"))
    runtime.schedules.put(Schedule("nightly", report, cron="0 2 * * *", timezone="Europe/Berlin"))
    return runtime


def test_each_has_a_page(client, offering):
    """Queues, schedules and workers each have a table with marked rows, linked from all pages."""
    page = client()
    for kind, one, names in (
        ("queues", "queue", ["a/b &lt;c&gt;", "mail"]),
        ("schedules", "schedule", ["nightly"]),
        ("workers", "worker", []),
    ):
        text = page.get(f"/{kind}").text
        assert sorted(re.findall(rf'<tr data-{one}="([^"]+)"', text)) == names
        assert f'href="/{kind}"' in page.get("/").text


def test_a_queue_is_paused_and_resumed(client, offering):
    """Pausing and resuming a queue is 303, an unknown name 404, and without actions 403."""
    page = client(allow_actions=True)

    def paused():
        return [queue.paused for queue in offering.queues.list()]

    answer = page.post("/queues/a%2Fb%20%3Cc%3E/pause")
    assert (answer.status_code, answer.headers["location"]) == (303, "/queues")
    assert paused() == [True, False]
    assert "paused" in page.get("/queues").text
    page.post("/queues/a%2Fb%20%3Cc%3E/resume")
    assert paused() == [False, False]
    assert page.post("/queues/nothing/pause").status_code == 404
    assert page.get("/queues/mail/pause").status_code == 405
    assert page.post("/queues/mail/trigger").status_code == 404
    assert client().post("/queues/mail/pause").status_code == 403


def test_a_schedule_is_triggered(client, offering):
    """A schedule is triggered once, and without its code the refusal says what to do, and loads nothing."""
    page = client(allow_actions=True)
    assert page.post("/schedules/nightly/trigger").status_code == 303
    (run,) = offering.runs(workflow=report)
    assert run.id.startswith("nightly@")
    offering.schedules.put(Schedule("foreign", "other.place", cron="0 2 * * *"))
    answer = page.post("/schedules/foreign/trigger")
    assert answer.status_code == 409
    assert "--app" in answer.text


def test_what_the_tables_say(client, runtime):
    """Queues show their runs, schedules their next times, workers links to what they execute."""
    runtime.queues.put(Queue("mail", concurrency=4, rate="100/min"))
    runtime.schedules.put(
        Schedule("nightly", report, cron="0 2 * * *", timezone="Europe/Berlin", args=(Bomb(),))
    )
    for queue in ("mail", "mail", "undeclared"):
        report.options(queue=queue).enqueue()
    executing = report.start("now")
    row = runtime.storage.get_run(executing.id)
    spec = '{"queues": ["mail"], "concurrency": 8}'
    now = runtime.storage.now()
    runtime.storage.commit([PutWorker(WorkerRow(row.owner, spec, now - 60, now))])

    def cells(kind):
        text = client().get(f"/{kind}").text
        found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S) for line in text.split("<tr")[1:]]
        return [[re.sub(r"<[^>]*>", " ", cell).split() for cell in line] for line in found]

    heads, mail, undeclared = cells("queues")
    assert heads == [["Name"], ["State"], ["Waiting"], ["Executing"], ["At", "once"], ["Rate"]]
    assert mail == [["mail"], ["✓", "open"], ["2"], ["0"], ["4"], ["100/min"]]
    assert undeclared == [["undeclared"], ["✓", "open"], ["1"], ["0"], ["–"], ["–"]]
    Bomb.armed = True
    _, (name, state, path, cron, when, overlap) = cells("schedules")
    assert (name, path, cron) == (["nightly"], [report.path], ["0", "2", "*", "*", "*", "Europe/Berlin"])
    assert when[1] == "02:00"
    assert overlap == ["skip,", "catches", "up", "1h0m"]
    _, (worker, queues, runs, began, seen, what) = cells("workers")
    assert worker[0] == "process"
    assert (queues, runs, began, what) == (["mail"], ["1", "of", "8"], ["1m", "ago"], [executing.id])
    executing.cancel()


def test_a_box_stands_right_of_all_that_call_it():
    """A box is right of all its callers, also later ones, except itself."""
    calls = [
        Calls(*pair, 1, 0, 1)
        for pair in (("w", "check"), ("w", "quote"), ("quote", "check"), ("check", "check"))
    ]
    graph = graph_of(calls, "w", "")
    left = {node.path: node.x for node in graph.nodes}
    assert left["w"] < left["quote"] < left["check"]
    assert len(graph.edges) == 4
