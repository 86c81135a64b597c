"""What opening a run makes of it, in which order. It is pure, and the same for all storages.

The order
    1. A run that is the same work (``dedup``) and has not ended is found.
    2. With a given id, the run of that id is found, a pruned one included. If there is none, it is inserted.
    3. Without, an opening that was sent again finds what it has inserted.
    4. Otherwise the oldest runs of the key that can be continued are found, unless a fresh one is wanted.
    5. Otherwise the run gets the next number that is free, or the one that is wanted, or none.

:func:`opening` asks for what it must know, one question after the other. A storage answers each: it reads and
inserts rows, and decides nothing. A storage that cannot answer at once collects its answers in
:class:`Answers`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from flowdsl.core.ownership import inserted, sent_again
from flowdsl.core.records import Run

__all__ = ["Answers", "Decision", "Found", "Numbers", "Rows", "Unanswered", "Wanted", "opening"]

_TRIES = 3  # where an id is free at one look and taken at the next, since another process inserts it

Numbers: TypeAlias = tuple[int, int, float, Run | None]
"""What a new run is numbered by.

* The last number of its key; 0 for none.
* The highest epoch of all deleted runs, and the time on the storage's clock.
* The run that an opening of this nonce, owner and key has inserted, if there is one.

For a run whose id is given, only the epoch and the time count: its id finds it.
"""

Found: TypeAlias = tuple[str, Run]
"""A run, after the nonce of its last opening or claim."""

Decision: TypeAlias = Run | tuple[Run, ...]
"""The run that was opened; or those that were found instead. No run: it cannot have that number."""


class Wanted(Protocol):
    """What is to be opened. An :class:`~flowdsl.storage.operations.OpenRun` is that."""

    @property
    def run(self) -> Run: ...
    @property
    def lease(self) -> float: ...
    @property
    def fresh(self) -> bool: ...
    @property
    def nonce(self) -> str: ...
    @property
    def number(self) -> int | None: ...


W = TypeVar("W", bound=Wanted, contravariant=True)
T = TypeVar("T", contravariant=True)


class Rows(Protocol[T, W]):
    """The rows of a storage, as :func:`opening` asks for them. *at* is where they are (tables, a
    transaction)."""

    def same_work(self, at: T, op: W, /) -> Found | None:
        """Which run of the same workflow, queue and ``dedup`` has not ended?"""
        ...

    def by_id(self, at: T, op: W, /) -> Found | None:
        """Which run has this id, pruned or not?"""
        ...

    def numbers(self, at: T, op: W, /) -> Numbers:
        """By what is a new run numbered?"""
        ...

    def continuable(self, at: T, op: W, /) -> Sequence[Run]:
        """Which are the oldest runs of the key that ``may_continue``, at most ``FOUND_AT_MOST``?"""
        ...

    def insert(self, at: T, op: W, run: Run, /) -> bool:
        """Insert *run*. Was its id free?"""
        ...


def opening(op: W, rows: Rows[T, W], at: T) -> Decision:
    """Open ``op.run``, or find the one that exists or is to be continued."""
    run = op.run
    if run.dedup is not None and (same := rows.same_work(at, op)) is not None:
        return _existing(op, same)
    if run.number is None:
        return _by_id(op, rows, at)
    highest, epoch, now, before = rows.numbers(at, op)
    if before is not None:
        return before
    if highest and not op.fresh and (oldest := rows.continuable(at, op)):
        return tuple(oldest)
    wanted = op.number
    number = highest + 1 if wanted is None else wanted
    if number <= highest:
        return ()
    while True:
        new = inserted(run, f"{run.id}-{number}", number, epoch + 1, now + op.lease)
        if rows.insert(at, op, new):
            return new
        if wanted is not None:
            return ()
        number += 1


def _by_id(op: W, rows: Rows[T, W], at: T) -> Decision:
    for _ in range(_TRIES):
        if (found := rows.by_id(at, op)) is not None:
            return _existing(op, found)
        _, epoch, now, _ = rows.numbers(at, op)
        new = inserted(op.run, op.run.id, None, epoch + 1, now + op.lease)
        if rows.insert(at, op, new):
            return new
    return ()


def _existing(op: Wanted, found: Found) -> Decision:
    """The decision of an opening that meets a run."""
    nonce, run = found
    return run if sent_again(op.nonce, op.run.owner, nonce, run) else (run,)


class Unanswered(Exception):
    """The next question: its *name*, that of a method of :class:`Rows`; and the *run* if one is to be
    inserted."""

    def __init__(self, name: str, run: Run | None = None) -> None:
        super().__init__(name)
        self.name = name
        self.run = run


class Answers:
    """The rows of a storage that has to ask elsewhere. :func:`opening` asks its questions from the beginning
    each time. The answers so far are *given*, in order, and the first question without one is raised."""

    def __init__(self, given: Sequence[Any]) -> None:
        self._given = iter(given)

    def _answer(self, name: str, run: Run | None = None) -> Any:
        for answer in self._given:
            return answer
        raise Unanswered(name, run)

    def same_work(self, at: object, op: Wanted) -> Found | None:
        found: Found | None = self._answer("same_work")
        return found

    def by_id(self, at: object, op: Wanted) -> Found | None:
        found: Found | None = self._answer("by_id")
        return found

    def numbers(self, at: object, op: Wanted) -> Numbers:
        numbers: Numbers = self._answer("numbers")
        return numbers

    def continuable(self, at: object, op: Wanted) -> Sequence[Run]:
        oldest: Sequence[Run] = self._answer("continuable")
        return oldest

    def insert(self, at: object, op: Wanted, run: Run) -> bool:
        return bool(self._answer("insert", run))
