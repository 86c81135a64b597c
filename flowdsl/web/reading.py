"""Reading for the pages: pages of the list, and one run with all its details.

Only readable texts are read. Nothing is unpickled, counted or changed.
"""

import math
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from string import ascii_lowercase, ascii_uppercase
from typing import TypeVar

from attrs import evolve, frozen

from flowdsl.core.damage import require_sound
from flowdsl.core.records import Item, Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.core.views import tag_texts
from flowdsl.errors import CorruptPayload
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime
from flowdsl.storage.left_out import left_out, readable
from flowdsl.web.query import Cursor, Filters

__all__ = ["Channel", "Listed", "RunDetails", "list_runs", "read_run"]

_BATCH = 500  # runs read at once while searching with filters that only Python can apply
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # as storages compare texts
_PATIENCE = 0.06  # seconds of processor time for such a search; then the reader decides whether to go on


# ------------------------------------------------------------------------------------------------ the list


@frozen
class Listed:
    """A page of the list. *next* is the cursor of the next page. *searched*: the search was stopped for now,
    and the next page continues it."""

    rows: tuple[tuple[Run, str], ...]
    next: Cursor | None = None
    searched: bool = False


def list_runs(runtime: Runtime, filters: Filters, cursor: Cursor | None) -> Listed:
    """The runs that match, newest first, after *cursor*."""
    where, exact = _where(runtime, filters)
    if filters.q or filters.tags:
        recent = _among_newest(runtime, filters, where, cursor)
        if recent is not None:
            return recent
    rows: list[tuple[Run, str]] = []
    until = time.thread_time() + _PATIENCE
    last: Run | None = None
    for run in _from(runtime, where, cursor, filters.limit + 1 if exact else _BATCH):
        if len(rows) == filters.limit:
            assert last is not None
            return Listed(tuple(rows), Cursor(last.created_at, last.id))
        last = run
        status = shown_status(runtime.storage, run)
        if exact or _wanted(filters, run, status):
            rows.append((run, status))
        if not exact and time.thread_time() > until:
            return Listed(tuple(rows), Cursor(run.created_at, run.id), searched=True)
    return Listed(tuple(rows))


def _among_newest(
    runtime: Runtime, filters: Filters, where: RunFilter, cursor: Cursor | None
) -> Listed | None:
    """A full page, if the next few hundred runs fill one. Then the storage need not search all runs."""
    rows: list[tuple[Run, str]] = []
    for run in islice(_from(runtime, evolve(where, text="", tags=()), cursor, _BATCH), _BATCH):
        status = shown_status(runtime.storage, run)
        if not _wanted(filters, run, status):
            continue
        if len(rows) == filters.limit:
            last = rows[-1][0]
            return Listed(tuple(rows), Cursor(last.created_at, last.id))
        rows.append((run, status))
    return None


def _where(runtime: Runtime, filters: Filters) -> tuple[RunFilter, bool]:
    """The filters that the storage can apply, and whether these are all."""
    stored = {"running" if status == "interrupted" else status for status in filters.statuses}
    valued = dict(tag.split("=", 1) for tag in filters.tags if "=" in tag)
    names = tuple(tag for tag in filters.tags if "=" not in tag)
    where = RunFilter(
        status=tuple(RunStatus(status) for status in sorted(stored)),
        tags=valued or names,
        created_after=filters.since,
        created_before=filters.until,
        text=filters.q,
    )
    exact = not (valued and names)
    exact = exact and ("interrupted" in filters.statuses) == ("running" in filters.statuses)
    if filters.workflow:
        if runtime.storage.list_runs(RunFilter(workflow=filters.workflow, limit=1)):
            return evolve(where, workflow=filters.workflow), exact
        return where, False
    return where, exact


def _wanted(filters: Filters, run: Run, status: str) -> bool:
    if filters.statuses and status not in filters.statuses:
        return False
    name = filters.workflow
    if name and not (run.workflow == name or run.workflow.endswith("." + name)):
        return False
    texts = tag_texts(run)
    if filters.tags and not {*texts, *(text.partition("=")[0] for text in texts)}.issuperset(filters.tags):
        return False
    wanted = filters.q.translate(_LOWER)
    parts = (part for text in texts for part in text.split("=", 1))
    return any(wanted in text.translate(_LOWER) for text in (run.id, run.workflow, *parts))


