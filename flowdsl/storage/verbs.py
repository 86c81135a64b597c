"""The verbs of the field, made of commits: what every storage can do without implementing it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from flowdsl.core.kinds import STORE
from flowdsl.core.ownership import RUN_FIELDS
from flowdsl.core.records import Run, Signal, Step, fields_of
from flowdsl.errors import RunConflict
from flowdsl.storage.operations import AddSignal, DeleteRun, DropSteps, OpenRun, Operation, PutStep, UpdateRun
from flowdsl.storage.outcomes import Done, Found, Missing, Outcome, raise_unstorable

__all__ = ["Verbs", "run_changes"]


class Verbs(ABC):
    """``set_…``, ``delete_…``, ``add_signal`` and ``get_state`` of a storage."""

    @abstractmethod
    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """See :meth:`Storage.commit <flowdsl.storage.base.Storage.commit>`."""

    @abstractmethod
    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        """See :meth:`Storage.list_steps <flowdsl.storage.base.Storage.list_steps>`."""

    def set_run(self, run: Run, /) -> None:
        """Insert a run as it is, or replace all its fields except the epoch and the lease.

        Raises ``ValueError`` for a pruned *run*. Raises :class:`~flowdsl.errors.RunConflict` if its id
        belongs to a pruned one.
        """
        if run.pruned:
            raise ValueError("a pruned run cannot be set; delete it with a tombstone")
        insert = OpenRun(evolve(run, number=None), 0.0)
        opened, updated = self.commit(
            [insert, UpdateRun(run.id, run_changes(run), release=run.owner is None)]
        )
        if isinstance(updated, Missing) and isinstance(opened, Found):
            raise RunConflict(
                f"the id {run.id!r} belonged to a run that was pruned; take another id", run=run.id
            )
        raise_unstorable(opened, updated)

    def delete_run(self, run_id: str, /) -> None:
        """Delete a run with all that belongs to it. A missing one is no error."""
        self.commit([DeleteRun(run_id)])

    def set_step(self, step: Step, /) -> None:
        """Insert or replace a step record of an existing run. ``LookupError`` if the run is missing."""
        (outcome,) = self.commit([PutStep(step)])
        raise_unstorable(outcome)
        if isinstance(outcome, Missing):
            raise LookupError(f"no run {step.run_id!r}")

    def delete_step(self, run_id: str, key: str, /) -> None:
        """Delete a step record. A missing one is no error."""
        self.commit([DropSteps(run_id, (key,))])

    def add_signal(self, signal: Signal, /) -> bool:
        """Store a message. ``False`` if the run is missing or has ended."""
        (outcome,) = self.commit([AddSignal(signal)])
        raise_unstorable(outcome)
        return isinstance(outcome, Done)

    def get_state(self, run_id: str, /) -> list[Step]:
        """The store operations of a run in order. Their fold is the state of the run store."""
        return [step for step in self.list_steps(run_id) if step.kind == STORE]


def run_changes(run: Run) -> dict[str, Any]:
    """All fields of *run* that ``UpdateRun`` may set.

    >>> "epoch" in run_changes(Run(id="a", workflow="w", key="k"))
    False
    """
    return {name: getattr(run, name) for name in fields_of(Run) if name in RUN_FIELDS}
