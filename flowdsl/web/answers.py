"""Answers: the headers that every one has, and the ways to make one."""

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from starlette.responses import Response

__all__ = ["HEADERS", "Refusal", "html", "json_response", "see_other"]

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # `no-referrer` would make browsers send `Origin: null` with forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every response, errors too; a response may set its own ``Cache-Control``."""


@frozen
class Refusal(Exception):
    """Ends the handling of a request with this status and one line of text. The text holds nothing that the
    client sent."""

    status: int
    text: str
    headers: Mapping[str, str] = {}


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page. What is no Unicode is shown escaped; HTML has no NUL."""
    body = text.replace("\0", "\ufffd").encode("utf-8", "backslashreplace")
    return Response(body, status, dict(headers or {}), "text/html")


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document, ASCII only."""
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    return Response(body, status, dict(headers or {}), "application/json")


def see_other(path: str) -> Response:
    """On to *path*, by GET."""
    return Response(status_code=303, headers={"Location": path})
