"""``check_replay``: prove that a workflow can be continued from wherever it dies."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, stat
from typing import Any, ParamSpec, TypeVar, overload

from attrs import frozen

from flowdsl.decorators import workflow as make_workflow
from flowdsl.storage import MemoryStorage
from flowdsl.testing.replay.causes import ANYTHING, ARGUMENT, MEMORY, ORDER, UNRECORDED, noticing
from flowdsl.testing.replay.execution import live, unfinished
from flowdsl.testing.replay.observed import Commit, Life, Plan
from flowdsl.testing.replay.report import difference, lossy, story
from flowdsl.testing.replay.surroundings import CHANGES, Memory
from flowdsl.testing.replay.values import copy_of
from flowdsl.testing.seam import Fakes, fakes_by_path

__all__ = ["ReplayMismatch", "ReplayReport", "check_replay", "replay_test"]


P = ParamSpec("P")
R = TypeVar("R")


class ReplayMismatch(AssertionError):
    """A workflow does not replay. The message is the story; ``crash`` is the number of the commit after
    which it died.
    """

    def __init__(self, message: str, crash: int = 0) -> None:
        super().__init__(message)
        self.crash = crash


@frozen(slots=True)
class ReplayReport:
    """What :func:`check_replay` did: the *value* or *error* of the workflow, the number of *crashes* tried
    and of *executions*.
    """

    value: Any
    error: BaseException | None
    crashes: int
    executions: int


class _Check:
    """One check, with what it has found out so far."""

    def __init__(self, name: str, plan: Plan, crashes: int, watch: Sequence[Any]) -> None:
        self._name = name
        self._plan = plan
        self._depth = crashes
        self._watch = watch
        self._tried = 0
        self._executions = 0

    def run(self) -> ReplayReport:
        """Execute to the end, then from every crash on."""
        plan = self._plan
        first = self._live(MemoryStorage(), (), ())
        if first.error is not None and not first.commits:
            raise first.error  # it was called wrongly, and no run began
        plan.memory.remember_end()
        self._effects_outside(first)
        self._values(first)
        try:
            self._crashes(first, (), first.commits, self._depth)
        finally:
            plan.memory.restore(plan.memory.end)
        return ReplayReport(first.value, first.error, self._tried, self._executions)

    def _live(self, storage: MemoryStorage, before: tuple[Commit, ...], changes: tuple[str, ...]) -> Life:
        self._executions += 1
        return live(self._plan, storage, before, changes)

    def _crashes(
        self, first: Life, before: tuple[Commit, ...], commits: Sequence[Commit], depth: int
    ) -> None:
        for number in range(1, len(commits) + 1):
            point = (*before, *commits[:number])
            for changes in ((), tuple(CHANGES)):
                storage = unfinished(point)
                if storage is None:
                    break
                again = self._compare(first, storage, point, changes)
                if depth > 1 and not changes:
                    self._crashes(first, point, again.commits, depth - 1)
            else:
                self._tried += 1

    def _compare(
        self, first: Life, storage: MemoryStorage, point: tuple[Commit, ...], changes: tuple[str, ...]
    ) -> Life:
        seen = [_look(one) for one in self._watch]
        again = self._live(storage, point, changes)
        crash = f"it died after commit {len(point)} (of {len(first.commits)} without a crash)"
        what = difference(first, again)
        if what:
            raise ReplayMismatch(
                story(self._name, first, again, crash, self._causes(first, point, changes), what), len(point)
            )
        if not again.really_ran:
            for one, earlier in zip(self._watch, seen, strict=True):
                if _look(one) != earlier:
                    what = (
                        "an effect outside of every step happened again, although no step was executed:\n"
                        f"    {earlier!r} → {_look(one)!r}\n    Put it into a step."
                    )
                    raise ReplayMismatch(story(self._name, first, again, crash, {}, what), len(point))
        return again

    def _causes(
        self, first: Life, point: tuple[Commit, ...], changes: tuple[str, ...]
    ) -> dict[str, list[str]]:
        """What makes a difference by itself, and where it stands in the code."""

        def differs(*changes: str, at: tuple[Commit, ...] = point) -> bool:
            storage = unfinished(at)
            return storage is not None and bool(difference(first, self._live(storage, at, changes)))

        if any(step.concurrent for step in first.puts.values()) and differs(ORDER, at=point[:1]):
            return {ORDER: []}
        noticed: list[tuple[str, str]] = []
        storage = unfinished(point)
        if storage is not None:
            with noticing(noticed):
                self._live(storage, point, ())
        if changes:
            found = [change for change in changes if change != ORDER and differs(change)]
        elif not differs(MEMORY):
            found = [MEMORY]
        else:
            noticed += [(ARGUMENT, change) for change in self._plan.changed]
            noticed += [(UNRECORDED, call) for call in self._plan.unrecorded]
            found = [cause for cause, _ in noticed]
        return {cause: [place for c, place in noticed if c == cause] for cause in found or [ANYTHING]}

    def _effects_outside(self, first: Life) -> None:
        if first.outside:
            raise ReplayMismatch(
                f"{self._name} has an effect outside of every step:\n    {first.outside[0]}\n"
                "  It happens again each time the run is continued. Put it into a step, which is executed "
                "once; outside_effects=True allows it."
            )

    def _values(self, first: Life) -> None:
        what = lossy(first)
        if what:
            raise ReplayMismatch(
                f"{self._name} loses something in storage: {what}.\n"
                "  The workflow sees what the record gives. Return a value that the codec keeps, or take "
                "another codec; lossy=True allows it."
            )


class _Lenient(_Check):
    """A check that allows some of what others refuse."""

    def __init__(self, *args: Any, lossy: bool, outside_effects: bool) -> None:
        super().__init__(*args)
        self._lossy = lossy
        self._outside = outside_effects

    def _effects_outside(self, first: Life) -> None:
        if not self._outside:
            super()._effects_outside(first)

    def _values(self, first: Life) -> None:
        if not self._lossy:
            super()._values(first)


def check_replay(
    workflow: Any,
    *args: Any,
    fakes: Fakes | None = None,
    crashes: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ReplayReport:
    """Execute *workflow* with these arguments to its end, then from a crash at every commit on, and compare.

    Everything happens on storages in memory and virtual clocks. Each crash is tried twice: continued in the
    same process, and as in another one, half a year later, with another environment, other orders, and
    module globals and caches as they were before. Results, calls, records that nobody asks for, and the run
    store must be those of the execution without a crash. Writes to that store are commits too.

    The body of each step is executed once; afterwards what it returned or raised is played back, so steps
    may be slow, random, or real. (Those that make durable calls of their own are executed again, and those
    of mode ``try``.)

    Parameters: *fakes*, steps (or their names) → functions to execute in place of their bodies; *crashes*,
    ``2`` for a second crash at every commit of every recovery; *signals*, names and payloads of what the
    workflow waits for, sent as it starts; *watch*, lists, files (``Path``) or functions that show effects
    which must not happen outside of steps; *lossy* and *outside_effects* allow results that storage changes,
    and files, sockets and processes opened by the workflow's body; *options* of the
    :class:`~flowdsl.Runtime`, such as ``codec``.

    Returns a :class:`ReplayReport`. Raises :class:`ReplayMismatch`, an ``AssertionError``, which tells what
    ran before the earliest crash that makes a difference, what was replayed, where it went differently, on
    which line, what it depends on, and what to do; ``TypeError`` for arguments that do not fit, and
    :class:`~flowdsl.errors.StepNotFound` for fakes of steps that do not exist. Works under ``@given``.

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
    return _check(
        workflow, inspect.unwrap(fn), args, kwargs, fakes=fakes, crashes=crashes, signals=signals,
        watch=watch, lossy=lossy, outside_effects=outside_effects, options=options,
    )  # fmt: skip


