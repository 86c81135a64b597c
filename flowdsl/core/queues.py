"""Queues: which pending runs may begin now.

The rules
    Pending runs are taken by priority (larger first), then by age, then by id. A queue may limit how many of
    its runs execute at once (all workers together, per worker, per partition). It may limit how many begin in
    a window of time (``rate``). All runs without a partition share one partition. A paused queue gives
    nothing. A queue that nobody declared has no limits. Of the runs that share a *serial* key, one executes
    at a time, whatever their queues.

The theory
    There is one model for all limits. Each limit is a *room* with a number of places, and some are taken. A
    pending run needs a place in each of its rooms. :func:`choose` goes through the candidates in order, and
    takes those that find a place everywhere. A full room never blocks runs that do not need it.

The implementation
    A storage reads candidates and counts in its transaction, asks :func:`choose`, and writes the choice. So a
    limit is never exceeded, and no row is taken twice.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attrs import field, frozen
from attrs.validators import instance_of

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import QueueRow, Run
from flowdsl.errors import CorruptPayload

__all__ = [
    "DEFAULT",
    "LOOKED_AT",
    "PASSED_OVER_AT_MOST",
    "Candidate",
    "Closed",
    "Queue",
    "Rooms",
    "Taken",
    "choose",
    "longest_window",
    "partition_key",
    "queue_of",
    "row_of",
    "window",
]

DEFAULT = "default"
"""The queue of a run that was enqueued without a queue's name."""

_WINDOWS = {"sec": 1.0, "min": 60.0, "hour": 3600.0, "day": 86400.0}
_RATE = re.compile(r"\s*([1-9][0-9]*)\s*/\s*(sec|min|hour|day)\s*")


def _checked_name(_queue: Any, _attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"a queue is named by a string; got {value!r}")
    if not value.strip():
        raise ValueError("a queue's name must not be empty")


def _checked_limit(_queue: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    name = attribute.name
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}= is a whole number or None; got {value!r}")
    if value < 1:
        raise ValueError(f"{name}= is at least 1; to stop a queue, pause it; got {value!r}")


def _checked_rate(_queue: Any, _attribute: Any, value: Any) -> None:
    if value is not None:
        window(value)


def window(rate: object) -> tuple[int, float]:
    """How many runs may begin in how many seconds.

    >>> window("100/min")
    (100, 60.0)
    """
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None:
        raise ValueError(f'rate= is text such as "100/min", per sec, min, hour or day; got {rate!r}')
    return int(found[1]), _WINDOWS[found[2]]


@frozen(slots=True, eq=False, repr=False)
class Queue(ByFields):
    """A named queue of runs, with its limits.

    Parameters: *name*; *concurrency*, how many of its runs execute at once, all workers together;
    *per_worker*, how many in one worker; *per_partition*, how many of one partition; *rate*, how many may
    begin in a sliding window, such as ``"100/min"`` (per ``sec``, ``min``, ``hour`` or ``day``). ``None``
    means no limit. *paused*: the queue gives nothing to workers.

    >>> Queue("mail", concurrency=10, rate="100/min").rate
    '100/min'
    """

    name: str = field(validator=_checked_name)
    concurrency: int | None = field(default=None, kw_only=True, validator=_checked_limit)
    per_worker: int | None = field(default=None, kw_only=True, validator=_checked_limit)
    per_partition: int | None = field(default=None, kw_only=True, validator=_checked_limit)
    rate: str | None = field(default=None, kw_only=True, validator=_checked_rate)
    paused: bool = field(default=False, kw_only=True, validator=instance_of(bool))


LOOKED_AT = 100
"""How many pending runs a claim looks at, besides as many as it wants, in the order in which they are due.

If these do not give what it wants, and there are more, it looks at the first runs of each *lane*. Runs of one
lane are of the same workflow, version, queue, partition and serial key, so they share all limits. So a claim
is as quick when 100,000 runs wait behind a limit, for their time or for another worker.
"""


PASSED_OVER_AT_MOST = 1000
"""Most runs whose rows are damaged that a claim passes over."""


class Candidate(NamedTuple):
    """A pending run that is due, with what is needed to take it."""

    id: str
    queue: str
    priority: int = 0
    created_at: float = 0.0
    partition: str | None = None
    serial: str | None = None

    @classmethod
    def of(cls, run: Run) -> "Candidate":
        """A run as a candidate. Without a queue it belongs to ``default``."""
        return cls(run.id, run.queue or DEFAULT, run.priority, run.created_at, run.partition, run.serial)


class Taken(NamedTuple):
    """Places that are taken: by runs that execute, and by runs that began within the longest window.

    *executing*: ``(queue, owner, partition, serial)`` of each run that executes. *begun*: ``(queue, when)``
    of each run that began lately, in seconds on the storage's clock.
    """

    executing: Sequence[tuple[str, str | None, str | None, str | None]] = ()
    begun: Sequence[tuple[str, float]] = ()

    @classmethod
    def by(cls, executing: Iterable[Run], begun: Iterable[Run]) -> "Taken":
        """The places that these runs take."""
        return cls(
            [(run.queue or DEFAULT, run.owner, run.partition, run.serial) for run in executing],
            [(run.queue or DEFAULT, run.claimed_at or 0.0) for run in begun],
        )


