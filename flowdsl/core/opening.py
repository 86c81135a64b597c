"""What opening a run makes of it, in which order. It is pure, and the same for all storages.

The order
    1. A run that is the same work (``dedup``) and has not ended is found.
    2. With a given id, the run of that id is found, a pruned one included. If there is none, it is inserted.
    3. Without, an opening that was sent again finds what it has inserted.
    4. Otherwise the oldest runs of the key that can be continued are found, unless a fresh one is wanted.
    5. Otherwise the run gets the next number that is free, or the one that is wanted, or none.

:func:`opening` asks for what it must know, one question after the other. A storage answers each: it reads and
inserts rows, and decides nothing.
"""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

from flowdsl.core.ownership import inserted, numbers_for, sent_again
from flowdsl.core.records import Run

__all__ = ["BY_ID", "CONTINUABLE", "PLACE", "SAME_WORK", "Place", "answered", "opening"]

SAME_WORK = "same work"
"""Which run of the same workflow, queue and ``dedup`` has not ended? Answer: its nonce and the run, or
``None``."""

BY_ID = "by id"
"""Which run has this id, pruned or not? Answer: its nonce and the run, or ``None``."""

PLACE = "place"
"""Where does a new run stand? Answer: a :class:`Place`."""

CONTINUABLE = "continuable"
"""Which are the oldest runs of the key that ``may_continue``, at most ``FOUND_AT_MOST``? Answer: a tuple."""

_TRIES = 3  # where an id is free at one look and taken at the next, since another process inserts it


class Place(NamedTuple):
    """Where a new run stands.

    * ``highest``: the last number of its key; 0 for none, and for a run whose id is given.
    * ``epoch``: the highest of all deleted runs; ``now``: the time on the storage's clock.
    * ``before``: the run that an opening of this nonce, owner and key has inserted, if there is one. Nobody
      asks for a run whose id is given.
    """

    highest: int
    epoch: int
    now: float
    before: Run | None = None


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


Decision = Run | tuple[Run, ...]
"""The run that was opened; or those that were found instead. No run: it cannot have that number."""

Question = str | Run
"""One of the questions above; or a run to be inserted. Answer to that: whether its id was free."""


def opening(op: Wanted) -> Generator[Question, Any, Decision]:
    """Open ``op.run``, or find the one that exists or is to be continued. Yields questions, is sent the
    answers."""
    run = op.run
    if run.dedup is not None and (same := (yield SAME_WORK)) is not None:
        return _existing(op, *same)
    if run.number is None:
        for _ in range(_TRIES):
            if (found := (yield BY_ID)) is not None:
                return _existing(op, *found)
            place: Place = yield PLACE
            new = inserted(run, run.id, None, place.epoch + 1, place.now + op.lease)
            if (yield new):
                return new
        return ()
    place = yield PLACE
    if place.before is not None:
        return place.before
    if place.highest and not op.fresh and (oldest := (yield CONTINUABLE)):
        return tuple(oldest)
    for number in numbers_for(op.number, place.highest):
        new = inserted(run, f"{run.id}-{number}", number, place.epoch + 1, place.now + op.lease)
        if (yield new):
            return new
    return ()


def _existing(op: Wanted, nonce: str, run: Run) -> Decision:
    """The decision of an opening that meets *run*. *nonce* is that of the run's last opening or claim."""
    return run if sent_again(op.nonce, op.run.owner, nonce, run) else (run,)


def answered(op: Wanted, answer: Callable[[Question], Any]) -> Decision:
    """The decision about *op*, if *answer* answers the questions at once."""
    questions = opening(op)
    try:
        question = next(questions)
        while True:
            question = questions.send(answer(question))
    except StopIteration as end:
        decision: Decision = end.value
        return decision
