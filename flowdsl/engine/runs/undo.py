"""Undo (saga): take back what a failed or cancelled run has completed, newest first.

The rules
    1. Undo begins when all branches have ended. Its start is recorded together with the outcome that the run
       will have. After a kill in the undo, the undo continues, and the body does not execute again.
    2. Each undo is a durable call of its own (:mod:`flowdsl.engine.operations.undo`). Its attempts survive a
       crash.
    3. An undo that fails for good is reported once, and the others go on. It is tried again only if the run
       was retried and ends badly once more.
    4. A completed child run is undone by its own steps' undo, once: in the commit that ends its undo, the
       record of its parent becomes ``undone``. A child with nothing to undo stays as it is, and so does one
       that another run has called (a fork has the records of its origin's children). An unfinished child ends
       before its parent. If somebody still executes it, it is cancelled and awaited.
    5. No undo is passed over because its code is not loaded, for the record names the undo.
    6. A run undoes only what it has done itself: no result that another run has shared, and nothing that an
       undo has called. What is undone is no longer shared.
    7. In a child, an undo that has begun ends even if the run above cancels its task meanwhile.
"""

from functools import partial

from flowdsl.core.facts import ChildRun, FromMemo, Undoable, facts_of, generation_of
from flowdsl.core.journal import Journal
from flowdsl.core.kinds import CHILD, STEP, UNDO
from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.engine.definitions import known_undo
from flowdsl.engine.effects import Commit, Effects, Read, Unbroken
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution
from flowdsl.engine.interruption import closed
from flowdsl.engine.operations.step import Undos
from flowdsl.engine.operations.undo import undo_key, undo_step
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.record import commit, halted
from flowdsl.engine.registry import STEPS
from flowdsl.engine.runs.acquire import ended_with_parent, free_lease, take
from flowdsl.engine.settle import Settle
from flowdsl.engine.strays import Strays
from flowdsl.engine.user import Named, Value
from flowdsl.engine.waiting import Watch
from flowdsl.errors import StepNotFound, Stopped
from flowdsl.storage.base import DropSteps, Operation, UpdateRun

__all__ = ["end_abandoned", "end_children", "has_undo", "quieten", "undo_all"]

_UNFINISHED = (RunStatus.PENDING, RunStatus.RUNNING)
_LOOK = 0.5  # seconds between two looks at a child that somebody else executes


# ------------------------------------------------------------------------------------------ what there is


def _mark_of(step: Step) -> str | None:
    """The name of the undo that a completed step was recorded with; ``None`` for none."""
    if step.status is not StepStatus.COMPLETED or step.kind != STEP:
        return None
    facts = facts_of(step)
    if isinstance(facts, FromMemo):
        return None
    named = facts.undo if isinstance(facts, Undoable) else None
    defn = STEPS.get(step.path)
    if named is None and defn is not None:  # it may have got one since
        named = defn.undo_path
    return named or None


def _child_of(step: Step) -> str | None:
    if step.status is not StepStatus.COMPLETED or step.kind != CHILD:
        return None
    facts = facts_of(step)
    return facts.child if isinstance(facts, ChildRun) and not facts.stays else None


def has_undo(engine: Engine, run_id: str) -> bool:
    """Whether a run, or one that it called, has completed a step that can be undone, or is being undone."""
    record = engine.storage.get_run(run_id)
    if record is None:
        return False
    if record.undoing or any(_mark_of(step) is not None for step in engine.storage.list_steps(run_id)):
        return True
    children = engine.storage.list_runs(RunFilter(parent=run_id))
    return any(has_undo(engine, child.id) for child in children)


def _was_undone(engine: Engine, run_id: str) -> bool:
    """Whether undos of a run have ended, well or not."""
    done = {(UNDO, StepStatus.COMPLETED), (UNDO, StepStatus.FAILED), (CHILD, StepStatus.UNDONE)}
    return any((step.kind, step.status) in done for step in engine.storage.list_steps(run_id))


