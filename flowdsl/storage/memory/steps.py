"""Appending and dropping step records, in memory."""

from flowdsl.storage.memory.tables import RunData, Tables, copy_of
from flowdsl.storage.operations import DropSteps, PutStep
from flowdsl.storage.outcomes import Done, Fenced, Missing, Outcome

__all__ = ["drop_steps", "put_step"]

_DONE = Done()
_MISSING = Missing()


def put_step(tables: Tables, op: PutStep) -> Outcome:
    """Append a step record. This is what most commits are, so :meth:`Tables.owned` is written out."""
    step = op.step
    data = tables.runs.get(step.run_id)
    if data is None:
        return _MISSING
    if op.epoch is not None and op.epoch != data.run.epoch:
        return Fenced(copy_of(data.run))
    if op.once and step.key in data.steps:
        return Done(data.steps[step.key][0], existed=True)
    return Done(data.append(step))


def drop_steps(tables: Tables, op: DropSteps) -> Outcome:
    """Delete step records."""
    data = tables.owned(op.run_id, op.epoch)
    if not isinstance(data, RunData):
        return data
    for key in op.keys:
        data.steps.pop(key, None)
    return _DONE
