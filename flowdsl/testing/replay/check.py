"""``check_replay``: prove that a workflow can be continued from wherever it dies.

The rules
    The workflow is executed once, to its end. Then it is continued from crashes. *Here*, in the same process,
    everything that it keeps in memory is still there. *Elsewhere*, in other processes, nothing of that is
    there, and every clock, the environment, the host, hashes and orders differ. Each continued execution must
    make the same calls and come to the same end.

    If something differs, its cause is looked for by changing one thing at a time.
"""

import inspect
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, overload

from attrs import frozen

from flowdsl.core.status import StepStatus
from flowdsl.storage import MemoryStorage
from flowdsl.testing.replay import causes as cause
from flowdsl.testing.replay.elsewhere import Elsewhere, Unreachable
from flowdsl.testing.replay.execution import live, unfinished
from flowdsl.testing.replay.observed import Generations, Life, Plan, Sight
from flowdsl.testing.replay.report import difference, lossy, story
from flowdsl.testing.replay.search import Causes, causes_elsewhere, causes_here, is_concurrent
from flowdsl.testing.replay.sets import uses_sets
from flowdsl.testing.replay.surroundings import CHANGES, IMPORTED
from flowdsl.testing.replay.transactions import Database
from flowdsl.testing.replay.values import state_of
from flowdsl.testing.seam import Fakes, fakes_by_path

__all__ = ["ReplayMismatch", "ReplayReport", "check", "check_replay"]

P = ParamSpec("P")

logger = logging.getLogger("flowdsl")

_USUAL = 25  # crashes that are tried by default
_PROCESSES = 2  # processes in which a workflow is continued
_PROCESSES_FOR_SETS = 8  # the same, if the order of a set may matter: two of them may agree by chance


class ReplayMismatch(AssertionError):
    """A workflow does not replay. The message is the whole story. ``crash`` is the number of the commit after
    which it died.
    """

    def __init__(self, message: str, crash: int = 0) -> None:
        super().__init__(message)
        self.crash = crash


@frozen(slots=True)
class ReplayReport:
    """What :func:`check_replay` did: the *value* or *error* of the workflow, and how many *crashes* and
    *executions* there were. ``only_here`` says why it was not continued in other processes, if it was not.
    Then clocks, settings and orders were not checked.
    """

    value: Any
    error: BaseException | None
    crashes: int
    executions: int
    only_here: str = ""


Raised = type[BaseException] | tuple[type[BaseException], ...]


