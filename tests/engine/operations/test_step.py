"""Steps in a run: recorded, replayed, numbered, nested."""

import asyncio

import pytest
from support import Effects, Flavour, Mortal, Recorder, unreachable

from flowdsl import Retry, RunStatus, Runtime, StepStatus, step, workflow


class Stop(BaseException):
    """Ends a body the way a signal does."""


def test_a_step_runs_once_and_a_replay_returns_its_record(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """When an interrupted run continues, a recorded step returns its result and does not execute."""
    crash = [True]

    @flavour.step
    def charge(order):
        return {"order": order, "nth": effects("charge", order)}

    @flavour.workflow
    def checkout(order):
        first = yield charge(order)
        if crash.pop() if crash else False:
            raise KeyboardInterrupt
        second = yield charge(order + 1)
        return first, second

    with pytest.raises(KeyboardInterrupt):
        flavour.call(checkout, 1)
    assert flavour.call(checkout, 1) == ({"order": 1, "nth": 1}, {"order": 2, "nth": 1})
    assert effects == [("charge", 1), ("charge", 2)]
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_outside_a_run_a_step_is_a_plain_call(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Outside a run a step is a plain call, and nothing is recorded."""

    @flavour.step
    def double(x):
        effects(x)
        return 2 * x

    assert [flavour.call(double, 2), flavour.call(double, 2)] == [4, 4]
    assert effects == [2, 2]
    assert runtime.runs() == []


def test_outside_a_run_even_what_has_no_key_may_be_passed():
    """Outside a run a step accepts arguments without an encoding."""

    @step
    def same(x):
        return x

    thing = object()
    assert same(thing) is thing


def test_identical_calls_are_numbered_by_occurrence(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A loop that calls ``roll()`` three times has three steps, and a replay gives each its own result."""

    @flavour.step
    def roll():
        return effects("roll")

    stop = [True]

    @flavour.workflow
    def game():
        rolls = []
        for _ in range(3):
            rolls.append((yield roll()))
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        rolls.append((yield roll()))
        return rolls

    with pytest.raises(KeyboardInterrupt):
        flavour.call(game)
    assert flavour.call(game) == [1, 2, 3, 4]
    (run,) = runtime.runs()
    assert [(s.occurrence, s.ordinal) for s in run.steps()] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert len({s.key for s in run.steps()}) == 4


def test_occurrence_counts_equal_calls_and_ordinal_all_calls_of_a_path(runtime: Runtime):
    """``occurrence`` is the n-th call with the same arguments, ``ordinal`` the n-th of the path."""

    @step
    def f(x):
        return x

    @step
    def g(x):
        return x

    @workflow
    def w():
        return [f(1), f(2), g(1), f(1), g(1)]

    w()
    (run,) = runtime.runs()
    found = [(s.path.rpartition(".")[2], s.args, s.occurrence, s.ordinal) for s in run.steps()]
    assert found == [
        ("f", "x=1", 0, 0),
        ("f", "x=2", 0, 1),
        ("g", "x=1", 0, 0),
        ("f", "x=1", 1, 2),
        ("g", "x=1", 1, 1),
    ]


def test_key_predicts_the_key_of_the_first_call(runtime: Runtime, flavour: Flavour):
    """``s.key(*a)`` is the key of the first such call in a run."""

    @flavour.step(version=3)
    def f(x, y=2):
        return x

    @flavour.workflow
    def w():
        yield f(1)
        yield f(1, y=3)

    flavour.call(w)
    (run,) = runtime.runs()
    assert [s.key for s in run.steps()] == [f.key(1), f.key(1, 3)]
    assert len(f.key(1)) == 40
    assert f.key(1) == f.key(1, 2) == f.key(x=1, y=2)
    explained = f.explain_key(1)
    assert f.key(1) in explained
    assert "x=1" in explained


def test_the_result_is_durable_before_the_caller_sees_it(storage, clock):
    """A result is stored before the caller sees it, and a save that fails shows no result."""
    seen = []

    @step
    def f():
        return 1

    @workflow
    def w():
        seen.append(f())

    with (
        Runtime(Mortal(storage, 1, error=unreachable), clock=clock),
        pytest.raises(Exception, match="took it away"),
    ):
        w()
    assert seen == []


def test_a_run_is_recorded_before_its_body_executes(runtime: Runtime, flavour: Flavour):
    """When the body of a run begins, the run can be found in the storage."""

    @flavour.workflow
    def w():
        (run,) = runtime.runs()
        return run.status
        yield

    assert flavour.call(w) is RunStatus.RUNNING


def test_a_custom_base_exception_leaves_the_run_resumable(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A user's exception that derives only from ``BaseException`` leaves the run resumable."""
    stop = [True]

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        value = yield f()
        if stop.pop() if stop else False:
            raise Stop
        return value

    with pytest.raises(Stop):
        flavour.call(w)
    (run,) = runtime.runs()
    assert (run.status, run.interrupted) == (RunStatus.RUNNING, True)
    assert flavour.call(w) == 1


def test_equal_values_in_other_order_are_the_same_call(runtime: Runtime):
    """Dicts and sets with equal content in another order are the same call."""

    @step
    def f(x):
        return x

    assert f.key({"a": 1, "b": 2}) == f.key({"b": 2, "a": 1})
    assert f.key({1, 2, 3}) == f.key({3, 2, 1})
    seven = [1, 1.0, True, "1", b"1", (1,), [1]]
    assert len({f.key(value) for value in seven}) == 7


def test_ignored_parameters_are_neither_counted_nor_stored(runtime: Runtime):
    """An ignored parameter is neither in the key nor in the record."""

    @step(ignore=("client",))
    def fetch(url, client=None):
        return url

    @workflow
    def w():
        return fetch("u", client=object())

    assert w() == "u"
    (run,) = runtime.runs()
    (record,) = run.steps()
    assert record.key == fetch.key("u") == fetch.key("u", client=object())
    assert "client" not in record.args


def test_key_callable_replaces_the_arguments(runtime: Runtime):
    """With ``key=`` only its result identifies the call."""

    @step(key=lambda order: order["id"])
    def ship(order):
        return order

    assert ship.key({"id": 1, "x": 2}) == ship.key({"id": 1, "x": 3}) != ship.key({"id": 2, "x": 2})


def test_the_version_is_part_of_the_key():
    """Another version is another key."""

    @step(name="versioned", version=1)
    def f(x): ...

    assert f.key(1) != f.options(version=2).key(1)


def test_identity_is_taken_at_the_call_not_at_the_await(runtime: Runtime, effects: Effects):
    """A call is identified by its arguments at the call, and not at the await."""

    @step
    async def total(items):
        return sum(items)

    @workflow
    async def w():
        items = [1, 2]
        pending = total(items)
        expected = total.key([1, 2])
        items.append(3)
        await pending
        return expected

    expected = asyncio.run(w())
    (run,) = runtime.runs()
    assert [s.key for s in run.steps()] == [expected]
    assert run.steps()[0].args == "items=[1, 2]"


def test_occurrence_is_taken_at_the_call(runtime: Runtime, effects: Effects):
    """Two equal calls that are awaited in reverse order keep the occurrences of their calls."""

    @step
    async def f(x):
        return effects("f")

    @workflow
    async def w():
        first, second = f(1), f(1)
        b = await second
        a = await first
        return a, b

    assert asyncio.run(w()) == (2, 1)
    (run,) = runtime.runs()
    assert [(s.occurrence, s.result()) for s in run.steps()] == [(1, 1), (0, 2)]


def test_what_a_body_does_to_its_arguments_is_not_seen_in_the_record(runtime: Runtime):
    """The recorded arguments are those of the call, although the body changes them."""

    @step
    def pop(items):
        return items.pop()

    @workflow
    def w():
        return pop([1, 2])

    assert w() == 2
    (run,) = runtime.runs()
    assert run.steps()[0].args == "items=[1, 2]"


def test_try_around_a_failing_step_takes_the_same_branch_on_replay(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A handled failure is replayed and does not execute again, so the same branch is taken."""
    stop = [True]

    @flavour.step(retry=Retry(attempts=1))
    def charge():
        effects("charge")
        raise LookupError("no card")

    @flavour.step
    def note(text):
        return effects("note", text)

    @flavour.workflow
    def w():
        try:
            yield charge()
        except LookupError as error:
            yield note(str(error))
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return "done"

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == "done"
    assert effects == ["charge", ("note", "no card")]


def test_unused_records_are_reported_by_name(runtime: Runtime, caplog: pytest.LogCaptureFixture):
    """A completed replay warns of each record that no call used."""
    stop = [True]

    @step
    def used(x):
        return x

    @step
    def gone(x):
        return x

    @workflow
    def w():
        used(1)
        if stop:
            gone(7)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w()
    w()
    (warning,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "gone" in warning.getMessage()
    assert "x=7" in warning.getMessage()
    assert "used(" not in warning.getMessage()


def test_decorating_again_replaces_quietly(runtime: Runtime, caplog: pytest.LogCaptureFixture):
    """Decorating again, as in a notebook cell, replaces the step without a warning."""
    cell = '@step(name="cell.f")\ndef f():\n    return {value}\n'
    first, second = ({"step": step}, {"step": step})
    exec(cell.format(value=1), first)
    exec(cell.format(value=2), second)
    assert runtime.do("cell.f") == 2
    assert (first["f"](), second["f"]()) == (1, 2)
    assert not caplog.records


def test_an_async_step_in_a_sync_run_is_refused_with_the_alternative(runtime: Runtime):
    """An async step in a sync run is refused, the message says what to do, and nothing is recorded."""

    @step
    async def fetch(): ...

    @workflow
    def w():
        fetch()

    with pytest.raises(TypeError, match=r"fetch is async.*submit"):
        w()
    (run,) = runtime.runs()
    assert run.steps() == []


def test_a_sync_step_in_an_async_run_works_and_warns_once(runtime: Runtime):
    """A sync step in an async run blocks the loop and warns once, naming ``submit``."""

    @step
    def double(x):
        return 2 * x

    @workflow
    def child():
        return 6

    @workflow
    async def w():
        return [double(i) for i in range(3)] + [child()]

    with pytest.warns(RuntimeWarning, match="blocks") as caught:
        assert asyncio.run(w()) == [0, 2, 4, 6]
    assert [warning.filename for warning in caught] == [__file__] * 2
    first, second = (str(warning.message) for warning in caught)
    assert "await double.submit(" in first
    assert "await child.start(" in second


def test_a_sync_step_in_a_thread_of_an_async_run_blocks_nothing_and_does_not_warn(runtime: Runtime):
    """``asyncio.to_thread(step)`` is a step of the run, without a warning."""

    @step
    def double(x):
        return 2 * x

    @workflow
    async def w():
        return await asyncio.to_thread(double, 4)

    assert asyncio.run(w()) == 8
    (run,) = runtime.runs()
    assert [s.status for s in run.steps()] == [StepStatus.COMPLETED]


def test_hooks_see_first_execution_and_replay(runtime: Runtime, flavour: Flavour, hooks: Recorder):
    """A first execution calls the hooks of a step, and a replay only ``on_step_replay``."""
    stop = [True]

    @flavour.step
    def f():
        return 1

    @flavour.workflow
    def w():
        yield f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    assert hooks.names() == [
        "run_start", "step_start", "step_complete", "run_start", "step_replay", "run_complete",
    ]  # fmt: skip
