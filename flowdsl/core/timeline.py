"""The steps of a run laid out in time: a bar for each, in lanes, and the idle time between them.

The rules
    * A bar reaches from the beginning of the first known attempt to the end of the last one. A bar without an
      end reaches to *now* while somebody executes the run. Otherwise it is a point.
    * A bar and all that was called inside it make a *block*. Blocks that overlap in time lie in different
      lanes. What was called inside a bar lies below it.
    * *Idle* is a time in which no body executes: sleeps, waits, downtime. It counts if it is longer than a
      tenth of the whole. Each idle time is shown as a fold, and all folds have one width.

Everything takes O(n log n) for n steps. Nothing is recursive, because journals are long and may be deep.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field, frozen

from flowdsl.core.kinds import BESIDE_STEPS, VALUE, WAITS
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.views import begun_at, extra_of, scope_owner

__all__ = ["Bar", "Idle", "Timeline", "timeline_of"]

IDLE_PART = 0.1
"""A time without a body is idle if it is longer than this part of the whole."""

IDLE_LEAST = 0.05
"""Seconds. A shorter time is never folded."""

FOLD = 0.05
"""The part of the picture that one fold takes. All folds together take at most a third."""

_NO_BODY = WAITS | {VALUE, "publish"}
_WAITING = ("until", "deadline", "signal", "next")
_CONTINUING = frozenset({"continue", "resume", "retry", "recover", "fork"})


@define(slots=True)
class Bar:
    """One step, from *start* to *end* in seconds since the epoch, in *lane* (0: the top), *depth* calls deep.

    * ``status``: that of the record; without an outcome ``running``, ``waiting`` or ``interrupted``.
    * ``ticks``: the known beginnings of its attempts.
    * ``owner``: the key of the step in whose body it was called; ``""`` for the run's own body.
    * ``replayed``: a later execution of the run answered it from its record.
    """

    step: Step
    start: float
    end: float
    status: str
    owner: str = ""
    depth: int = 0
    lane: int = 0
    replayed: bool = False
    ticks: tuple[float, ...] = ()


@frozen(slots=True)
class Idle:
    """A time in which no body executed."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """The length in seconds."""
        return self.end - self.start


@frozen(slots=True)
class Timeline:
    """What :func:`timeline_of` gives: *bars* by their start, the number of *lanes*, the *idle* times, and the
    whole, from *begin* to *end*."""

    bars: tuple[Bar, ...]
    lanes: int
    idle: tuple[Idle, ...]
    begin: float
    end: float
    _places: tuple[tuple[float, ...], tuple[float, ...]] = field(default=((), ()), repr=False)

    def place(self, moment: float, *, folded: bool = True) -> float:
        """Where *moment* lies in the picture, from 0 (its left edge) to 1. *folded*: idle time is folded."""
        if not folded or not self.idle:
            whole = self.end - self.begin
            return min(max((moment - self.begin) / whole, 0.0), 1.0) if whole > 0 else 0.0
        moments, places = self._places
        at = min(max(bisect_right(moments, moment) - 1, 0), len(moments) - 2)
        length = moments[at + 1] - moments[at]
        part = min(max((moment - moments[at]) / length, 0.0), 1.0) if length > 0 else 0.0
        return places[at] + part * (places[at + 1] - places[at])


def timeline_of(
    run: Run, status: str, journal: Iterable[Step], *, now: float, children: Mapping[str, Run] | None = None
) -> Timeline:
    """Lay out the steps of *run*.

    Parameters: *status*, that of the run as it is shown (``interrupted`` for a running one that nobody
    executes); *journal*, all its records in order; *now*, in seconds since the epoch; *children*, by id, for
    the times of steps that are runs themselves.

    >>> steps = [Step("r", "a", "charge", created_at=0.0, completed_at=2.0),
    ...          Step("r", "b", "bank", scope="a", created_at=0.5, completed_at=1.0)]
    >>> run = Run("r", "shop", "k", created_at=0.0, finished_at=2.0)
    >>> line = timeline_of(run, "completed", steps, now=9.0)
    >>> [(bar.step.path, bar.lane, bar.depth, line.place(bar.start)) for bar in line.bars]
    [('charge', 0, 0, 0.0), ('bank', 1, 1, 0.25)]
    """
    records = list(journal)
    continued = max(
        (s.seq for s in records if s.kind == "audit" and s.path.rpartition(".")[2] in _CONTINUING), default=0
    )
    executing = status == "running"
    steps = [step for step in records if step.kind not in BESIDE_STEPS]
    bars = [_bar(step, executing, now, continued, children or {}) for step in steps]
    lanes = _arrange(bars)
    bars.sort(key=lambda bar: (bar.start, bar.lane))
    ends = [run.created_at, *(bar.end for bar in bars)]
    if run.finished_at is not None and run.status is not RunStatus.RUNNING:
        ends.append(run.finished_at)
    elif executing:
        ends.append(now)
    begin = min([run.created_at, *(bar.start for bar in bars[:1])])
    end = max(ends)
    idle = _idle(bars, begin, end)
    return Timeline(tuple(bars), lanes, idle, begin, end, _folded(idle, begin, end))


def _bar(step: Step, executing: bool, now: float, continued: int, children: Mapping[str, Run]) -> Bar:
    extra = extra_of(step) if step.extra else {}
    ticks = begun_at(step)
    start, end = min([step.created_at, *ticks]), step.completed_at
    status = str(step.status)
    child = children.get(str(extra.get("child", "")))
    if child is not None:  # the record of a child copies its outcome, so the times are the child's
        start, end = child.created_at, child.finished_at
    if step.status is StepStatus.PENDING:
        waiting = any(name in extra for name in _WAITING)
        status = "interrupted" if not executing else "waiting" if waiting else "running"
        end = now if executing else start
    replayed = step.seq < continued and step.status in (StepStatus.COMPLETED, StepStatus.FAILED)
    return Bar(step, start, max(start if end is None else end, start), status, replayed=replayed, ticks=ticks)


# ------------------------------------------------------------------------------------------------------ lanes


@define(slots=True)
class _Block:
    """A bar with all that was called inside it: its extent in time, its height in lanes."""

    bar: Bar
    start: float
    end: float
    height: int = 1
    below: int = 0  # lanes between the bar above and this one
    inside: Sequence["_Block"] = ()


def _arrange(bars: Sequence[Bar]) -> int:
    """Give each bar its owner, depth and lane. Returns the number of lanes."""
    blocks = {bar.step.key: _Block(bar, bar.start, bar.end) for bar in bars}
    known = blocks.keys()
    owners: dict[str, str | None] = {"": None}
    inside: dict[str, list[_Block]] = defaultdict(list)
    for bar in bars:
        scope = bar.step.scope
        if scope not in owners:
            owners[scope] = scope_owner(scope, known)
        owner = owners[scope]
        bar.owner = owner if owner is not None and owner != bar.step.key else ""
        inside[bar.owner].append(blocks[bar.step.key])
    ordered = _outside_in(inside)
    for block in reversed(ordered):  # inner ones first, so that their extent is known
        within = inside.get(block.bar.step.key)
        if within:
            block.inside = within
            block.start = min(block.start, min(one.start for one in block.inside))
            block.end = max(block.end, max(one.end for one in block.inside))
            block.height = 1 + _pack(within)
    total = _pack(inside.get("", []))
    for block in inside.get("", []):
        block.bar.lane = block.below
    for block in ordered:
        for one in block.inside:
            one.bar.lane = block.bar.lane + 1 + one.below
    return total


def _outside_in(inside: Mapping[str, list[_Block]]) -> list[_Block]:
    """All blocks, each after the one that it lies in."""
    found = list(inside.get("", []))
    for block in found:  # grows while it is walked
        for one in inside.get(block.bar.step.key, []):
            one.bar.depth = block.bar.depth + 1
            found.append(one)
    return found


def _pack(blocks: list[_Block]) -> int:
    """Put each block into the first free track. Returns how many lanes the tracks take.

    A track is as high as its highest block.
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    heights: list[int] = []
    tracks: list[int] = []
    blocks.sort(key=lambda block: (block.start, block.end))
    for block in blocks:
        while busy and busy[0][0] <= block.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            track = heapq.heappop(free)
        else:
            track = len(heights)
            heights.append(0)
        heights[track] = max(heights[track], block.height)
        tracks.append(track)
        # A point takes its place too, so two points at one moment lie in two lanes.
        heapq.heappush(busy, (max(block.end, block.start + 1e-9), track))
    tops, top = [], 0
    for height in heights:
        tops.append(top)
        top += height
    for block, track in zip(blocks, tracks, strict=True):
        block.below = tops[track]
    return top


