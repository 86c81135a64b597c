"""Tags that are added to a run while it lives."""

from flowdsl.core.ownership import merged_tags
from flowdsl.engine.engine import Engine
from flowdsl.engine.runs.outcome import record_of
from flowdsl.engine.user import Named
from flowdsl.errors import RunNotFound
from flowdsl.storage.base import AddTags, Missing, UpdateRun, raise_unstorable

__all__ = ["tag"]


def tag(engine: Engine, run_id: str, tags: Named) -> None:
    """Add *tags* to a run."""
    for name, value in tags.items():
        if not isinstance(value, str):
            raise TypeError(f"a tag is text; got {name}={value!r}")
    if tags:
        (outcome,) = engine.commit(_addition(engine, run_id, tags))
        if isinstance(outcome, Missing):
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        raise_unstorable(outcome)


def _addition(engine: Engine, run_id: str, tags: dict[str, str]) -> AddTags | UpdateRun:
    if engine.storage.merges_tags:
        return AddTags(run_id, tags)
    return UpdateRun(run_id, {"tags": merged_tags(record_of(engine, run_id).tags, tags)})