def _undo_of(state: Execution, step: Step, named: str) -> Value:
    """The undo of *step*: the one that the call gave, or what its name means now. ``None`` if not loaded."""
    given = Undos.of(state).get((state.id, step.key))
    if given is not None:
        return given
    defn = STEPS.get(step.path)
    current_one = None if defn is None else defn.undo
    if defn is not None and current_one is not None and defn.undo_path == named:
        return current_one
    if "<locals>" in named:  # the call that gave it was in a process that is gone
        return None
    return STEPS.get(named) or known_undo(named) or current_one


# --------------------------------------------------------------------------------------------- all of them


def quieten(state: Execution) -> Effects[None]:
    """Let nothing begin of what the body has left behind, and wait for what has begun. Undo must cover that
    too."""
    state.stop.close()
    yield Strays(state, threads=True)
    if state.branches.added:  # begun in this very moment
        yield Settle(state, failed=True)


def undo_all(state: Execution, begin: Named, *, goes_on: bool = False) -> Effects[bool]:
    """Undo what has to be undone, and say whether there was anything. *begin* is stored with the start,
    unless this *goes on* with the undo of a killed process. Errors of undos are logged. Errors of the storage
    are raised."""
    try:
        return (yield from _undo_all(state, begin, goes_on))
    finally:
        state.stop.undone()


def _undo_all(state: Execution, begin: Named, goes_on: bool) -> Effects[bool]:
    plan = yield Read(state.engine.storage, lambda: _plan(state, goes_on))
    if not plan:
        return goes_on and (yield Read(state.engine.storage, lambda: _was_undone(state.engine, state.id)))
    operations: list[Operation] = [UpdateRun(state.id, begin, epoch=state.epoch)]
    earlier = [undo_key(step) for step, _, _ in plan if step is not None]
    earlier = [key for key in earlier if not goes_on and state.journal.get(key) is not None]
    if earlier:  # from the last time that the run ended badly
        operations.append(DropSteps(state.id, tuple(earlier), state.epoch))
    yield from commit(state, None, *operations)
    for key in earlier:
        state.journal.drop(key, 0)
    state.stop.lift()
    for step, undo, child in plan:
        if child is not None:
            yield from _undo_child(state, child)
        elif step is not None:
            flow = undo_step(state, step, undo)
            error, _ = (yield from flow) if state.parent is None else (yield Unbroken(flow))
            if state.branches.added:  # its body has submitted these, and did not wait
                yield Settle(state, failed=False)
            if error is not None:
                raise error
    return True


def _settle(state: Execution) -> None:
    """Take into the journal what the storage has recorded of the run and this execution does not know. A
    record may have been committed in the very moment of the stop."""
    for step in state.engine.storage.list_steps(state.id):
        known = state.journal.get(step.key)
        if known is None or (known.status is StepStatus.PENDING and step.status is not known.status):
            state.writer.add(step)


def _unrecorded(state: Execution) -> list[Run]:
    """Completed children that their parent has not recorded yet, newest first."""
    storage = state.engine.storage
    known = {facts.child for step in state.journal if isinstance(facts := facts_of(step), ChildRun)}
    completed = storage.list_runs(RunFilter(parent=state.id, status=(RunStatus.COMPLETED,)))
    missing = [child for child in completed if child.id not in known]
    return sorted(missing, key=lambda child: -(child.finished_at or 0.0))


def _plan(state: Execution, goes_on: bool) -> list[tuple[Step | None, Value, str | None]]:
    """What is to be undone, newest first: steps with their undo, children by their id."""
    _settle(state)
    plan: list[tuple[Step | None, Value, str | None]] = [
        (None, None, child.id) for child in _unrecorded(state) if has_undo(state.engine, child.id)
    ]
    for step in list(state.journal)[::-1]:  # a journal is in the order of completion
        child = _child_of(step)
        if child is not None:
            record = state.engine.storage.get_run(child)
            if record is None or record.parent != state.id:  # a fork or another parent has only its outcome
                continue
            if has_undo(state.engine, child) or (goes_on and _was_undone(state.engine, child)):
                plan.append((step, None, child))
            continue
        named = _mark_of(step)
        if named is None:
            continue
        last = state.journal.get(undo_key(step))
        if goes_on and last is not None and last.status is StepStatus.FAILED:
            continue  # it failed for good, and was reported
        undo = _undo_of(state, step, named)
        if undo is None and "<" not in named:
            raise halted(
                state,
                StepNotFound(
                    f"step {step.path} of run {state.id} is to be undone by {named}, which is not loaded "
                    "here: import the module that defines it, and resume the run",
                    run=state.id,
                    step=named,
                ),
                None,
            )
        plan.append((step, undo, None))
    return plan


