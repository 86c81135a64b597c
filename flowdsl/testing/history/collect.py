"""Histories as tests of pytest: one for each ``.json`` file of a folder."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["HistoryFile", "HistoryItem", "missing_items"]


class HistoryItem(pytest.Item):
    """One history. It is replayed against today's code."""

    def runtest(self) -> None:
        """Replay it."""
        from flowdsl.testing.history.check import check_history

        report = check_history(self.path, options=_configured())
        if report.unused:
            warnings.warn(
                f"{self.path.name}: nothing asked for {', '.join(report.unused)}. The code has changed since",
                pytest.PytestWarning,
                stacklevel=1,
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Only the message, if that says everything."""
        from flowdsl.testing.history.check import HistoryMismatch

        if isinstance(excinfo.value, HistoryMismatch | ValueError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is, for reports."""
        return self.path, None, f"history {self.path.stem}"


class HistoryFile(pytest.File):
    """A file with one history."""

    def collect(self) -> Iterator[pytest.Item]:
        """Its one item."""
        yield HistoryItem.from_parent(self, name="replay")


def missing_items(
    session: pytest.Session, folders: list[Path], items: list[pytest.Item]
) -> Iterator[pytest.Item]:
    """The histories of *folders* that are not among *items*."""
    known = {item.path for item in items if isinstance(item, HistoryItem)}
    for folder in folders:
        for path in sorted(folder.rglob("*.json")):
            if path not in known:
                known.add(path)
                yield from HistoryFile.from_parent(session, path=path).collect()


def _configured() -> dict[str, Any]:
    """Options of the default runtime, if the user has configured one. Its codec may hold keys."""
    module = sys.modules.get("flowdsl.runtime")
    if module is None:
        return {}
    engine = module.open_engine()
    if engine is None:
        return {}
    return {"codec": engine.payloads.codec, "retry": engine.retry, "on_divergence": engine.on_divergence}
