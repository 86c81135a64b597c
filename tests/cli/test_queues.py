"""``flowdsl queues``: what waits in them, and what is declared."""

import pytest

from flowdsl import Queue, Runtime, workflow


@pytest.fixture
def post(url):
    """A runtime whose mail queue was declared, with a run in it and one elsewhere."""

    @workflow(name="post.letter")
    def letter(text):
        return text

    with Runtime(url, queues=[Queue("mail", concurrency=2, rate="9/min")]) as runtime:
        letter.options(queue="mail").enqueue("a")
        letter.options(queue="slow").enqueue("b")
        yield runtime


def test_the_list_says_what_waits(post, answer, invoke):
    """The list has declared queues and queues with runs, with depth, age of the oldest run, and limits."""
    queues = {one["name"]: one for one in answer("queues")}
    assert {name: (one["pending"], one["running"], one["declared"]) for name, one in queues.items()} == {
        "default": (0, 0, False),
        "mail": (1, 0, True),
        "slow": (1, 0, False),
    }
    assert (queues["mail"]["concurrency"], queues["mail"]["rate"]) == (2, "9/min")
    assert queues["mail"]["oldest_age"] >= 0
    assert queues["default"]["oldest"] is None
    assert "2 at once, 9/min" in invoke("queues", "list").stdout


def test_a_pause_stays_when_limits_change(post, answer):
    """``put`` replaces the limits, and only ``resume`` ends a pause."""
    assert answer("queues", "pause", "mail")["paused"] is True
    changed = answer("queues", "put", "mail", "--per-worker", "3")
    assert (changed["paused"], changed["per_worker"], changed["concurrency"]) == (True, 3, None)
    assert answer("queues", "resume", "mail")["paused"] is False
    assert answer("queues", "delete", "mail") == {"deleted": ["mail"]}
    assert [one.name for one in post.queues.list()] == []
    assert len(post.runs()) == 2


def test_names_that_are_not_there(post, fault):
    """An unknown queue or command gets the nearest as a suggestion, and an impossible limit is wrong
    usage."""
    assert "no queue 'mial' (did you mean 'mail'?)" in fault("queues", "pause", "mial")
    assert "did you mean 'pause'?" in fault("queues", "pasue", "mail", code=2)
    assert "100/min" in fault("queues", "put", "mail", "--rate", "often", code=2)
