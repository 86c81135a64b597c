"""Where records are kept: the port and its backends."""

from typing import TYPE_CHECKING

from flowdsl.storage.base import Storage
from flowdsl.storage.urls import DEFAULT_URL, default_url, open_storage

if TYPE_CHECKING:
    from flowdsl.storage.memory import MemoryStorage
    from flowdsl.storage.postgres import PostgresStorage
    from flowdsl.storage.sqlite import SQLiteStorage

__all__ = [
    "DEFAULT_URL",
    "MemoryStorage",
    "PostgresStorage",
    "SQLiteStorage",
    "Storage",
    "default_url",
    "open_storage",
]

if not TYPE_CHECKING:  # where it would hide that a name is not there

    def __getattr__(name: str) -> object:
        """Import a backend at its first use: most programs use one."""
        if name == "MemoryStorage":
            from flowdsl.storage.memory import MemoryStorage as found
        elif name == "SQLiteStorage":
            from flowdsl.storage.sqlite import SQLiteStorage as found
        elif name == "PostgresStorage":  # its driver is an extra
            from flowdsl.storage.urls import postgres_class

            found = postgres_class()
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        # Who asks for all names that are here wants no error, and a driver may be missing.
        return sorted({*globals(), *__all__} - ({"PostgresStorage"} - globals().keys()))