# ------------------------------------------------------------------------------------------------ children


def _undo_child(state: Execution, child_id: str) -> Effects[None]:
    """Undo a completed child by its own steps. If somebody has taken its undo up where a killed process left
    it, wait for that one first."""
    engine = state.engine
    record: Run | None = yield Read(engine.storage, lambda: engine.storage.get_run(child_id))
    if record is not None and record.undoing:
        record = yield from _left_by_others(state, record)
    if record is not None:
        yield from end_abandoned(engine, record, RunStatus(record.undoing or record.status), state)


def _end_undone(state: Execution, child: Run, end: UpdateRun) -> Effects[None]:
    """*end* the undo of a completed child. In the same commit its record here becomes ``undone``. If
    its caller died before it recorded the outcome, there is none. It gets one, so that a retry calls another
    child."""
    key = child.parent_key or ""
    step = state.journal.get(key)
    if step is None:
        step = Step(
            state.id, key, child.workflow, kind=CHILD, args=child.args_preview, concurrent=True,
            created_at=child.created_at, completed_at=child.finished_at,
        )  # fmt: skip
    else:
        facts = facts_of(step)
        if not isinstance(facts, ChildRun) or facts.child != child.id:  # the child of a later call
            yield Commit(state.engine, (end,))
            return
    undone = ChildRun(child.id, generation=generation_of(step) + 1).to_json()
    settled = step._replace(seq=0, status=StepStatus.UNDONE, extra=undone)
    state.writer.raise_floor((yield from commit(state, None, state.writer.put(settled), end)))
    state.writer.add(settled)


class GivenUp(dict[str, bool]):
    """Ids of the children that a body has stopped waiting for, and whether it has cancelled them. Others were
    interrupted, or have lost a race, and the body has gone on all the same. A run that goes on after a crash
    knows only its own, so it has one from the beginning."""


def end_given_up(state: Execution, *, all_of_them: bool = False) -> Effects[None]:
    """Cancel the children that the body has stopped waiting for, and undo them. *all_of_them*: the run needs
    no child any more, so those too that a dead process has left and that nobody asked for again."""
    known = state.known(GivenUp)
    if known is None or not (known or all_of_them):
        return
    engine = state.engine
    where = RunFilter(parent=state.id, status=_UNFINISHED)
    children: list[Run] = yield Read(engine.storage, lambda: engine.storage.list_runs(where, payloads=True))
    for child in sorted(children, key=lambda child: child.id):
        if (all_of_them or child.id in known) and is_interrupted(engine.storage, child):
            if not (known.get(child.id) or child.cancel_requested):  # else a retry waits for it once more
                yield Commit(engine, (UpdateRun(child.id, {"cancel_requested": engine.clock.now()}),))
            final = RunStatus(child.undoing or RunStatus.CANCELLED)
            yield from end_abandoned(engine, child, final, state)


def has_settled_child(state: Execution) -> Effects[bool]:
    """Whether a child whose failure is open was undone. To execute it again would do anew what was taken
    back."""
    engine = state.engine
    where = RunFilter(parent=state.id, status=(RunStatus.FAILED,))
    failed: list[Run] = yield Read(engine.storage, lambda: engine.storage.list_runs(where))
    return any(child.parent_key in state.failures.open and not child.retryable for child in failed)


