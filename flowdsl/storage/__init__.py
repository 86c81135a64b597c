"""Where records are kept: the port (:class:`Storage`) and its adapters."""

from flowdsl.storage.base import Storage
from flowdsl.storage.memory import MemoryStorage
from flowdsl.storage.sqlite import SQLiteStorage
from flowdsl.storage.urls import open_storage

__all__ = ["MemoryStorage", "SQLiteStorage", "Storage", "open_storage"]
