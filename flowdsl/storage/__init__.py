"""Where records are kept: the port and its backends."""

from flowdsl.storage.base import Storage
from flowdsl.storage.memory import MemoryStorage
from flowdsl.storage.sqlite import SQLiteStorage
from flowdsl.storage.urls import DEFAULT_URL, default_url, open_storage

__all__ = ["DEFAULT_URL", "MemoryStorage", "SQLiteStorage", "Storage", "default_url", "open_storage"]