def end_children(state: Execution, final: RunStatus) -> Effects[bool]:
    """End, as *final*, the children that a killed process has left unfinished: cancelled, or failed. Failed
    ones go on when their parent is retried. A child that somebody still executes is cancelled and awaited.
    Returns whether anything was undone."""
    engine = state.engine
    where = RunFilter(parent=state.id, status=_UNFINISHED, newest_first=True)
    children: list[Run] = yield Read(engine.storage, lambda: engine.storage.list_runs(where, payloads=True))
    undone = False
    for child in children:
        if is_interrupted(engine.storage, child):
            undone |= yield from end_abandoned(engine, child, RunStatus(child.undoing or final), state)
        else:
            undone |= yield from _end_executing(state, child, final)
    return undone


def _end_executing(state: Execution, child: Run, final: RunStatus) -> Effects[bool]:
    """Cancel a child that another process executes, or a thread that an interrupt has left behind here. Wait
    for its end: what it completes meanwhile has to be undone. Its process may die meanwhile."""
    engine = state.engine
    asked: Named = {"cancel_requested": engine.clock.now()}
    yield Commit(engine, (UpdateRun(child.id, asked, if_status=_UNFINISHED),))
    found = yield from _left_by_others(state, child)
    if found is None:
        return False
    if is_final(found.status):
        return found.status is not RunStatus.COMPLETED
    return (yield from end_abandoned(engine, found, RunStatus(found.undoing or final), state))


def _left_by_others(state: Execution, child: Run) -> Effects[Run | None]:
    """Wait until nobody executes *child*. ``None``: it was deleted."""
    engine, seen = state.engine, 0
    found: Run | None = child
    while found is not None and not (is_final(found.status) or is_interrupted(engine.storage, found)):
        if engine.closing:
            raise Stopped(closed(state.id))
        seen = yield Watch(engine, seen, _LOOK)
        found = yield Read(engine.storage, partial(engine.storage.get_run, child.id))
    return found


def end_abandoned(
    engine: Engine, record: Run, final: RunStatus, parent: Execution | None = None
) -> Effects[bool]:
    """Undo the steps of a run that nobody executes, and give it the status *final*. Its body does not
    execute. Returns whether anything was undone."""
    unfinished = record.status in _UNFINISHED
    facts: Named = {"undoing": str(final)}
    if unfinished and final is RunStatus.FAILED:
        error = ended_with_parent(record.id)
        facts["error"], _ = engine.payloads.pack_error(error, record.id, "", "run")
        facts["error_preview"] = f"FlowError: {error}"
    elif unfinished and final is RunStatus.CANCELLED:
        facts["error_preview"] = f"run {record.id} was cancelled"
    claimed = yield from take(engine, record, force=True, also=facts)
    if claimed is None:
        return False
    state: Execution | None = None
    undone = False
    try:
        steps = yield Read(engine.storage, lambda: engine.storage.list_steps(record.id))
        definition = None if parent is None else parent.definition
        state = Execution(engine, claimed, Journal(steps), definition, parent)
        state.stop.lift()
        engine.owned.begin(record.id, state)  # so that its lease is kept
        if unfinished:
            undone = yield from end_children(state, final)
        undone |= yield from undo_all(state, facts, goes_on=bool(record.undoing))
        changes = {
            "status": final, "undoing": "", "retryable": claimed.retryable and not undone,
            "floor": state.writer.floor,
            "finished_at": record.finished_at or engine.clock.now(),
        }  # fmt: skip
        end = UpdateRun(record.id, changes, epoch=claimed.epoch, release=True)
        if parent is not None and final is RunStatus.COMPLETED:
            yield from _end_undone(parent, record, end)
        else:
            yield Commit(engine, (end,))
    except GeneratorExit:  # nobody drives this any more
        raise
    except BaseException:  # whoever goes on with it need not wait for its lease
        yield from free_lease(engine, claimed)
        raise
    finally:
        engine.owned.release(record.id, claimed.epoch)
        if state is not None:
            engine.owned.end(record.id, state)
    if unfinished and final is RunStatus.CANCELLED:
        engine.hooks.fire("on_run_cancel", engine.make_handle(claimed))
    return undone
