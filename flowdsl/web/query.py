"""The query of an address: filters of the list, its cursor, and the view of one run."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from flowdsl.core.filters import written_moment
from flowdsl.core.status import RunStatus
from flowdsl.web.answers import Refusal

__all__ = ["STATUSES", "Cursor", "Filters", "View", "number"]

STATUSES = (*(str(status) for status in RunStatus), "interrupted")
LIMIT, MOST = 50, 500
_LONGEST = 1000  # characters of a filter; a longer filter matches nothing

Query = Sequence[tuple[str, str]]


def _last(query: Query, name: str) -> str:
    found = [value for known, value in query if known == name]
    if not found:
        return ""
    if len(found[-1]) > _LONGEST:
        raise Refusal(400, f"{name} is too long")
    return found[-1].strip()


def number(query: Query, name: str, default: int, most: int, least: int = 1) -> int:
    """A whole number of the query."""
    text = _last(query, name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or not least <= int(text) <= most:
        raise Refusal(400, f"{name} is a whole number from {least} to {most}")
    return int(text)


@frozen
class Cursor:
    """A place in the list: after the run with this id and time."""

    created_at: float
    id: str

    def __str__(self) -> str:
        text = json.dumps([self.created_at, self.id])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> "Cursor | None":
        """Read the text of a cursor. An empty text is the beginning."""
        if not text:
            return None
        try:
            found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            created_at, run_id = found
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise Refusal(400, "this cursor is not valid") from None
        usual = isinstance(created_at, int | float) and isinstance(run_id, str) and bool(run_id)
        if not usual or isinstance(created_at, bool) or not math.isfinite(created_at):
            raise Refusal(400, "this cursor is not valid")
        return cls(float(created_at), run_id)


@frozen
class Filters:
    """Which runs are listed, as in the form on the list. *texts* are the times as they were given."""

    statuses: tuple[str, ...] = ()
    workflow: str = ""
    tags: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    q: str = ""
    limit: int = LIMIT
    texts: Mapping[str, str] = field(factory=dict)

    @classmethod
    def of(cls, query: Query, now: float) -> "Filters":
        """Read the filters of a query. *now* is needed for times that are given as a duration."""
        statuses = [value for name, value in query if name == "status" and value]
        if any(status not in STATUSES for status in statuses):
            raise Refusal(400, f"a status is one of {', '.join(STATUSES)}")
        tags = [value.strip() for name, value in query if name == "tag" and value.strip()]
        if len(tags) > 20 or any(len(tag) > _LONGEST for tag in tags):
            raise Refusal(400, "these are too many tags")
        texts = {name: _last(query, name) for name in ("since", "until")}
        return cls(
            statuses=tuple(dict.fromkeys(statuses)),
            workflow=_last(query, "workflow"),
            tags=tuple(dict.fromkeys(tags)),
            since=_moment(texts["since"], "since", now),
            until=_moment(texts["until"], "until", now),
            q=_last(query, "q"),
            limit=number(query, "limit", LIMIT, MOST),
            texts=texts,
        )

    def query(self, cursor: Cursor | None = None) -> str:
        """The query of a link with the same filters, beginning with ``?``; empty if there are none."""
        pairs = [("status", status) for status in self.statuses]
        pairs += [("tag", tag) for tag in self.tags]
        pairs += [("workflow", self.workflow), ("q", self.q), *self.texts.items()]
        if self.limit != LIMIT:
            pairs.append(("limit", str(self.limit)))
        if cursor is not None:
            pairs.append(("cursor", str(cursor)))
        text = urlencode([(name, value) for name, value in pairs if value], errors="replace")
        return f"?{text}" if text else ""


def _moment(text: str, name: str, now: float) -> float | None:
    """A time, or a duration before now, in seconds since the epoch."""
    if not text:
        return None
    try:
        return written_moment(text, now)
    except ValueError:
        raise Refusal(400, f'{name} is a time such as 2026-01-31 14:00, or how long ago: "2 hours"') from None


@frozen
class View:
    """What is shown of one run: which steps, which part of the time, which step in detail.

    *page*: the page of the table, from 1. *begin* and *end*: the visible part of the timeline, from 0 to 1.
    """

    name: str = ""
    failed_only: bool = False
    unfolded: bool = False
    page: int = 1
    begin: float = 0.0
    end: float = 1.0
    step: str = ""

    @classmethod
    def of(cls, query: Query) -> "View":
        """Read the view of a query."""
        return cls(
            name=_last(query, "name"),
            failed_only=_last(query, "failed") not in ("", "0"),
            unfolded=_last(query, "idle") == "unfolded",
            page=number(query, "page", 1, 1_000_000),
            begin=_part(query, "begin", 0.0),
            end=_part(query, "end", 1.0),
            step=_last(query, "step"),
        )

    def query(self, **changes: Any) -> str:
        """The query of a link to this view with *changes*, beginning with ``?``; empty for the default
        view."""
        new = evolve(self, **changes)
        pairs = [("name", new.name), ("failed", "1" if new.failed_only else "")]
        pairs += [
            ("idle", "unfolded" if new.unfolded else ""),
            ("page", str(new.page) if new.page > 1 else ""),
        ]
        pairs += [("step", new.step)]
        text = urlencode([(name, value) for name, value in pairs if value], errors="replace")
        return f"?{text}" if text else ""


def _part(query: Query, name: str, default: float) -> float:
    text = _last(query, name)
    try:
        found = float(text) if text else default
    except ValueError:
        found = math.nan
    if not 0.0 <= found <= 1.0:
        raise Refusal(400, f"{name} is a number from 0 to 1")
    return found