# ------------------------------------------------------------------------------------------------------- idle


def _idle(bars: Sequence[Bar], begin: float, end: float) -> tuple[Idle, ...]:
    """The times without an executing body that are long enough. *bars* are ordered by their start."""
    least = max((end - begin) * IDLE_PART, IDLE_LEAST)
    found = []
    reached = begin
    for bar in bars:
        if bar.step.kind in _NO_BODY or bar.status == "waiting":
            continue
        if bar.start - reached > least:
            found.append(Idle(reached, bar.start))
        reached = max(reached, bar.end)
    if end - reached > least:
        found.append(Idle(reached, end))
    return tuple(found)


def _folded(idle: Sequence[Idle], begin: float, end: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The corners of the map from moments to places."""
    if not idle:
        return (), ()
    fold = min(FOLD, 1 / (3 * len(idle)))
    # Summed piece by piece. The difference of large times would be rounded, to nothing or to too little.
    edges = [begin, *(edge for one in idle for edge in (one.start, one.end)), end]
    busy = sum(after - before for before, after in zip(edges[::2], edges[1::2], strict=True))
    if busy < 1e-6:
        fold, busy = 1 / len(idle), float("inf")
    room = 1 - fold * len(idle)
    moments, places = [begin], [0.0]
    for one in idle:
        if one.start > moments[-1]:
            places.append(places[-1] + room * (one.start - moments[-1]) / busy)
            moments.append(one.start)
        moments.append(one.end)
        places.append(places[-1] + fold)
    if end > moments[-1]:
        moments.append(end)
        places.append(1.0)
    places[-1] = 1.0
    return tuple(moments), tuple(places)
