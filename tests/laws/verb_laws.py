"""The laws that hold for every program of ``grammar.VERBS``, wherever its process dies.

A program is executed once without faults and then with them, and compared (:class:`Case`):

* the result, the run store, the journal's shape and the log are those of the execution without faults;
* the :class:`World` saw nothing that must not be: see there;
* what had to be undone was undone, newest first; the callbacks of the end were called, and events heard;
* nothing is left over: no unfinished run, no owner, no pending step, nothing that executes;
* with everything recorded, a replay executes nothing and writes nothing.

The tests take their programs from ``VERBS.strategy``, which hypothesis can shrink. A campaign takes those of
``VERBS.of_seed(seed)``.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from bodies import Body, to_its_end
from grammar import BESIDE, Fault, Program, kinds_of
from processes import Process, fresh, threads_die
from support import Crash
from verb_programs import PLAYERS
from verb_world import Failed, Snapshot, World

from flowdsl import RunStatus, Runtime, StepStatus
from flowdsl.core.facts import ChildRun, Waiting, facts_of
from flowdsl.errors import RunCancelled, RunTimeout, StepOutcomeUnknown
from flowdsl.runtime import engine_of
from flowdsl.storage import Storage
from flowdsl.storage.base import UpdateRun
from flowdsl.testing import VirtualClock

__all__ = ["Case", "check_program"]


# Lives ------------------------------------------------------------------------------------------------------


def live(world: World, storage: Storage, fault: Fault | None = None) -> Any:
    """One life of a process that executes the program: the outcome; raises ``Crash`` if it died."""
    process = Process(storage, fault, world.clock)
    world.begin(process)
    try:
        with threads_die(), Runtime(process, clock=world.clock, lease=3600.0) as runtime:
            process.runtime = runtime
            try:
                _take_up_detached(world, runtime)
                outcome = to_its_end(_whole(world, runtime), world.is_async)
            except (Failed, RunTimeout):
                outcome = "failed"
            except RunCancelled:
                outcome = "cancelled"
            except StepOutcomeUnknown as error:
                outcome = error
            except BaseException:
                if not process.dead:
                    raise
            if process.dead:
                raise Crash
            if list(engine_of(runtime).owned):
                world.wrong.append(f"{list(engine_of(runtime).owned)} execute when everything has ended")
        return outcome
    finally:
        world.end(storage)


def _whole(world: World, runtime: Runtime) -> Any:
    """The program, and the detached runs that it does not wait for when it is cancelled."""
    player, process = PLAYERS[world.is_async], world.process
    main = player.main.options(timeout="3000 days") if world.ending == "timeout" else player.main

    def whole() -> Body:
        try:
            return (yield from player.wait(main()))
        finally:
            left = [] if process.dead else [run for run in runtime.runs() if run.started_by is not None]
            for run in left:
                yield from player.wait(run if world.is_async else run.exception())

    return player.made(whole)


def _take_up_detached(world: World, runtime: Runtime) -> None:
    """Continue the detached runs that a dead process left: nobody does it for them but a worker."""
    for run in world.before.runs.values():
        if run.started_by is not None and run.status is RunStatus.RUNNING:
            runtime.resume(run.id)


def to_the_end(world: World, storage: Storage, faults: Sequence[Fault] = (), pause: float = 1.0) -> Any:
    """Call the program as often as it takes, the first times with a fault; its outcome."""
    left = deque(faults)
    for _ in range(50):
        record = world.before.runs.get("main")
        if record is not None and record.status is RunStatus.FAILED:
            if world.ending != "retry":
                return "failed"
            world.reopen()
        try:
            outcome = live(world, storage, left.popleft() if left else None)
        except Crash:
            world.clock = VirtualClock(world.process.died_at + pause)
            continue
        if isinstance(outcome, StepOutcomeUnknown):
            _resolve(world, storage, outcome)
        elif not (outcome == "failed" and world.ending == "retry" and not world.open):
            return outcome
    raise AssertionError("it does not come to an end")


def _resolve(world: World, storage: Storage, error: StepOutcomeUnknown) -> None:
    """Somebody looked whether the step in doubt had been done, and says so."""
    assert error.run is not None
    assert error.step is not None
    slot = world.places.get((error.run, error.step))
    with Runtime(storage, clock=world.clock) as runtime:
        if slot is None:
            runtime.resolve(error.run, error.step, rerun=True)
        else:
            runtime.resolve(error.run, error.step, result=slot)
    world.before = Snapshot.of(storage)


# The laws ---------------------------------------------------------------------------------------------------


def _state(storage: Storage) -> Any:
    with Runtime(storage) as runtime:
        return runtime.query("main", "state")


def _sorted(value: Any) -> Any:
    """The run store without what is a matter of timing: branches interleave."""
    return {k: sorted(v, key=repr) if isinstance(v, list) else v for k, v in value.items()}


def _outcome(found: Any) -> Any:
    return found if isinstance(found, str) else (found[0], _sorted(found[1]))


_SHAPED = frozenset({"step", "child", "wait", "sleep", "schedule", "store", "undo"})
_SHAPED |= {"message", "ask", "reply", "race", "start"}


def _shape(world: World, storage: Storage) -> Any:
    """What is left in the storage when the program has ended."""
    left = world.before
    fails = world.ending not in ("return", "anew") or "lost_child" in kinds_of(world.program)
    steps = [step for step in left.steps.values() if step.kind in _SHAPED]
    # a branch may begin or not while its run fails
    failed = {run.id for run in left.runs.values() if fails or run.status is not RunStatus.COMPLETED}
    counted = [step for step in steps if not (step.run_id in failed and _in_a_branch(left, step))]
    # how far the loser of a race came is a matter of timing
    counted = [step for step in counted if left.runs[step.run_id].status is not RunStatus.CANCELLED]
    counted = [step for step in counted if not step.path.endswith(".waiter")]
    counted = [step for step in counted if not left.runs[step.run_id].workflow.endswith(".waiter")]
    logs = [step.extra for step in left.steps.values() if step.kind == "log"]
    shown = sorted((run.id, dict(run.tags), _items(storage, run.id)) for run in left.runs.values())
    return len(left.runs), sorted(logs), shown, Counter((s.kind, s.path, str(s.status)) for s in counted)


def _in_a_branch(left: Snapshot, step: Any) -> bool:
    """Whether *step* is called in a scheduled branch: by itself, or by a step there, even by one that has no
    record because its process died."""
    keys = {one.key: one for one in left.steps.values() if one.run_id == step.run_id}
    while "/scheduled" not in step.scope:
        caller = step.scope.partition("~")[0].partition("/")[0]
        if caller not in keys:
            return step.kind == "message" and step.scope != ""
        step = keys[caller]
    return True


def _items(storage: Storage, run_id: str) -> list[Any]:
    """What a run shows to others."""
    return [
        (item.channel, item.n, item.preview)
        for channel in storage.list_channels(run_id)
        for item in storage.list_items(run_id, channel)
    ]


_ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


def _tidy(world: World) -> None:
    """Nothing is left over."""
    left = world.before
    for run in left.runs.values():
        if run.status not in _ENDED or run.owner is not None or run.undoing:
            world.wrong.append(
                f"run {run.id} is left {run.status}, owner {run.owner}, undoing {run.undoing!r}"
            )
        if run.status is RunStatus.COMPLETED and run.error_preview:
            world.wrong.append(f"run {run.id} has completed, and {run.error_preview!r}")
    cut = world.ending in ("raise", "retry", "cancel", "timeout")
    for step in left.steps.values():
        if step.status is StepStatus.PENDING and not _was_cut(left, step, cut):
            world.wrong.append(f"{step.kind} {step.path}({step.args}) is left pending")


def _was_cut(left: Snapshot, step: Any, cut: bool) -> bool:
    """Whether a cancelled run, a run whose time is up, or a branch of a run that ends early, may leave *step* as
    it was. So may the loser of a race: if its process dies before it is told, it ends with its parent."""
    if "what never comes" in step.args or "what never comes" in step.path:
        return True
    run = left.runs[step.run_id]
    parent = left.runs.get(run.parent or "")
    if run.workflow.endswith(".waiter") and (cut or (parent and parent.status is RunStatus.FAILED)):
        return True
    return run.status is RunStatus.CANCELLED or (cut and "/scheduled" in step.scope)


def _undone(world: World, outcome: Any) -> None:
    """What had to be undone was, in order."""
    left = world.before
    undoing = (".undoable", ".plainly_undoable")
    for place, step in left.steps.items():
        if not step.path.endswith(undoing) or step.kind != "step":
            continue
        kept = step.status is StepStatus.COMPLETED
        slot = world.places.get(place)
        run = left.runs[step.run_id]
        if kept and (run.status is not RunStatus.COMPLETED or outcome in ("failed", "cancelled")):
            world.wrong.append(f"{slot} was not undone")
        if step.status is StepStatus.UNDONE and slot not in world.undone:
            world.wrong.append(f"{slot} counts as undone and was not")
    _undone_children(world)
    kinds = kinds_of(world.program)
    if outcome == "failed" and not kinds & (BESIDE | {"lost_child"}):
        order = list(dict.fromkeys(world.undone))
        if order != world.undoables[::-1]:
            world.wrong.append(f"{world.undoables} were completed, and undone in the order {order}")


def _undone_children(world: World) -> None:
    """A child that was undone after it had completed counts as undone in its parent, so a retry calls another."""
    left = world.before
    for run_id in {step.run_id for step in left.steps.values() if step.status is StepStatus.UNDONE}:
        run = left.runs[run_id]
        if run.parent is None or run.status is not RunStatus.COMPLETED:
            continue
        step = left.steps.get((run.parent, run.parent_key or ""))
        facts = None if step is None else facts_of(step)
        if step is None or (
            isinstance(facts, ChildRun) and facts.child == run_id and step.status is not StepStatus.UNDONE
        ):
            world.wrong.append(f"{run_id} was undone, and its parent does not know that")


def _hooked(world: World, outcome: Any) -> None:
    """Each end is announced by its own callback, at least once; each event is heard."""
    error = "RunTimeout" if world.ending == "timeout" else "Failed"
    expected = {"failed": [error], "cancelled": []}.get(
        outcome if isinstance(outcome, str) else "", ["complete"]
    )
    if world.ending == "retry" and outcome != "failed":
        expected = ["Failed", "complete"]
    if sorted(set(world.ends)) != expected and world.ending != "cancel":
        world.wrong.append(f"the callbacks of the end were {world.ends}")
    unheard = world.sent - set(world.heard)
    if unheard:
        world.wrong.append(f"nobody heard what was sent at {unheard}")


def _talked(world: World, storage: Storage) -> None:
    """However a run ended: its items are there once, its messages were taken once, its replies can be read, and of
    each start there is one run."""
    left = world.before
    taken: Counter[str] = Counter()
    for step in left.steps.values():
        facts = facts_of(step)
        if isinstance(facts, Waiting) and facts.id:
            taken[facts.id] += 1
        if isinstance(facts, ChildRun) and facts.child not in left.runs:
            world.wrong.append(f"{step.run_id} started {facts.child}, which is not there")
    world.wrong += [f"message {one} was taken {count} times" for one, count in taken.items() if count > 1]
    for run in left.runs.values():
        shown = [(channel, text) for channel, _, text in _items(storage, run.id)]
        if len(shown) != len(set(shown)):
            world.wrong.append(f"{run.id} published something twice: {shown}")
        answered = {
            step.args for step in left.steps.values() if step.kind == "reply" and step.run_id == run.id
        }
        asked = [one for one in storage.list_signals(run.id) if one.asked] if answered else []
        replies = [one for one in asked if one.reply is not None]
        if asked and len(answered) > len(replies):
            world.wrong.append(f"{run.id} answered {answered}, and {len(replies)} replies can be read")


def _judge(world: World, storage: Storage, outcome: Any) -> None:
    _tidy(world)
    _talked(world, storage)
    _undone(world, outcome)
    _hooked(world, outcome)
    assert not world.wrong, "\n".join(dict.fromkeys(world.wrong))


def _fixed_point(world: World, storage: Storage, outcome: Any) -> None:
    """With everything recorded and the run open again, nothing executes and no record is written."""
    storage.commit([UpdateRun("main", {"status": RunStatus.RUNNING, "result": None, "finished_at": None})])
    before, done = Snapshot.of(storage), world.done.copy()
    world.sent.clear()
    again = live(world, storage)
    tried = {slot for slot in world.done if world.done[slot] != done[slot]}
    _same("the outcome of a replay", _outcome(again), _outcome(outcome))
    if "try_" not in kinds_of(world.program):
        assert not tried, f"a replay executed {tried}"
    after = world.before
    changed = [step for place, step in after.steps.items() if before.steps.get(place) != step]
    assert not changed, f"a replay wrote {changed}"
    assert len(after.steps) == len(before.steps)


def _same(what: str, found: Any, expected: Any) -> None:
    assert found == expected, f"{what} is\n  {found!r}\nand without faults it was\n  {expected!r}"


class Case:
    """A program, executed without faults when this is made, to be compared with executions with faults.

    *kind* is the storage; *ending* one of ``ENDINGS``; with ``cancel``, the *cancel_at*-th body asks for it.
    ``commits`` and ``bodies`` say how many there were. Raises ``AssertionError``, as :meth:`check` does, that
    says what is wrong.
    """

    def __init__(
        self,
        program: Program,
        *,
        is_async: bool = False,
        kind: str = "memory",
        ending: str = "return",
        cancel_at: int = 0,
    ) -> None:
        self._world = partial(World, program, is_async=is_async, ending=ending, cancel_at=cancel_at)
        self.kind = kind
        self.ending = ending
        world = self._world()
        with fresh(kind) as storage:
            outcome = to_the_end(world, storage)
            self._expected = _outcome(outcome), _sorted(_state(storage)), _shape(world, storage)
            _judge(world, storage, outcome)
            self.commits, self.bodies = sum(world.commits), sum(world.bodies)
            if ending == "return":
                _fixed_point(world, storage, outcome)
                _judge(world, storage, outcome)

    def points(self) -> list[Fault]:
        """Every place where the first life can end."""
        commits = [Fault(at, after) for at in range(self.commits) for after in (False, True)]
        return commits + [Fault(at, body=True) for at in range(self.bodies)]

    def check(self, faults: Sequence[Fault], pause: float = 1.0) -> tuple[int, ...]:
        """Execute the program with *faults* and compare; how many commits each of its lives made.

        The first life ends at the first of *faults*, the second one at the second, and so on; then nothing
        happens any more. Between two lives *pause* seconds pass, on a virtual clock.
        """
        world = self._world()
        with fresh(self.kind) as storage:
            outcome = to_the_end(world, storage, faults, pause)
            _judge(world, storage, outcome)
            if self.ending != "cancel":  # how far it came by then is another matter
                found = _outcome(outcome), _sorted(_state(storage)), _shape(world, storage)
                for what, one, other in zip(
                    ("the outcome", "the run store", "what is left"), found, self._expected, strict=True
                ):
                    _same(what, one, other)
        return tuple(world.commits)


def check_program(
    program: Program, deaths: Iterable[Sequence[Fault]] | None = None, *, pause: float = 1.0, **how: Any
) -> int:
    """Check *program* (*how*: see :class:`Case`) without faults and with each of *deaths*, which are the
    faults of one execution each; by default, every place where a life can end, alone. How many executions
    that were. Raises ``AssertionError`` that says what is wrong and after which faults.
    """
    case = Case(program, **how)
    count = 1
    for faults in [[fault] for fault in case.points()] if deaths is None else deaths:
        try:
            case.check(faults, pause)
        except AssertionError as error:
            error.add_note(f"program {program!r}, {how}, {list(faults)}, pause {pause}")
            raise
        count += 1
    return count
