"""From a URL to a storage.

Built-in schemes are ``memory``, ``sqlite`` and ``postgresql``. Plug-ins add others by the entry-point group
``flowdsl.storage``. Its names are schemes. Its values are callables that take the URL and return a
``Storage``.
"""

import os
from pathlib import Path
from typing import Any

from flowdsl.storage.base import Storage

__all__ = ["DEFAULT_URL", "default_url", "open_storage", "postgres_class"]

DEFAULT_URL = "sqlite:///.flowdsl/flow.db"
"""Where runs are kept by default: a folder in the working directory."""

ENTRY_POINTS = "flowdsl.storage"


def default_url() -> str:
    """The URL to use when none is given: the environment variable ``FLOWDSL_STORAGE``, or ``DEFAULT_URL``."""
    return os.environ.get("FLOWDSL_STORAGE") or DEFAULT_URL


def open_storage(storage: str | Storage | None = None, /) -> Storage:
    """Open the storage of a URL. A ``Storage`` is returned as it is. ``None`` means ``default_url()``.

    Raises ``ValueError`` for a malformed URL or an unknown scheme, and ``TypeError`` for anything else.
    Raises :class:`~flowdsl.errors.StorageUnavailable` if it cannot be opened.

    >>> with open_storage("memory://") as storage:
    ...     type(storage).__name__
    'MemoryStorage'
    """
    if isinstance(storage, Storage):
        return storage
    if storage is None:
        storage = default_url()
    if not isinstance(storage, str):
        raise TypeError(f"a storage is a URL such as {DEFAULT_URL!r} or a Storage, not {storage!r}")
    scheme, separator, _ = storage.partition("://")
    if not separator:
        raise ValueError(f"not a storage URL: {storage!r}; for a file, write 'sqlite:///{storage}'")
    if scheme == "memory":
        from flowdsl.storage.memory import MemoryStorage

        return MemoryStorage.from_url(storage)
    if scheme == "sqlite":
        from flowdsl.storage.sqlite import SQLiteStorage

        if storage.partition("?")[0] == DEFAULT_URL:
            _make_default_directory()
        return SQLiteStorage.from_url(storage)
    if scheme in ("postgresql", "postgres"):
        return postgres_class().from_url(storage)  # type: ignore[no-any-return]
    return _open_plugin(scheme, storage)


def postgres_class() -> Any:
    """``PostgresStorage``. If its driver is missing, ``ImportError`` says what to install."""
    try:
        import psycopg  # noqa: F401 - whether it is there
    except ImportError:
        raise ImportError("a PostgreSQL storage needs psycopg: pip install 'flowdsl[postgres]'") from None
    from flowdsl.storage.postgres import PostgresStorage

    return PostgresStorage


def _open_plugin(scheme: str, url: str) -> Storage:
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    plugins = {plugin.name: plugin for plugin in entry_points(group=ENTRY_POINTS)}
    if scheme not in plugins:
        known = ", ".join(f"{name}://" for name in sorted({"memory", "postgresql", "sqlite", *plugins}))
        raise ValueError(
            f"{url.partition('://')[0]}:// needs a storage plug-in for scheme {scheme!r}; known are {known}"
        )
    opened = plugins[scheme].load()(url)
    if not isinstance(opened, Storage):
        raise TypeError(
            f"the storage plug-in for scheme {scheme!r} returned {opened!r}, which is not a Storage"
        )
    return opened


def _make_default_directory() -> None:
    """The default directory is ours. So it keeps itself out of version control, and private to its owner."""
    directory = Path(DEFAULT_URL.removeprefix("sqlite:///")).parent
    try:
        directory.mkdir(mode=0o700)
    except OSError:  # it exists, or cannot be made: opening the file says why
        return
    (directory / ".gitignore").write_text("*\n")