def _from(runtime: Runtime, where: RunFilter, cursor: Cursor | None, batch: int) -> Iterator[Run]:
    """The runs that match *where* after *cursor*, read in batches of *batch*."""
    storage = runtime.storage
    skip: Cursor | None = None
    if cursor is not None:
        if storage.get_run(cursor.id) is not None:
            where = evolve(where, after=cursor.id)
        else:  # the run was deleted since: use the time
            skip = cursor
            above = math.nextafter(cursor.created_at, math.inf)
            before = above if where.created_before is None else min(where.created_before, above)
            where = evolve(where, created_before=before)
    while True:
        page = storage.list_runs(evolve(where, limit=batch))
        for run in page:
            if skip is None or (run.created_at, run.id) < (skip.created_at, skip.id):
                yield run
        if len(page) < batch:
            return
        where, batch = evolve(where, after=page[-1].id), _BATCH


_Row = TypeVar("_Row", Step, Signal)


def _sound(row: _Row) -> _Row:
    """*row*, unless it is damaged."""
    require_sound(row)
    return row


# ------------------------------------------------------------------------------------------------- one run


@frozen
class Channel:
    """One channel of a run: how many items it has, and the newest of them."""

    name: str
    count: int
    newest: tuple[Item, ...]


_MANY = 500  # records
_CHILDREN = 500  # of one run that are shown, at most
_ITEMS = 20  # of one channel that are shown, at most


class RunDetails:
    """One run with all its details. The row is read at once, the rest when it is first needed."""

    def __init__(self, runtime: Runtime, run: Run) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self.run = run
        self.status = shown_status(runtime.storage, run)
        self.now = runtime.storage.now()
        self.refused: dict[str, CorruptPayload] = {}
        """Runs of its family that cannot be shown, once the family was asked for."""

    @cached_property
    def journal(self) -> tuple[Step, ...]:
        """Its records, in order."""
        if not self.is_long:
            return self._beginning
        return tuple(map(_sound, self._storage.list_steps(self.run.id, payloads=False)))

    @cached_property
    def _beginning(self) -> tuple[Step, ...]:
        return tuple(map(_sound, self._storage.list_steps(self.run.id, limit=_MANY + 1, payloads=False)))

    @property
    def is_long(self) -> bool:
        """Whether it has so many records that reading them takes some time."""
        return len(self._beginning) > _MANY

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """The messages that were sent to it."""
        return tuple(map(_sound, self._storage.list_signals(self.run.id)))

    @cached_property
    def children(self) -> tuple[tuple[Run, str], ...]:
        """The runs that it called, each with its status."""
        where = RunFilter(parent=self.run.id, newest_first=False, limit=_CHILDREN)
        with left_out() as refused:
            found = self._storage.list_runs(where)
        self.refused |= refused
        return tuple((child, shown_status(self._runtime.storage, child)) for child in found)

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """What it has published."""
        return tuple(
            Channel(
                name, count, tuple(self._storage.list_items(self.run.id, name, after=max(count - _ITEMS, 0)))
            )
            for name, count in self._storage.list_channels(self.run.id).items()
        )

    @cached_property
    def related(self) -> Mapping[str, str]:
        """The other runs that it names, by id, each with its status."""
        run = self.run
        names = [name for name in (run.parent, run.started_by, run.forked_from) if name]
        with left_out() as refused:
            named = [run for run in readable(self._storage.get_run, names) if run is not None]
        self.refused |= refused
        return {found.id: shown_status(self._runtime.storage, found) for found in named}

    @property
    def last(self) -> int:
        """The number of the newest record."""
        return max((step.seq for step in self.journal), default=0)


def read_run(runtime: Runtime, run_id: str) -> RunDetails | None:
    """The run of this id, or ``None``."""
    run = runtime.storage.get_run(run_id) if run_id else None
    return None if run is None else RunDetails(runtime, run)
