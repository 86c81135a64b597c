"""Where records are kept: the port and its backends."""

from typing import TYPE_CHECKING, Any

from flowdsl.storage.base import Storage
from flowdsl.storage.memory import MemoryStorage
from flowdsl.storage.sqlite import SQLiteStorage
from flowdsl.storage.urls import DEFAULT_URL, default_url, open_storage

if TYPE_CHECKING:
    from flowdsl.storage.postgres import PostgresStorage

__all__ = [
    "DEFAULT_URL",
    "MemoryStorage",
    "PostgresStorage",
    "SQLiteStorage",
    "Storage",
    "default_url",
    "open_storage",
]


def __getattr__(name: str) -> Any:
    if name == "PostgresStorage":  # its driver is an extra, and slow to import
        from flowdsl.storage.urls import postgres_class

        return postgres_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