def _check(
    workflow: Any,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    fakes: Fakes | None = None,
    crashes: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
) -> ReplayReport:
    """As :func:`check_replay`; *fn* is the function that the user wrote."""
    if isinstance(crashes, bool) or not isinstance(crashes, int) or crashes < 1:
        raise ValueError(f"crashes is how often it dies in one execution, 1 or more; got {crashes!r}")
    watched = list(watch)
    plan = Plan(
        call=lambda: workflow(*copy_of(args), **copy_of(kwargs)),
        fn=fn,
        is_async=inspect.iscoroutinefunction(workflow.__wrapped__),
        fakes=fakes_by_path(fakes),
        options=dict(options or {}),
        signals=list(signals),
        memory=Memory(fn, tuple(watched)),
    )
    name = f"{fn.__name__}({', '.join([*map(repr, args), *(f'{k}={v!r}' for k, v in kwargs.items())])})"
    check = _Lenient(name, plan, crashes, watched, lossy=lossy, outside_effects=outside_effects)
    return check.run()


def _look(one: Any) -> Any:
    """How something that is watched stands now."""
    if isinstance(one, str | PathLike):
        try:
            found = stat(one)
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns
    return copy_of(one() if callable(one) else one)


@overload
def replay_test(fn: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def replay_test(
    *,
    fakes: Fakes | None = None,
    crashes: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def replay_test(fn: Any = None, /, **options: Any) -> Any:
    """Decorate a test, sync or async: its body is executed as a workflow, and :func:`check_replay` checks it.

    Steps that it calls are steps of that run, workflows are its children, and its assertions have to hold
    in each execution. *options* are those of :func:`check_replay`. Fixtures and arguments, those of
    ``@given`` (written above it) too, are passed through.

    >>> from flowdsl import step
    >>> @step
    ... def charge(amount):
    ...     return f"paid {amount}"
    >>> @replay_test
    ... def test_charging():
    ...     assert charge(5) == "paid 5"
    >>> test_charging()
    """
    if fn is None:
        return functools.partial(_replay_test, options=options)
    return _replay_test(fn, options)


def _replay_test(fn: Any, options: dict[str, Any]) -> Any:
    if not callable(fn):
        raise TypeError(
            f"@replay_test decorates a test; its options have names, such as crashes=2; got {fn!r}"
        )
    name = f"{fn.__module__}.{fn.__qualname__}"

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def atest(*args: Any, **kwargs: Any) -> None:
            @functools.wraps(fn)
            async def body() -> None:
                await fn(*args, **kwargs)

            _check_body(body, name, options)

        return atest

    @functools.wraps(fn)
    def test(*args: Any, **kwargs: Any) -> None:
        @functools.wraps(fn)
        def body() -> None:
            fn(*args, **kwargs)

        _check_body(body, name, options)

    return test


def _check_body(body: Any, name: str, options: dict[str, Any]) -> None:
    """Check *body* as a workflow; what it raises without any crash is raised as itself."""
    source = body.__wrapped__
    del body.__wrapped__  # its parameters are bound already
    made = make_workflow(name=name)(body)
    report = _check(made, source, (), {}, **options)
    if report.error is not None:
        raise report.error
