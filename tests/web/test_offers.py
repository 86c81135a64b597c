"""Queues, schedules and workers: pages where the runtime has them, no pages elsewhere."""

import re

import pytest
from attrs import define, evolve

from flowdsl import Runtime
from flowdsl.storage import MemoryStorage


@define
class Row:
    """A queue or schedule, as lists give it."""

    name: str
    paused: bool = False
    rate: str | None = "100/min"


class Rows:
    """What ``rt.queues`` and ``rt.schedules`` are."""

    def __init__(self, *names):
        self.rows = [Row(name) for name in names]
        self.triggered = []

    def list(self):
        """All of them."""
        return list(self.rows)

    def pause(self, name):
        """Stop one."""
        self.rows = [evolve(row, paused=row.paused or row.name == name) for row in self.rows]

    def resume(self, name):
        """Go on with one."""
        self.rows = [evolve(row, paused=row.paused and row.name != name) for row in self.rows]

    def trigger(self, name):
        """Fire one now."""
        self.triggered.append(name)


class Offering(Runtime):
    """A runtime that has all three."""

    def __init__(self):
        super().__init__(MemoryStorage())
        self.queues = Rows("mail", "a/b <c>")
        self.schedules = Rows("nightly")
        self.workers = lambda: [{"id": "vm:17", "queues": "mail"}]


@pytest.fixture
def offering():
    """A runtime that has queues, schedules and workers."""
    with Offering() as found:
        yield found


def test_each_has_a_page(client, offering):
    """A row each, marked; the pages are named on all others."""
    page = client(of=offering)
    for kind, one, names in (
        ("queues", "queue", ["a/b &lt;c&gt;", "mail"]),
        ("schedules", "schedule", ["nightly"]),
        ("workers", "worker", ["vm:17"]),
    ):
        text = page.get(f"/{kind}").text
        assert sorted(re.findall(rf'<tr data-{one}="([^"]+)"', text)) == names
        assert f'href="/{kind}"' in page.get("/").text


def test_what_a_runtime_has_not_is_not_there(client, monkeypatch):
    """404, and no link."""
    page = client(of=MemoryStorage())
    offered = [kind for kind in ("queues", "schedules", "workers") if f'href="/{kind}"' in page.get("/").text]
    for kind in ("queues", "schedules", "workers"):
        assert page.get(f"/{kind}").status_code == (200 if kind in offered else 404)


def test_a_queue_is_paused_and_resumed(client, offering):
    """303 back; a name that is not there is 404; without actions 403."""
    page = client(of=offering, allow_actions=True)
    answer = page.post("/queues/a%2Fb%20%3Cc%3E/pause")
    assert (answer.status_code, answer.headers["location"]) == (303, "/queues")
    assert [row.paused for row in offering.queues.rows] == [False, True]
    assert "paused" in page.get("/queues").text
    page.post("/queues/a%2Fb%20%3Cc%3E/resume")
    assert [row.paused for row in offering.queues.rows] == [False, False]
    assert page.post("/queues/nothing/pause").status_code == 404
    assert page.get("/queues/mail/pause").status_code == 405
    assert page.post("/queues/mail/trigger").status_code == 404
    assert client(of=offering).post("/queues/mail/pause").status_code == 403


def test_a_schedule_is_triggered(client, offering):
    """Once."""
    page = client(of=offering, allow_actions=True)
    assert page.post("/schedules/nightly/trigger").status_code == 303
    assert offering.schedules.triggered == ["nightly"]
