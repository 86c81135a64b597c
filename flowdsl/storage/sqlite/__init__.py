"""The storage for one machine: a single SQLite file that any number of threads and processes share."""

from flowdsl.storage.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
