"""Operations on a run itself.

:mod:`flowdsl.core.ownership` decides what they mean for its owner, epoch and status.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen, setters

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus
from flowdsl.storage.operations.checks import an_id, settable

__all__ = ["AddTags", "ClaimNext", "ClaimRun", "DeleteRun", "OpenRun", "Restart", "UpdateRun"]


@define(slots=True, on_setattr=setters.NO_OP, eq=False, repr=False)  # every run makes one: it is not frozen
class OpenRun(ByFields):
    """Insert a run owned by ``run.owner`` with a lease of *lease* seconds, or find the one to continue.

    Its epoch is 1, or greater than that of every run deleted before. So the owner of a deleted run never fits
    its successor.

    With ``run.number`` ``None`` the id is given. If a run of this id exists (a pruned one included), the
    outcome is ``Found((it,))``. Otherwise the run is inserted.

    With ``run.dedup``, a run of the same workflow, queue and ``dedup`` may be pending or running. Then the
    outcome is ``Found((it,))``, whatever the id.

    Otherwise the run is numbered, and ``run.id`` is only a prefix. Unless *fresh*, runs of ``run.key`` are
    looked for that can be continued. They are ``pending`` or ``running`` with an owner not in *skip_owners*
    (no owner counts as not in it), or ``failed`` and ``retryable``. If there are any, the outcome is
    ``Found`` with the oldest of them, at most sixteen, by number. Otherwise the run is inserted with the next
    number of its key (1 + the highest) and the id ``f"{prefix}-{number}"``. If that id is taken, the next
    number is tried. With *number*, the run gets that one. If a run of its key has it or a higher one, or the
    id is taken, nothing happens: ``Missing()``.

    Outcome: ``Opened(run as inserted)``, ``Found(runs)`` or ``Missing()``. The same ``run.owner`` may send it
    again with the same ``nonce`` after an unknown outcome. If the insertion had happened, the outcome is
    ``Opened`` again.
    """

    run: Run = field(validator=an_id("run", "id"))
    lease: float
    fresh: bool = False
    skip_owners: tuple[str, ...] = ()
    nonce: str = ""
    number: int | None = None


@frozen(slots=True, eq=False, repr=False)
class ClaimRun(ByFields):
    """Take a run over: compare-and-swap on its *epoch*.

    Takes effect if all of these hold: the run exists and is not pruned; it has exactly this epoch; it has one
    of the statuses *if_status*, if given; and *force* is set, or it has no owner, or its lease has expired on
    the storage's clock. Then owner := *owner*, epoch += 1, status := ``running``, ``finished_at`` := None,
    lease := now + *lease*, and *changes* are applied as by ``UpdateRun``.

    Outcome: ``Opened(run after the claim)``, ``Fenced(run as it is)`` or ``Missing()`` (pruned ones
    included). The same *owner* may send it again with the same *nonce*. If the claim had happened, the
    outcome is ``Opened`` again.
    """

    run_id: str = field(validator=an_id("run id"))
    epoch: int
    owner: str = field(validator=an_id("owner"))
    lease: float
    force: bool = False
    changes: Mapping[str, Any] = field(factory=dict, validator=settable)
    nonce: str = ""
    if_status: Sequence[RunStatus] = ()


@frozen(slots=True, eq=False, repr=False)
class ClaimNext(ByFields):
    """Take the next runs that *owner* may execute, at most *limit*, each with a lease of *lease* seconds.

    Interrupted runs come first, oldest first: they are ``running``, no other run has called them, and they
    have no owner or a lease that has passed. Then come ``pending`` runs without an owner that are due, in the
    order and within the limits of :mod:`flowdsl.core.queues`. A run without a queue counts as one of the
    queue ``default``. Only runs of *workflows* (pairs of path and version known) are taken, and none of a
    version that is not known. With *queues*, pending runs are taken only from those, and interrupted ones
    only from those or from none. *after* is ``(priority, created_at, id)`` of a pending run: the search
    begins after it. That is a low-water mark, for a storage in which passing over dead rows costs time. Runs
    whose ids are in *skip* are not taken.

    A taken run is ``running``. If it was pending, ``claimed_at`` is set. If it had an owner, ``recoveries``
    += 1. Outcome: ``Claimed(runs as they now stand)``. If the same *owner* sends it again with the same
    *nonce*, the outcome is the same.
    """

    owner: str
    lease: float
    workflows: tuple[tuple[str, str], ...]
    queues: tuple[str, ...] | None = None
    limit: int = 1
    after: tuple[int, float, str] | None = None
    nonce: str = ""
    skip: tuple[str, ...] = ()


@define(slots=True, on_setattr=setters.NO_OP, eq=False, repr=False)  # every run makes one: it is not frozen
class UpdateRun(ByFields):
    """Set fields of a run. *changes* maps names of :class:`~flowdsl.core.records.Run` fields (those in
    ``RUN_FIELDS``) to values.

    With *epoch*, the run must have it, otherwise ``Fenced``. With *if_status*, the run must have one of
    these, otherwise ``Fenced`` too. But if both are given, and all of *changes* are in place already, the
    same owner has sent it again: ``Done(existed=True)``. With *lease*, the lease is renewed to now + *lease*
    seconds. With *release*, the owner is dropped and the lease ends now.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=an_id("run id"))
    changes: Mapping[str, Any] = field(factory=dict, validator=settable)
    epoch: int | None = None
    if_status: tuple[RunStatus, ...] = ()
    lease: float | None = None
    release: bool = False


@frozen(slots=True, eq=False, repr=False)
class AddTags(ByFields):
    """Add *tags*, values by name, to those of a run, by ``merged_tags`` of :mod:`flowdsl.core.ownership`.

    The tags are read in the transaction that writes them, so two processes may add tags at the same time. A
    storage is sent this only if its ``merges_tags`` is true.

    Outcome: ``Done()`` or ``Missing()`` (pruned ones included).
    """

    run_id: str = field(validator=an_id("run id"))
    tags: Mapping[str, str]


@frozen(slots=True, eq=False, repr=False)
class Restart(ByFields):
    """Begin the next generation of a run: ``generation`` += 1, epoch += 1, and *changes* are applied as by
    ``UpdateRun``. The journal is deleted. So are the messages that were taken, unless their sender asked for
    a reply. Unread messages, published items, tags and the owner stay. The epoch refuses what the former
    generation still sends.

    *epoch* is as in ``UpdateRun``. The run may be in the generation that *changes* name already, and nobody
    has claimed it since. Then it was sent again, and nothing happens: ``Done(existed=True)``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=an_id("run id"))
    epoch: int | None
    changes: Mapping[str, Any] = field(factory=dict, validator=settable)


@frozen(slots=True, eq=False, repr=False)
class DeleteRun(ByFields):
    """Delete a run with its steps, messages and items. A missing one is no error. Outcome: ``Done()``.

    With *tombstone*, a run whose id was given leaves a stub (``pruned``: no args, no result, no error bytes),
    so that its id is never used again. Readers do not show it. Only ``OpenRun`` finds it. Another deletion
    with *tombstone* keeps the stub; one without deletes it too. *seal* is that of the stub.
    """

    run_id: str = field(validator=an_id("run id"))
    tombstone: bool = False
    seal: bytes = b""
