"""The numbered runs of one key, for a call that continues one of them or begins the next.

A key may have thousands of runs. Opening one looks at few of them.
"""

import heapq
from bisect import bisect_left, insort
from itertools import islice

from attrs import define, field

from flowdsl.core.ownership import FOUND_AT_MOST, LIVE, may_continue
from flowdsl.core.records import Run

__all__ = ["NumberedRuns"]


@define(slots=True, eq=False, repr=False)
class NumberedRuns:
    """The numbers of all runs of a key, sorted; and of those that may be continued, by their owner."""

    numbers: list[int] = field(factory=list)
    live: dict[str | None, list[tuple[int, str]]] = field(factory=dict)
    failed: list[tuple[int, str]] = field(factory=list)

    @property
    def highest(self) -> int:
        """The number of the newest run; 0 if there is none."""
        return self.numbers[-1] if self.numbers else 0

    def add(self, run: Run) -> None:
        """Enter *run*, if it has a number."""
        if run.number is None:
            return
        if run.number > self.highest:  # as nearly always
            self.numbers.append(run.number)
        else:
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

    def replace(self, before: Run, after: Run) -> None:
        """A run was entered as *before*, and is *after* now. Its number stays."""
        if before.number is None:
            return
        mark = (before.number, before.id)
        if before.status in LIVE and len(self.live[before.owner]) == 1:  # of a key that few ask for at once
            del self.live[before.owner]
        elif (was := self._group(before)) is not None:
            del was[bisect_left(was, mark)]
        if (now := self._group(after)) is not None:
            insort(now, mark)

    def oldest(self, skip_owners: tuple[str, ...]) -> list[str]:
        """Ids of the oldest runs that a call may continue."""
        if not self.live and not self.failed:
            return []
        groups = [group for owner, group in self.live.items() if owner not in skip_owners]
        oldest = [islice(group, FOUND_AT_MOST) for group in [*groups, self.failed]]
        return [run_id for _, run_id in islice(heapq.merge(*oldest), FOUND_AT_MOST)]

    def _group(self, run: Run) -> list[tuple[int, str]] | None:
        if run.status in LIVE:
            return self.live.setdefault(run.owner, [])
        return self.failed if may_continue(run, ()) else None
