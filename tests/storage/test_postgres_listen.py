"""How a process hears of what others have changed, on PostgreSQL."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psycopg")

from flowdsl.storage.changes import Changes
from flowdsl.storage.postgres import listen


def test_a_wait_that_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has waited for lately takes no room. Who waits for it again is told to look once more."""
    entered: list[Any] = []
    sql: Any = SimpleNamespace(wait="wait")

    def connect() -> Any:
        raise AssertionError("it is closed, and does not listen")

    listener = listen.Listener(Changes(), sql, "channel", connect, lambda run_ids: [])
    listener.close()

    def learn(topic: str) -> bool:
        return listener.learn(frozenset({topic}), lambda statement, values: entered.append(values))

    assert learn("run:a")
    assert not learn("run:a")
    monkeypatch.setattr(listen, "_KEPT", -120.0)  # as if all had been entered two minutes ago
    assert learn("run:b")
    monkeypatch.undo()
    assert learn("run:a")
    assert len(entered) == 3