class _Check:
    """One check, and what it has found so far."""

    def __init__(
        self, name: str, plan: Plan, fn: Any, watch: Sequence[Any], crashes: int | None, deaths: int
    ) -> None:
        self._name = name
        self._plan = plan
        self._fn = fn
        self._watch = watch
        self._crashes = crashes
        self._deaths = deaths
        self._tried = 0
        self._executions = 0
        self._elsewhere: Elsewhere | None = None
        self._why_not = ""

    def run(self, raises: Raised, allow_lossy: bool, allow_effects: bool, allow_reads: bool) -> ReplayReport:
        """Execute to the end, then from every crash on."""
        try:
            self._elsewhere = Elsewhere(self._plan, self._fn.__module__)
        except Exception as error:  # the user's classes may raise anything
            self._not_taken(error)
        self._executions += 1
        first = live(self._plan, MemoryStorage(), ())
        self._outcome(first, raises)
        if not allow_effects:
            self._effects(first)
        if not (allow_effects or allow_reads):
            self._reads(first)
        self._lost(first)
        if not allow_lossy:
            self._values(first)
        self._here(first, first.commits, (), self._deaths)
        self._orders(first)
        self._in_other_processes(first, [c for c in CHANGES if c != cause.OUTSIDE or not allow_reads])
        return ReplayReport(first.value, first.error, self._tried, self._executions, self._why_not)

    # The first execution -----------------------------------------------------------------------------------

    def _outcome(self, first: Life, raises: Raised) -> None:
        error = first.error
        if error is None:
            if raises:
                raise AssertionError(f"{self._name} returned {first.value!r}; it was expected to raise")
            return
        if not (raises and isinstance(error, raises)):
            if first.commits:
                error.add_note(f"{self._name} raises this without any crash. If it is to, say raises=….")
            raise error

    def _effects(self, first: Life) -> None:
        if first.effects:
            raise ReplayMismatch(
                f"{self._name} has an effect outside of every step:\n    {first.effects[0]}\n"
                "  It happens again each time the run is continued. Put it into a step, which is executed "
                "once; outside_effects=True allows it."
            )

    def _reads(self, first: Life) -> None:
        if first.reads:
            raise ReplayMismatch(
                f"{self._name} reads what is outside, not in a step:\n    {first.reads[0]}\n"
                f"  it depends on: {cause.OUTSIDE}\n"
                "  It may be something else when the run is continued. Read it in a step, whose result is "
                "recorded; outside_effects=True allows it."
            )

    def _lost(self, first: Life) -> None:
        if first.lost:
            steps = ", ".join(dict.fromkeys(first.lost))
            raise ReplayMismatch(
                f"{self._name} does not replay.\n  it depends on: {cause.THREADS} ({steps})\n"
                f"  They are not recorded, and executed again each time the run is continued. "
                f"{cause.ADVICE[cause.THREADS]}"
            )

    def _values(self, first: Life) -> None:
        what = lossy(first)
        if what:
            raise ReplayMismatch(
                f"{self._name} loses something in storage: {what}.\n"
                "  The workflow sees what the record gives. Return a value that the codec keeps, or take "
                "another codec; lossy=True allows it."
            )

    # Continued here ----------------------------------------------------------------------------------------

    def _points(self, commits: int) -> list[int]:
        """The commits after which it dies: all, or some spread over them. The first ones are included."""
        wanted = self._crashes
        if wanted is None or commits <= wanted:
            return list(range(1, commits + 1))
        begin = range(1, 1 + wanted // 4)
        rest = range(len(begin) + 1, commits + 1)
        return sorted([*begin, *random.Random(commits).sample(rest, wanted - len(begin))])

    def _here(self, first: Life, commits: Sequence[Any], before: tuple[Any, ...], deaths: int) -> None:
        for number in self._points(len(commits)):
            point = (*before, *commits[:number])
            seen = [state_of(one) for one in self._watch]
            again = self._continue(point, ())
            if again is None:
                return
            self._tried += 1
            self._compare(first, again)
            if not again.really_ran:
                self._watched(first, again, seen)
            if deaths > 1:
                self._here(first, again.commits, point, deaths - 1)

    def _continue(self, point: Sequence[Any], changes: tuple[str, ...]) -> Life | None:
        storage = unfinished(point)
        if storage is None:
            return None
        self._executions += 1
        return live(self._plan, storage, point, changes)

    def _compare(self, first: Life, again: Life) -> None:
        what = difference(first, again)
        if what:
            sight = Sight(what, len(again.before), again.changes, False, tuple(again.calls))
            found: Causes = {cause.ORDER: ()}
            if not again.changes:
                found = causes_here(self._plan, self._elsewhere, self._continue, first, again.before)
            raise ReplayMismatch(story(self._name, first, sight, found), sight.point)

    def _watched(self, first: Life, again: Life, seen: Sequence[Any]) -> None:
        for one, earlier in zip(self._watch, seen, strict=True):
            if state_of(one) != earlier:
                what = (
                    "an effect outside of every step happened again, although no step was executed:\n"
                    f"    {earlier!r} → {state_of(one)!r}\n    Put it into a step."
                )
                sight = Sight(what, len(again.before), (), False, tuple(again.calls))
                raise ReplayMismatch(story(self._name, first, sight, {}), sight.point)

    def _orders(self, first: Life) -> None:
        """If steps are concurrent, let them end in another order."""
        if not is_concurrent(first):
            return
        for number in dict.fromkeys((1, len(first.commits) // 2)):
            again = self._continue(first.commits[:number], (cause.ORDER,)) if number else None
            if again is not None:
                self._compare(first, again)

    # Continued elsewhere -----------------------------------------------------------------------------------

    def _in_other_processes(self, first: Life, changes: Sequence[str]) -> None:
        if self._elsewhere is None:
            return
        begin, end = _all_recorded(first, self._plan), len(first.commits) - 1
        points = [begin + (end - begin) * quarters // 4 for quarters in (0, 4, 2, 1, 0, 3, 0, 4)]
        has_sets = uses_sets(self._fn, self._plan)
        count = _PROCESSES_FOR_SETS if has_sets else _PROCESSES
        try:
            self._elsewhere.has_happened(first)
            for number in self._elsewhere.numbers(count):
                self._executions += 1
                imported = tuple(IMPORTED) if number == 1 else ()
                sight = self._elsewhere.sight(number, points[number], tuple(changes), imported=imported)
                if sight.what:
                    found = causes_elsewhere(self._elsewhere, number, sight, uses_sets=has_sets)
                    raise ReplayMismatch(story(self._name, first, sight, found), sight.point)
        except Unreachable as error:
            self._not_taken(error)

    def _not_taken(self, error: Exception) -> None:
        self._elsewhere = None
        self._why_not = str(error)
        logger.info("check_replay continued %s in this process only: %s", self._name, str(error))


def _all_recorded(first: Life, plan: Plan) -> int:
    """The commit after which every step that makes durable calls of its own is recorded. Elsewhere no body
    executes that could make them."""
    left = set(plan.inner)
    generations = Generations()
    for number, commit in enumerate(first.commits, 1):
        if not left:
            return max(number - 1, 1)
        records = generations.records(commit.operations)
        left -= {place for place, step in records if step.status is not StepStatus.PENDING}
    return len(first.commits) - 1


@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, fakes: Fakes | None, **more: Any
) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, crashes: int | Literal["all"], **more: Any
) -> ReplayReport: ...
@overload
def check_replay(workflow: Callable[..., Any], /, *args: Any, deaths: int, **more: Any) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, signals: Iterable[tuple[str, Any]], **more: Any
) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, watch: Iterable[Any], **more: Any
) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, raises: Raised, **more: Any
) -> ReplayReport: ...
@overload
def check_replay(workflow: Callable[..., Any], /, *args: Any, lossy: bool, **more: Any) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, outside_effects: bool, **more: Any
) -> ReplayReport: ...
@overload
def check_replay(
    workflow: Callable[..., Any], /, *args: Any, options: Mapping[str, Any] | None, **more: Any
) -> ReplayReport: ...
@overload
def check_replay(workflow: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> ReplayReport: ...
def check_replay(  # type: ignore[misc]  # a parameter may be named like an option
    workflow: Any,
    *args: Any,
    fakes: Fakes | None = None,
    crashes: int | Literal["all"] = _USUAL,
    deaths: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    raises: Raised = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ReplayReport:
    """Execute *workflow* with these arguments to its end, then continue it from crashes, and compare.

    It dies after each of its commits (if there are many, after some). It is continued in the same process,
    and a few times in others, as if on another machine half a year later. Results, calls, records that nobody
    asks for, and the run store must be those of the execution without a crash. The body of each step executes
    once. Afterwards its result or error is played back. (Bodies that make durable calls of their own, and
    those of mode ``try``, execute again in this process.)

    Parameters:

    * *fakes*: steps (or their names) → functions to execute in place of their bodies.
    * *crashes*: how many crashes are tried, by default 25; ``"all"`` for one at every commit.
    * *deaths*: how often it dies in one execution; ``2`` for a second crash in each recovery.
    * *signals*: names and payloads of the messages that the workflow waits for, sent as it starts.
    * *watch*: lists, files (``Path``) or functions that show effects which must not happen outside of steps.
    * *raises*: exceptions with which the workflow is expected to fail.
    * *lossy*, *outside_effects*: allow results that storage changes; files, sockets, processes in its body.
    * *options*: of the :class:`~flowdsl.Runtime`, such as ``codec``. ``storage`` is the database to which
      transactional steps are connected, by default an empty SQLite file. No records go there.

    Returns a :class:`ReplayReport`. Raises :class:`ReplayMismatch`, whose text is the whole story. Raises
    what the workflow raises without any crash, unless *raises* allows it. Raises ``TypeError`` for arguments
    that do not fit, and :class:`~flowdsl.errors.StepNotFound` for fakes of steps that do not exist.

    >>> from flowdsl import step, workflow
    >>> @step
    ... def charge(amount):
    ...     return f"paid {amount}"
    >>> @workflow
    ... def checkout(amount):
    ...     return [charge(amount), charge(amount)]
    >>> check_replay(checkout, 5).crashes
    3
    """
    if not hasattr(workflow, "start"):
        raise TypeError(f"check_replay() takes a function decorated with @workflow; got {workflow!r}")
    fn = getattr(workflow.__wrapped__, "__func__", workflow.__wrapped__)
    return check(
        workflow, inspect.unwrap(fn), args, kwargs, fakes=fakes, crashes=crashes, deaths=deaths,
        signals=signals, watch=watch, raises=raises, lossy=lossy, outside_effects=outside_effects,
        options=options,
    )  # fmt: skip


def check(
    workflow: Any,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    fakes: Fakes | None = None,
    crashes: int | Literal["all"] = _USUAL,
    deaths: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    raises: Raised = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
    reads: bool = False,
) -> ReplayReport:
    """As :func:`check_replay`. *fn* is the function that the user wrote. *reads* allows it to look at
    files."""
    for name, number in (("crashes", crashes), ("deaths", deaths)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            if name == "crashes" and number == "all":
                continue
            raise ValueError(
                f"{name} is a number, 1 or more{' or all' * (name == 'crashes')}; got {number!r}"
            )
    more = dict(options or {})
    plan = Plan(
        workflow,
        args,
        kwargs,
        inspect.iscoroutinefunction(workflow.__wrapped__),
        fakes_by_path(fakes),
        more,
        list(signals),
        database=Database(more.pop("storage", None)),
    )
    given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
    name = f"{getattr(fn, '__name__', repr(fn))}({given})"
    wanted = None if crashes == "all" else int(crashes)
    try:
        return _Check(name, plan, fn, list(watch), wanted, deaths).run(raises, lossy, outside_effects, reads)
    finally:
        plan.database.close()
