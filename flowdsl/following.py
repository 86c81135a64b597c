"""Following a run: its row as it is now, and the records that are new since the last look.

Only new records are read, because a record that changes gets a new number.
"""

from attrs import define, frozen

from flowdsl.core.records import Run, Step
from flowdsl.core.status import is_final
from flowdsl.handle import shown_status
from flowdsl.storage import Storage

__all__ = ["PAUSE", "TICK", "Following", "Look"]

TICK = 1.0
"""Seconds between two looks while nothing is written. A process that dies writes nothing."""

PAUSE = 0.1
"""Seconds between two looks, at least."""


@frozen(slots=True)
class Look:
    """The result of one look.

    * ``status``: as it is shown, so ``interrupted`` for a run whose owner is gone. ``now``: on the
      storage's clock.
    * ``fresh``: the records that are new or have changed, without payloads. ``more``: there are others.
    * ``anew``: another generation has begun, so the records of earlier looks are gone.
    """

    run: Run
    status: str
    now: float
    fresh: tuple[Step, ...]
    more: bool = False
    anew: bool = False

    @property
    def ended(self) -> bool:
        """Whether the run has ended, unless somebody retries it, and all its records were read."""
        return is_final(self.run.status) and not self.more


@define
class Following:
    """Looks at the run *run_id* again and again. *after*: the number of the last record that is known."""

    storage: Storage
    run_id: str
    after: int = 0
    _generation: int | None = None

    def look(self, limit: int | None = None) -> Look | None:
        """Look now, at the first *limit* new records at most. ``None``: there is no such run any more.

        >>> from flowdsl.storage import MemoryStorage
        >>> Following(MemoryStorage(), "order-17").look() is None
        True
        """
        run = self.storage.get_run(self.run_id)  # before the records: nothing is recorded after the end
        return None if run is None else self.look_at(run, limit)

    def look_at(self, run: Run, limit: int | None = None) -> Look:
        """As :meth:`look`, for a *run* whose row was read just now."""
        anew = self._generation not in (None, run.generation)
        if anew:  # it has a new journal
            self.after = 0
        self._generation = run.generation
        fresh = self.storage.list_steps(self.run_id, after=self.after, limit=limit, payloads=False)
        self.after = max([self.after, *(step.seq for step in fresh)])
        more = len(fresh) == limit
        return Look(run, shown_status(self.storage, run), self.storage.now(), tuple(fresh), more, anew)
