"""How a process hears of what others have changed, on PostgreSQL."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psycopg")

from flowdsl.storage.changes import Changes
from flowdsl.storage.postgres import listen


def closed_listener() -> listen.Listener:
    """A listener that does not listen, and only knows who waits for what."""
    sql: Any = SimpleNamespace(wait="wait")

    def connect() -> Any:
        raise AssertionError("it is closed, and does not listen")

    listener = listen.Listener(Changes(), sql, "channel", connect, lambda run_ids: [])
    listener.close()
    return listener


def test_a_wait_that_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has waited for lately takes no room. Who waits for it again is told to look once more."""
    entered: list[Any] = []
    listener = closed_listener()

    def learn(topic: str) -> bool:
        return listener.learn(frozenset({topic}), lambda statement, values: entered.append(values))

    assert learn("run:a")
    assert not learn("run:a")
    monkeypatch.setattr(listen, "_KEPT", -120.0)  # as if all had been entered two minutes ago
    assert learn("run:b")
    monkeypatch.undo()
    assert learn("run:a")
    assert len(entered) == 3


def test_a_wait_that_was_not_renewed_looks_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes back after its wait has left the table is told to look: nobody was notified meanwhile."""
    listener, now = closed_listener(), 1000.0
    monkeypatch.setattr(listen, "time", SimpleNamespace(monotonic=lambda: now))

    def learn(passed: float) -> bool:
        nonlocal now
        now += passed
        return listener.learn(frozenset({"run:a"}), lambda statement, values: None)

    assert learn(0.0)
    assert not learn(listen._KEPT * 0.9)
    assert learn(listen._KEPT * 1.1)
    assert not learn(0.0)
