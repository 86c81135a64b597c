"""How the storage in memory holds runs. Opening one among thousands looks at few of them."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import islice

from attrs import define, field

from flowdsl.core.ownership import FOUND_AT_MOST, may_continue
from flowdsl.core.records import Item, Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus

__all__ = ["Entry", "Line", "matches", "order"]


@define(slots=True)
class Entry:
    """A run with all that belongs to it. Steps are kept in order of ``seq``, which stands beside each.
    ``unread``: ids of the messages that nobody has taken, in order of arrival."""

    run: Run
    nonce: str
    steps: dict[str, tuple[int, Step]] = field(factory=dict)
    signals: dict[str, Signal] = field(factory=dict)
    sent: dict[tuple[str, str], int] = field(factory=dict)
    unread: dict[str, None] = field(factory=dict)
    channels: dict[str, dict[int, Item]] = field(factory=dict)
    last: int = 0


@define(slots=True)
class Line:
    """The numbered runs of one key, sorted. So finding the one to continue does not look at all."""

    numbers: list[int] = field(factory=list)
    live: dict[str | None, list[tuple[int, str]]] = field(factory=dict)
    failed: list[tuple[int, str]] = field(factory=list)

    def add(self, run: Run) -> None:
        """Enter *run*, if it has a number."""
        if run.number is None:
            return
        insort(self.numbers, run.number)
        if (group := self._group(run)) is not None:
            insort(group, (run.number, run.id))

    def remove(self, run: Run) -> None:
        """Remove *run*, as it was entered."""
        if run.number is None:
            return
        del self.numbers[bisect_left(self.numbers, run.number)]
        if (group := self._group(run)) is not None:
            del group[bisect_left(group, (run.number, run.id))]
            if not group and group is not self.failed:
                del self.live[run.owner]

    def oldest(self, skip_owners: tuple[str, ...]) -> list[str]:
        """Ids of the oldest runs that a call may continue."""
        groups = [group for owner, group in self.live.items() if owner not in skip_owners]
        if not groups and not self.failed:
            return []
        oldest = [islice(group, FOUND_AT_MOST) for group in [*groups, self.failed]]
        return [run_id for _, run_id in islice(heapq.merge(*oldest), FOUND_AT_MOST)]

    def _group(self, run: Run) -> list[tuple[int, str]] | None:
        if run.status in (RunStatus.PENDING, RunStatus.RUNNING):
            return self.live.setdefault(run.owner, [])
        return self.failed if may_continue(run, ()) else None


def order(run: Run) -> tuple[float, str]:
    """The order of lists of runs."""
    return run.created_at, run.id


def matches(run: Run, where: RunFilter) -> bool:
    """Whether all conditions of *where* hold for *run*, apart from its place in the list."""
    if isinstance(where.tags, Mapping):
        items = run.tags.items() if isinstance(run.tags, Mapping) else ()
        tagged = where.tags.items() <= set(items)
    else:
        tagged = all(name in run.tags for name in where.tags)
    return (
        tagged
        and (not where.status or run.status in where.status)
        and (where.workflow is None or run.workflow == where.workflow)
        and (where.key is None or run.key == where.key)
        and (where.parent is None or run.parent == where.parent)
        and (not where.owner or run.owner in where.owner)
        and (where.created_after is None or run.created_at >= where.created_after)
        and (where.created_before is None or run.created_at < where.created_before)
        and (not where.text or _has_text(run, where.text))
    )


def _has_text(run: Run, text: str) -> bool:
    tags = [*run.tags, *run.tags.values()] if isinstance(run.tags, Mapping) else run.tags
    wanted = _folded(text)
    return any(wanted in _folded(one) for one in (run.id, run.workflow, *tags))


def _folded(text: str) -> str:
    """*text* with its ASCII letters in lower case. Databases do so, and change no other letters."""
    return text.translate(_LOWER)


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
