"""Tags that are added to a run while it lives."""

from collections.abc import Mapping

from flowdsl.core.records import Tags
from flowdsl.engine.engine import Engine
from flowdsl.engine.runs.outcome import record_of
from flowdsl.engine.user import Named
from flowdsl.errors import RunNotFound
from flowdsl.storage.base import Missing, UpdateRun, raise_unstorable

__all__ = ["tag"]


def _merged(old: Tags, new: dict[str, str]) -> dict[str, str]:
    """The *old* tags with the *new* ones. A tag that was only a name counts as one without a value."""
    before = dict(old) if isinstance(old, Mapping) else dict.fromkeys(old, "")
    return before | new


def tag(engine: Engine, run_id: str, tags: Named) -> None:
    """Add *tags* to a run."""
    for name, value in tags.items():
        if not isinstance(value, str):
            raise TypeError(f"a tag is text; got {name}={value!r}")
    if tags:
        record = record_of(engine, run_id)
        (outcome,) = engine.commit(UpdateRun(run_id, {"tags": _merged(record.tags, tags)}))
        if isinstance(outcome, Missing):
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        raise_unstorable(outcome)
