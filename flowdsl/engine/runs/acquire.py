"""Ownership: get a run to execute it, or get its outcome.

The rules
    If two processes have one run, only one can record. A run is taken over only if its owner is provably
    gone, has let go, or has let its lease run out. In doubt, the lease is waited out. Each take-over raises
    the epoch, and the storage refuses writes under an older one. So an owner that was wrongly taken for dead
    does no harm.

The implementation
    :func:`acquire` is a loop around two compare-and-swap operations (``OpenRun``, ``ClaimRun``).
    :mod:`flowdsl.engine.runs.keeper` keeps the runs that are ours.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from attrs import frozen

from flowdsl.core.records import Run, changed
from flowdsl.core.status import RunStatus
from flowdsl.engine.effects import Commit, Effects, Read
from flowdsl.engine.engine import Engine
from flowdsl.engine.notebooks import how_to_name
from flowdsl.engine.owner import Liveness, liveness
from flowdsl.engine.user import Named, Value
from flowdsl.engine.waiting import Watch
from flowdsl.errors import FlowError, RunConflict, RunFinished, StorageError
from flowdsl.storage.base import (
    ClaimRun,
    Found,
    Opened,
    OpenRun,
    Operation,
    Outcome,
    UpdateRun,
    raise_unstorable,
)

__all__ = ["Acquired", "acquire", "claim", "ended_with_parent", "free_lease", "open_now", "take"]

logger = logging.getLogger("flowdsl")

_LOOK = 0.5  # longest time between two looks at a run that somebody else executes, in seconds

_FAILED = RunStatus.FAILED
_ENDED = (RunStatus.COMPLETED, RunStatus.CANCELLED)


class Acquired(NamedTuple):
    """The outcome of :func:`acquire`: a run that is ours (``owned``), new or continued, or one that has
    ended."""

    run: Run
    owned: bool
    continued: bool = False
    action: str = "continue"  # its name in the audit, if it is continued


_acquired: Callable[[tuple[Run, bool, bool, str]], Acquired] = partial(tuple.__new__, Acquired)
"""Made from all its fields. Much quicker, and each run makes one."""


@frozen(slots=True, eq=False, repr=False)
class _Caller:
    """Who wants a run that exists. The fields are the arguments of :func:`acquire`."""

    engine: Engine
    wanted: Run
    ancestors: tuple[str, ...]
    again: bool
    counted: bool

    def watch(self, run_id: str, seen: int, seconds: float = _LOOK) -> Effects[int]:
        """Wait until the storage may have changed since version *seen*. Returns the version then."""
        version: int = yield Watch(self.engine, seen, seconds, self.counted)
        self.engine.require_open(run_id)
        return version


def acquire(
    engine: Engine,
    wanted: Run,
    *,
    fresh: bool = False,
    ancestors: tuple[str, ...] = (),
    again: bool = True,
    counted: bool = False,
) -> Effects[Acquired]:
    """Open the run *wanted*, continue an interrupted or failed one, or wait for whoever executes it.

    For a run whose id is given, *wanted* has ``number`` ``None``. *ancestors* are the runs that wait for this
    call. Without *again*, a failed child of this very call is not continued: its failure is the outcome of
    the call, and a killed parent had not recorded it yet. *counted*: a virtual clock has counted the caller.
    """
    try:
        skip = [] if wanted.number is None else [engine.owned.owner]
        while True:
            if wanted.owner != engine.owned.owner:
                wanted = changed(wanted, {"owner": engine.owned.owner})
            mark = engine.owned.taking(wanted)
            try:
                opening = OpenRun(wanted, engine.lease, fresh, tuple(skip), engine.nonce())
                (outcome,) = yield Commit(engine, (opening,))
                if isinstance(outcome, Opened):
                    engine.owned.reserve(outcome.run.id, outcome.run.epoch)  # ours, although it has not begun
                    return _acquired((outcome.run, True, False, "continue"))
            finally:
                engine.owned.took(mark)
            raise_unstorable(outcome)
            assert isinstance(outcome, Found)
            run = outcome.runs[0]
            caller = _Caller(engine, wanted, ancestors, again, counted)
            if wanted.number is None:
                acquired = yield from _by_id(caller, run)
            else:
                acquired = yield from _by_key(caller, run, skip)
            if acquired is not None:
                return acquired
    except GeneratorExit:
        raise
    except BaseException as error:  # an interrupt too may come after a commit
        if isinstance(error, StorageError) or not isinstance(error, Exception):
            # A commit may have made runs ours that we do not know of. They count as abandoned now.
            engine.owned.renew()
        raise


def open_now(
    engine: Engine, wanted: Run, *, fresh: bool = False, ancestors: tuple[str, ...] = (), again: bool = True
) -> Acquired | None:
    """As :func:`acquire`, without waiting. ``None`` if somebody executes the run and it has to be joined."""
    flow = acquire(engine, wanted, fresh=fresh, ancestors=ancestors, again=again)
    try:
        effect = flow.send(None)
        while not isinstance(effect, Watch):
            try:
                answer = effect.sync()
            except BaseException as error:  # for the generator that asked
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        acquired: Acquired = stop.value
        return acquired
    flow.close()
    return None


def _by_key(caller: _Caller, run: Run, skip: list[str]) -> Effects[Acquired | None]:
    """Continue *run*, the oldest of its key. ``None``: open once more, because somebody else was quicker, or
    executes it and stands in *skip* now."""
    engine = caller.engine
    if run.owner is None or run.status is _FAILED:
        claimed = yield from take(engine, run, limit=_limit(caller.wanted))
    else:
        alive = liveness(run.owner, run.id)
        if alive is Liveness.UNKNOWN:
            alive = yield from _wait_out(caller, run)
        if alive is Liveness.ALIVE and run.lease_until > engine.storage.now():
            skip.append(run.owner)
            return None
        claimed = yield from take(engine, run, force=alive is Liveness.DEAD)
    return None if claimed is None else Acquired(claimed, True, True)


def _wait_out(caller: _Caller, run: Run) -> Effects[Liveness]:
    """Watch an owner of whom nothing is known. It renews its lease (alive), lets go, or the lease expires
    (unknown: claim)."""
    engine = caller.engine
    seen = 0
    while True:
        left = run.lease_until - engine.storage.now()
        if left <= 0:
            return Liveness.UNKNOWN
        seen = yield from caller.watch(run.id, seen, min(left, _LOOK))
        now = yield _read(engine, run.id)
        if now is None or now.epoch != run.epoch or now.status is not run.status or now.owner is None:
            return Liveness.UNKNOWN
        if now.lease_until > run.lease_until:
            return Liveness.ALIVE


def _read(engine: Engine, run_id: str) -> Read:
    return Read(engine.storage, lambda: engine.storage.get_run(run_id))


def _by_id(caller: _Caller, found: Run) -> Effects[Acquired | None]:
    """Continue the run *found*, or wait for its outcome. ``None``: it was deleted meanwhile, so open once
    more."""
    engine, wanted = caller.engine, caller.wanted
    run: Run | None = found
    joined = False
    seen = 0
    while run is not None:
        _same(run, wanted)
        by_itself = not caller.again and _failed_by_itself(run, wanted)
        # if it was taken back, it executes again with its parent: somebody asked for that explicitly
        settled = not (run.retryable or _is_child_of(run, wanted))
        known = joined or settled or by_itself
        if run.status in _ENDED or (run.status is _FAILED and known):
            return Acquired(run, False)
        if run.id in caller.ancestors:
            raise RunConflict(
                f"run {run.id!r} was called from inside itself and would wait for itself for ever; give "
                "the inner call another id",
                run=run.id,
            )
        claimed = None
        if run.owner is None or run.status is _FAILED:
            claimed = yield from take(engine, run, limit=_limit(wanted))
        else:
            dead = liveness(run.owner, run.id) is Liveness.DEAD
            if dead or run.lease_until <= engine.storage.now():
                claimed = yield from take(engine, run, force=dead)
            else:
                joined = True
                seen = yield from caller.watch(run.id, seen)
        if claimed is not None:
            return Acquired(claimed, True, True)
        run = yield _read(engine, wanted.id)
    return None


def ended_with_parent(run_id: str) -> FlowError:
    """The error of an unfinished child that ended because its parent failed."""
    return FlowError(f"run {run_id} was unfinished when its parent failed", run=run_id)


def _is_child_of(run: Run, wanted: Run) -> bool:
    """Whether *run* is the child of the very call that wants it."""
    return run.parent is not None and (run.parent, run.parent_key) == (wanted.parent, wanted.parent_key)


def _failed_by_itself(run: Run, wanted: Run) -> bool:
    """Whether *run* is the child of the very call that wants it, and failed in its own body."""
    return _is_child_of(run, wanted) and run.error_preview != f"FlowError: {ended_with_parent(run.id)}"


def _same(run: Run, wanted: Run) -> None:
    """Raise unless *run* is the one that was asked for."""
    if run.workflow != wanted.workflow:
        raise RunConflict(
            f"run id {run.id!r} belongs to workflow {run.workflow}, not {wanted.workflow}; give one of "
            f"them another id{how_to_name(run.workflow)}",
            run=run.id,
        )
    if run.key != wanted.key:
        raise RunConflict(
            f"run id {run.id!r} was started with other arguments:\n    - {run.args_preview}\n    + "
            f"{wanted.args_preview}\n"
            f"  One id is one run, for ever. Give this call another id, or the arguments of that run.",
            run=run.id,
        )
    if run.pruned:
        raise RunFinished(
            f"run {run.id!r} has ended ({run.status}) and was pruned; its id is never used again and its "
            "result is gone",
            run=run.id,
        )


def _limit(wanted: Run) -> float | None:
    """How long a run of a call may take, in seconds."""
    return None if wanted.deadline is None else wanted.deadline - wanted.created_at


def claim(
    engine: Engine,
    run: Run,
    *,
    force: bool = False,
    limit: float | None = None,
    also: Mapping[str, Value] | None = None,
) -> Effects[Run | None]:
    """Take *run* over. Returns the run as claimed, or ``None`` if somebody else was quicker. *limit*: seconds
    that a failed run gets anew. *also*: fields to set with it."""
    changes: Named = dict(also or {})
    if run.status is RunStatus.RUNNING and run.owner is not None:
        changes["recoveries"] = run.recoveries + 1
    if run.status is _FAILED:
        changes["cancel_requested"] = None  # the request came too late for the last execution
    if run.status is _FAILED and run.deadline is not None:
        length = run.deadline - run.created_at if limit is None else limit
        changes["deadline"] = engine.clock.now() + max(length, 0.0)
    # The owner may have ended it since we looked, and an end raises no epoch.
    seen = (run.status,)
    operation = ClaimRun(
        run.id, run.epoch, engine.owned.owner, engine.lease, force, changes, engine.nonce(), seen
    )
    (outcome,) = yield Commit(engine, (operation,))
    return outcome.run if isinstance(outcome, Opened) else None


def take(engine: Engine, run: Run, **how: Value) -> Effects[Run | None]:
    """As :func:`claim`, for a run that will execute here. It counts as ours from now on."""
    mark = engine.owned.taking(run)
    try:
        claimed = yield from claim(engine, run, **how)
        if claimed is not None:
            engine.owned.reserve(claimed.id, claimed.epoch)
    finally:
        engine.owned.took(mark)
    return claimed


def free_lease(engine: Engine, run: Run, operations: Sequence[Operation] = ()) -> Effects[Outcome | None]:
    """Let others have *run*, after *operations*. Returns the outcome, or ``None`` if that failed, which
    is logged."""
    outcome: Outcome
    try:
        *_, outcome = yield Commit(
            engine, (*operations, UpdateRun(run.id, {}, epoch=run.epoch, release=True))
        )
    except BaseException as error:  # what counts is how the run itself ended
        logger.warning(
            "the lease of run %s could not be released: %s", run.id, str(error),
            extra={"run": run.id, "step": None},
        )  # fmt: skip
        engine.owned.renew()  # so that this process, too, counts the run as abandoned
        if not isinstance(error, Exception):
            raise
        return None
    return outcome