def queue_of(row: QueueRow) -> Queue:
    """The queue that a row declares. Raises ``CorruptPayload`` if it declares none."""
    try:
        return Queue(row.name, paused=bool(row.paused), **json.loads(row.spec or "{}"))
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptPayload(f"queue {row.name!r} is damaged in the database: {error!r}") from error


def row_of(queue: Queue) -> QueueRow:
    """The row that declares a queue."""
    limits = {name: getattr(queue, name) for name in ("concurrency", "per_worker", "per_partition", "rate")}
    spec = json.dumps({name: limit for name, limit in limits.items() if limit is not None})
    return QueueRow(queue.name, spec, queue.paused)


def longest_window(queues: Iterable[Queue]) -> float:
    """The longest window of all rates, in seconds; 0 for none."""
    return max((window(queue.rate)[1] for queue in queues if queue.rate is not None), default=0.0)


def choose(
    candidates: Iterable[Candidate],
    taken: Taken,
    queues: Mapping[str, Queue],
    *,
    owner: str,
    now: float,
    limit: int,
) -> list[Candidate]:
    """The runs that *owner* may begin now, at most *limit*, in the order in which they are due.

    *candidates* must be due (``not_before`` has passed). *now* is in seconds on the storage's clock.

    >>> mail = Queue("mail", concurrency=1)
    >>> two = [Candidate("a", "mail"), Candidate("b", "mail", priority=5)]
    >>> [run.id for run in choose(two, Taken(), {"mail": mail}, owner="me", now=0.0, limit=9)]
    ['b']
    """
    return Rooms(queues, taken, owner=owner, now=now).take(candidates, limit)


class Closed(NamedTuple):
    """Where nothing more can begin, whatever is pending: names of *queues*, *partitions*
    (:func:`partition_key`) and *serials*. A storage need not look at their runs."""

    queues: list[str]
    partitions: list[str]
    serials: list[str]


def partition_key(queue: str, partition: str | None) -> str:
    """A text for one partition of a queue. Each has a different one."""
    return f"{len(queue)}:{queue}" + ("" if partition is None else f"/{partition}")


class Rooms:
    """The places of all limits, as *owner* finds them now. Runs that it takes take places.

    A storage with many pending runs reads them in order, some at a time, and skips what is closed. So each
    time it finds some that can begin, or there are no more.
    """

    def __init__(self, queues: Mapping[str, Queue], taken: Taken, *, owner: str, now: float) -> None:
        self._places = {name: _places(queue) for name, queue in queues.items()}
        self._owner = owner
        used = self._used = Counter[tuple[str, ...]]()
        for queue, whose, partition, serial in taken.executing:
            used.update(_rooms(queue, whose or "", partition, serial))
        for queue, when in taken.begun:
            declared = queues.get(queue)
            if declared is not None and declared.rate is not None and when > now - window(declared.rate)[1]:
                used["rate", queue] += 1

    def take(self, candidates: Iterable[Candidate], limit: int) -> list[Candidate]:
        """Take at most *limit* of *candidates*, in the order in which they are due. Each takes its places."""
        used = self._used
        chosen: list[Candidate] = []
        for run in sorted(candidates, key=lambda run: (-run.priority, run.created_at, run.id)):
            if len(chosen) >= limit:
                break
            rooms = [*_rooms(run.queue, self._owner, run.partition, run.serial), ("rate", run.queue)]
            places = self._places.get(run.queue, {})
            if all(used[room] < places.get(room[0], _ALWAYS.get(room[0], used[room] + 1)) for room in rooms):
                used.update(rooms)
                chosen.append(run)
        return chosen

    def closed(self) -> Closed:
        """Queues, partitions and serial keys that have no place left."""
        used = self._used
        queues = [
            name
            for name, places in self._places.items()
            if any(
                used[room] >= places[room[0]]
                for room in (("queue", name), ("worker", name, self._owner), ("rate", name))
                if room[0] in places
            )
        ]
        partitions, serials = [], []
        for (kind, name, *rest), count in used.items():
            if kind == "serial":
                serials.append(name)
            elif kind == "partition" and count >= self._places.get(name, {}).get(kind, count + 1):
                partitions.append(partition_key(name, rest[0] if rest else None))
        return Closed(queues, partitions, serials)


_ALWAYS = {"serial": 1}


def _rooms(queue: str, owner: str, partition: str | None, serial: str | None) -> Iterable[tuple[str, ...]]:
    """The rooms in which a run takes a place while it executes."""
    yield "queue", queue
    yield "worker", queue, owner
    yield ("partition", queue) if partition is None else ("partition", queue, partition)
    if serial is not None:
        yield "serial", serial


def _places(queue: Queue | None) -> dict[str, int]:
    """How many places each kind of room has. A kind that is not named has no limit."""
    if queue is None:
        return {}
    if queue.paused:
        return {"queue": 0}
    limits = {
        "queue": queue.concurrency,
        "worker": queue.per_worker,
        "partition": queue.per_partition,
        "rate": None if queue.rate is None else window(queue.rate)[0],
    }
    return {kind: limit for kind, limit in limits.items() if limit is not None}
