"""Making records: the ones that every backend derives from others, and steps at a third of the price.

A journal of ten thousand steps is ten thousand calls of ``Step(...)``, and a frozen class pays for each
field: its ``__init__`` has to go around its own ``__setattr__``. ``quick_step`` sets the fields while the
object is still of a subclass that is not frozen and has the same layout; then it becomes a ``Step``,
indistinguishable from any other.
"""

from collections.abc import Mapping
from operator import attrgetter

from attrs import fields

from flowdsl.core.records import Run, Step, Tags
from flowdsl.core.status import StepStatus

__all__ = ["as_inserted", "numbered", "own_tags", "quick_step", "stub"]


class _Draft(Step):
    """A ``Step`` whose fields can be set. It has no slots of its own, so its class may be changed to
    ``Step``."""

    __slots__ = ()
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __init__(
        self,
        run_id: str,
        key: str,
        path: str,
        seq: int,
        kind: str,
        scope: str,
        occurrence: int,
        ordinal: int,
        status: StepStatus,
        attempts: int,
        args: str,
        defaults: str,
        payload: bytes | None,
        preview: str,
        created_at: float,
        completed_at: float | None,
        concurrent: bool,
        draws: int,
        version: str,
        extra: str,
    ) -> None:
        self.run_id = run_id  # type: ignore[misc]
        self.key = key  # type: ignore[misc]
        self.path = path  # type: ignore[misc]
        self.seq = seq  # type: ignore[misc]
        self.kind = kind  # type: ignore[misc]
        self.scope = scope  # type: ignore[misc]
        self.occurrence = occurrence  # type: ignore[misc]
        self.ordinal = ordinal  # type: ignore[misc]
        self.status = status  # type: ignore[misc]
        self.attempts = attempts  # type: ignore[misc]
        self.args = args  # type: ignore[misc]
        self.defaults = defaults  # type: ignore[misc]
        self.payload = payload  # type: ignore[misc]
        self.preview = preview  # type: ignore[misc]
        self.created_at = created_at  # type: ignore[misc]
        self.completed_at = completed_at  # type: ignore[misc]
        self.concurrent = concurrent  # type: ignore[misc]
        self.draws = draws  # type: ignore[misc]
        self.version = version  # type: ignore[misc]
        self.extra = extra  # type: ignore[misc]
        self.__class__ = Step  # type: ignore[assignment]


quick_step: type[Step] = _Draft
"""Call it with all fields of a ``Step``, by position; it returns a ``Step``."""


def numbered(seq: int, s: Step) -> Step:
    """The step *s* under the number *seq*."""
    return quick_step(
        s.run_id,
        s.key,
        s.path,
        seq,
        s.kind,
        s.scope,
        s.occurrence,
        s.ordinal,
        s.status,
        s.attempts,
        s.args,
        s.defaults,
        s.payload,
        s.preview,
        s.created_at,
        s.completed_at,
        s.concurrent,
        s.draws,
        s.version,
        s.extra,
    )


_RUN_FIELDS = [field.name for field in fields(Run)]
_run_values = attrgetter(*_RUN_FIELDS)
_ID, _NUMBER, _EPOCH, _LEASE, _TAGS, _PRUNED = map(
    _RUN_FIELDS.index, ("id", "number", "epoch", "lease_until", "tags", "pruned")
)


def as_inserted(run: Run, run_id: str, number: int | None, epoch: int, lease_until: float) -> Run:
    """*run* with what its insertion decides. (``attrs.evolve`` takes twice as long.)"""
    values = list(_run_values(run))
    values[_ID], values[_NUMBER], values[_EPOCH], values[_LEASE] = run_id, number, epoch, lease_until
    values[_TAGS], values[_PRUNED] = own_tags(run.tags), False
    return Run(*values)


def own_tags(tags: Tags) -> Tags:
    """A copy that nobody else can change; no tags are always ``()``."""
    return (dict(tags) if isinstance(tags, Mapping) else tuple(tags)) if tags else ()


def stub(run: Run) -> Run:
    """What stays of a run that is deleted with a tombstone: its identity and its times."""
    return Run(
        id=run.id,
        workflow=run.workflow,
        key=run.key,
        status=run.status,
        created_at=run.created_at,
        finished_at=run.finished_at,
        epoch=run.epoch,
        version=run.version,
        pruned=True,
    )
