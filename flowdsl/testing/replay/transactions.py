"""The database whose connection the bodies of transactional steps get while a workflow is checked.

The records of the check are in memory. A body's own rows go where ``options={"storage": …}`` says, without it
into an empty SQLite file that lives as long as the check. They are committed in the first execution only. If
a body executes again later, its rows are rolled back.
"""

import tempfile
from pathlib import Path

from flowdsl.storage import SQLiteStorage, open_storage
from flowdsl.storage.base import Storage

__all__ = ["Database"]


class Database:
    """Opened when it is first asked for."""

    def __init__(self, asked: str | Storage | None) -> None:
        self._asked = asked
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._opened: Storage | None = None

    @property
    def storage(self) -> Storage:
        """The storage that opens the transactions."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Storage:
        if self._asked is not None:
            return open_storage(self._asked)
        self._folder = tempfile.TemporaryDirectory(prefix="flowdsl-check-replay-")
        return SQLiteStorage(Path(self._folder.name) / "empty.db")

    def close(self) -> None:
        """Close it, unless it is the user's."""
        if self._opened is not None and self._opened is not self._asked:
            self._opened.close()
        if self._folder is not None:
            self._folder.cleanup()
