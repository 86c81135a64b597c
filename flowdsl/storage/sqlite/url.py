"""``sqlite:///`` URLs, read and written."""

import os
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

__all__ = ["sqlite_path", "sqlite_url"]


def sqlite_path(url: str) -> tuple[str, dict[str, Any]]:
    """The path and the options of a ``sqlite:///`` URL. ``~`` at the beginning is the home directory, as in a
    shell.

    >>> sqlite_path("sqlite:////var/lib/flow.db?synchronous=normal")
    ('/var/lib/flow.db', {'synchronous': 'normal'})
    """
    rest, _, query = url.partition("?")
    if "#" in url:
        raise ValueError(f"'#' begins a fragment, and a storage has none: write '%23' for it in {url!r}")
    path = os.fsdecode(unquote_to_bytes(rest.removeprefix("sqlite:///")))
    if not rest.startswith("sqlite:///") or not path:
        raise ValueError(f"write 'sqlite:///relative.db' or 'sqlite:////absolute.db', not {url!r}")
    if "\0" in path:
        raise ValueError(f"a path holds no NUL: {url!r}")
    path = os.path.expanduser(path)
    if path.startswith("~"):
        raise ValueError(f"there is no such home directory: {url!r}; a file of that name is './~…'")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(options) - {"synchronous", "patience", "busy_timeout"}:
        raise ValueError(f"no option {', '.join(sorted(unknown))}: there are synchronous and patience")
    for name in ("patience", "busy_timeout"):
        if name in options:
            try:
                options[name] = float(options[name])
            except ValueError:
                raise ValueError(f"{name} is a number of seconds, not {options[name]!r}") from None
    if "busy_timeout" in options:  # an earlier name of this option
        options.setdefault("patience", options.pop("busy_timeout"))
    return path, options


def sqlite_url(path: str, **options: Any) -> str:
    """The URL for *path* with *options*.

    >>> sqlite_url("/var/lib/flow.db", synchronous="normal")
    'sqlite:////var/lib/flow.db?synchronous=normal'
    """
    return f"sqlite:///{quote(os.fsencode(path))}{'?' + urlencode(options) if options else ''}"
