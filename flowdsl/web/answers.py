"""Responses: the headers that every response has, and functions that make responses."""

import json
import logging
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from attrs import frozen
from starlette.responses import Response, StreamingResponse

from flowdsl.core.words import clean
from flowdsl.errors import CorruptPayload, FlowError, RunNotFound, StepNotFound, StorageUnavailable

__all__ = [
    "HEADERS",
    "Refusal",
    "html",
    "html_in_pieces",
    "json_response",
    "refusal_of",
    "refused_text",
    "see_other",
]

logger = logging.getLogger("flowdsl")

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
"""Headers of every response, errors too. A response may set its own ``Cache-Control``."""


@frozen
class Refusal(Exception):
    """Ends the handling of a request with this status and one line of text. The text contains nothing that
    the client sent."""

    status: int
    text: str
    headers: Mapping[str, str] = {}


def refusal_of(error: Exception) -> Refusal:
    """The response that a client gets for *error*."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RunNotFound):
        return Refusal(404, "there is no such run")
    if isinstance(error, StepNotFound):
        return Refusal(404, "there is no such step")
    if isinstance(error, CorruptPayload):
        return Refusal(422, refused_text(error))
    if isinstance(error, StorageUnavailable):
        logger.warning("the storage does not answer: %s", str(error))
        return Refusal(503, "the storage does not answer; try again")
    if isinstance(error, FlowError):
        logger.warning("%s: %s", type(error).__name__, str(error))
        return Refusal(500, "the storage cannot read what is asked for; the log of the server says more")
    logger.error("the page failed", exc_info=error)
    return Refusal(500, "the page failed; the log of the server says more")


def refused_text(error: CorruptPayload) -> str:
    """Which record is refused, and why. The text does not say where the database is."""
    path = getattr(error, "path", None)
    return str(error) if path is None else str(error).replace(path, "the database")


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page."""
    return Response(_bytes(text), status, dict(headers or {}), "text/html")


def html_in_pieces(pieces: Iterator[str]) -> Response:
    """A page whose first piece is sent while the other pieces are still being made.

    An error in the first piece is raised here. An error in another piece is shown at the end of the page.
    """
    first = next(pieces, "")

    def following() -> Iterator[bytes]:
        yield _bytes(first)
        try:
            yield from map(_bytes, pieces)
        except Exception as error:  # a visitor sees it, whatever it is
            yield _bytes(f'<p class="error" role="alert">{escape(refusal_of(error).text)}</p>\n')

    return StreamingResponse(following(), media_type="text/html")


def _bytes(text: str) -> bytes:
    """A page as bytes. Here, and only here, invisible characters are escaped: marks that turn the direction
    of text, control characters, and what is not Unicode."""
    return "\n".join(map(clean, text.split("\n"))).encode()


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document, ASCII only."""
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    return Response(body, status, dict(headers or {}), "application/json")


def see_other(path: str) -> Response:
    """A redirect to *path*, by GET."""
    return Response(status_code=303, headers={"Location": path})
