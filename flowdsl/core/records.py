"""The rows that a storage keeps. Payloads are sealed bytes (see :mod:`flowdsl.codecs.envelope`); previews are
text.

Times are seconds since the Unix epoch, UTC. ``lease_until`` is on the storage's clock, all others on the
runtime's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from attrs import NOTHING, field, fields, frozen

from flowdsl.core.status import RunStatus, StepStatus

__all__ = ["Memo", "Run", "RunFilter", "Signal", "Step", "Tags", "fields_of"]

Tags = Mapping[str, str] | tuple[str, ...]


@frozen(slots=True)
class Run:
    """One run.

    * ``id``: unique; ``workflow``: the path of its code; ``key``: identity of path and arguments, 40 hex
      digits.
    * ``number``: 1, 2, … among the runs of one key; ``None`` for a run whose id was given.
    * ``args``: sealed arguments; ``args_preview``: the same, readable.
    * ``owner``, ``epoch``, ``lease_until``: who may write, under which fencing number, until when.
      ``owner`` is ``None`` for a run that nobody executes.
    * ``open_failures``: keys of the steps that a retry executes again; ``retryable``: whether calling again
      continues.
    * ``undoing``: undo has begun and with which final status it will end (``""``: it has not).
    * ``floor``: records with a smaller ``seq`` never diverge (set by undo and forget).
    * ``recoveries``: how often a dead owner was replaced; ``pruned``: only the stub of a deleted run, see
      ``DeleteRun``.
    """

    id: str
    workflow: str
    key: str
    number: int | None = None
    status: RunStatus = RunStatus.PENDING
    args: bytes = b""
    args_preview: str = ""
    tags: Tags = ()
    created_at: float = 0.0
    finished_at: float | None = None
    deadline: float | None = None
    owner: str | None = None
    epoch: int = 0
    lease_until: float = 0.0
    result: bytes | None = None
    result_preview: str = ""
    error: bytes | None = None
    error_preview: str = ""
    open_failures: tuple[str, ...] = ()
    retryable: bool = True
    undoing: str = ""
    cancel_requested: float | None = None
    parent: str | None = None
    parent_key: str | None = None
    forked_from: str | None = None
    floor: int = 0
    recoveries: int = 0
    version: str = ""
    pruned: bool = False


class Step(NamedTuple):
    """One record of a run's journal, addressed by ``(run_id, key)``. Each call makes one,
    so it is a named tuple: a changed copy is ``step._replace(…)``.

    * ``seq``: the order in which records were stored; the storage assigns it, growing over all runs;
      replacing a record gives it a new one. ``0`` means: not stored yet.
    * ``kind``: ``step``, ``sleep``, ``wait``, ``store``, ``child``, ``value``, ``schedule``, ``undo``,
      ``log``, ``audit``.
    * ``payload``: the sealed result (``completed``) or exception (``failed``); ``preview``: the same,
      readable.
    * ``concurrent``: it overlapped another durable call, so its ordinal says nothing.
    * ``defaults``: what is recorded beside the key, as ``name=digest …``: the arguments left out because they
      equal their default, and under ``@`` the source of the step (see :mod:`flowdsl.core.source`).
    * ``draws``: how many ``uuid4``/``rng`` draws its scope had made when it was recorded.
    * ``extra``: small JSON text for what only one kind needs (a wake-up time, a child's id, …).
    """

    run_id: str
    key: str
    path: str
    seq: int = 0
    kind: str = "step"
    scope: str = ""
    occurrence: int = 0
    ordinal: int = 0
    status: StepStatus = StepStatus.COMPLETED
    attempts: int = 1
    args: str = ""
    defaults: str = ""
    payload: bytes | None = None
    preview: str = ""
    created_at: float = 0.0
    completed_at: float | None = None
    concurrent: bool = False
    draws: int = 0
    version: str = ""
    extra: str = ""


@frozen(slots=True)
class Signal:
    """One signal sent to a run. ``key`` makes sending idempotent; ``taken_by`` is the key of the wait that
    took it."""

    id: str
    run_id: str
    name: str
    payload: bytes = b""
    preview: str = ""
    sender: str | None = None
    key: str | None = None
    created_at: float = 0.0
    seq: int = 0
    taken_by: str | None = None


@frozen(slots=True)
class Memo:
    """A result shared by all runs: of step ``key`` (first call, no scope), until ``expires_at`` (``None``:
    for ever). ``defaults`` as in :class:`Step`."""

    key: str
    path: str
    payload: bytes
    preview: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    defaults: str = ""


@frozen(slots=True)
class RunFilter:
    """What ``list_runs`` gives back. All conditions hold together; an empty one is no condition.

    * ``status``: any of these; ``workflow``: exactly this path; ``key``: exactly this key; ``parent``:
      children of it.
    * ``tags``: names that must all be there, or a mapping whose items must all be there.
    * ``created_after`` is inclusive, ``created_before`` exclusive, both in seconds.
    * ``after``: continue behind the run of this id, in the order asked for; ``limit``: at most so many.
    """

    status: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    key: str | None = None
    parent: str | None = None
    tags: Tags = field(default=())
    created_after: float | None = None
    created_before: float | None = None
    limit: int | None = None
    after: str | None = None
    newest_first: bool = True


def fields_of(row: type[Any]) -> dict[str, Any]:
    """The fields of a class of rows, in order, each with its default (``attrs.NOTHING``: it has none).

    >>> fields_of(Memo)["expires_at"] is None
    True
    """
    if issubclass(row, Step):
        return {name: Step._field_defaults.get(name, NOTHING) for name in Step._fields}
    return {one.name: one.default for one in fields(row)}
