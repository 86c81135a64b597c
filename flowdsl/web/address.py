"""Addresses: reading the path of a request, and making the path of a run.

A run's id is one percent-encoded segment; its slashes are encoded too. So the raw path is split first, and
then decoded. Browsers remove the segments ``.`` and ``..``. So such an id is in the query, after an empty
segment (``/runs/?id=..``).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

__all__ = ["base_of", "href", "segments_of"]

_FOLDED = (".", "..")


def base_of(scope: Mapping[str, Any]) -> str:
    """The path below which the page is mounted, percent-encoded; ``""`` at the root."""
    return quote(scope.get("root_path") or "", safe="/%:@!$&'()*+,;=~").rstrip("/")


def segments_of(scope: Mapping[str, Any]) -> list[str] | None:
    """The decoded segments of the request's path below the mount; ``None`` for an invalid path."""
    path: str = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    base = base_of(scope)
    if path.startswith(base + "/") or path == base:
        path = path[len(base) :]
    if not path.startswith("/"):
        return [""] if path == "" else None
    found = []
    for segment in path[1:].split("/"):
        try:
            found.append(unquote_to_bytes(segment).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            return None
    return found


def href(base: str, kind: str, name: str, *more: str) -> str:
    """The path of the *kind* (``runs``, ``queues``, …) with this *name*, and of the pages below it.

    >>> href("/flow", "runs", "orders/7", "cancel"), href("", "runs", "..")
    ('/flow/runs/orders%2F7/cancel', '/runs/?id=..')
    """
    if name in _FOLDED:
        return "/".join([f"{base}/{kind}", "", *more]) + f"?id={name}"
    return "/".join([f"{base}/{kind}", quote(name.encode("utf-8", "surrogatepass"), safe=""), *more])
