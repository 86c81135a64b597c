"""Operations on the journal of a run."""

from attrs import define, field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Step
from flowdsl.storage.operations.checks import an_address, an_id, some_keys

__all__ = ["DropSteps", "PutStep"]


@define(slots=True, init=False, eq=False, repr=False)  # each step makes one: not frozen, own init
class PutStep(ByFields):
    """Append a step record to the journal of its run. An earlier one of the same key counts no more.

    *epoch* is as in ``UpdateRun``. With *once*, an existing record of the key continues to count, and nothing
    is appended: ``Done(seq of the existing, existed=True)``. That looks through the journal of the run, so it
    is for rare events.

    Sent again after an unknown outcome, the record is appended again. That changes nothing but its ``seq``.

    Outcome: ``Done(seq)``, ``Fenced(run)``, ``Missing()`` (no such run).
    """

    step: Step
    epoch: int | None = None
    once: bool = False

    def __init__(self, step: Step, epoch: int | None = None, once: bool = False) -> None:
        if not (step.run_id and step.key):
            an_address(step)
        self.step = step
        self.epoch = epoch
        self.once = once


@frozen(slots=True, eq=False, repr=False)
class DropSteps(ByFields):
    """Delete the step records of *keys*. Missing ones do not matter. Their ``seq`` are not given again.
    *epoch* is as in ``UpdateRun``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=an_id("run id"))
    keys: tuple[str, ...] = field(validator=some_keys)
    epoch: int | None = None
