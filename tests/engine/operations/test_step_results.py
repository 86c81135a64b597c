"""Results of steps: stored, checked, loaded, and the same on the first run as on replay."""

import threading
from dataclasses import dataclass

import pytest
from support import Effects, Flavour, Recorder, in_memory

from flowdsl import Retry, RunStatus, Runtime, step, workflow
from flowdsl.codecs import JsonCodec
from flowdsl.errors import CorruptPayload, MissingClass, ResultNotStorable, StorageError
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import PutStep, Unstorable, UpdateRun


@dataclass
class Order:
    """A value found by name."""

    number: int
    lines: list


class Odd:
    """Pickles, but does not load."""

    def __reduce__(self):
        return (_refuse, ())


def _refuse():
    raise ValueError("never again")


def twice(flavour: Flavour, runtime: Runtime, make):
    """What the caller of a step that returns *make()* sees, first and on replay."""
    seen = []
    stop = [True]

    @flavour.step
    def f():
        return make()

    @flavour.workflow
    def w():
        seen.append((yield f()))
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    return seen


@in_memory
@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        (1, 2),
        [1, (2,)],
        {1: "a", "b": {3}},
        b"x",
        1.5,
        Order(1, [2]),
        float("inf"),
        frozenset({1}),
        ...,
    ],
    ids=repr,
)
def test_values_come_back_equal(runtime: Runtime, flavour: Flavour, value):
    """Every value comes back equal, so a replay takes the path of the first run."""
    first, again = twice(flavour, runtime, lambda: value)
    assert first == again == value
    assert type(first) is type(again) is type(value)


def test_the_caller_sees_the_loaded_value_on_the_first_run_too(storage, clock, flavour: Flavour):
    """With ``JsonCodec`` a tuple is a list on the first run as on replay."""
    with Runtime(storage, clock=clock, codec=JsonCodec()) as runtime:
        first, again = twice(flavour, runtime, lambda: {"a": (1, 2)})
        assert first == again == {"a": [1, 2]}

        @flavour.workflow
        def w():
            return (1, 2)
            yield

        assert flavour.call(w) == [1, 2]


def test_aliasing_is_lost_on_the_first_run_too(runtime: Runtime, flavour: Flavour):
    """The caller's result is a copy, on the first run too."""
    kept = []

    def make():
        kept.append([1])
        return kept[-1]

    first, again = twice(flavour, runtime, make)
    kept[0].append(2)
    assert first == again == [1]
    assert first is not kept[0]


def test_a_caller_that_changes_a_result_does_not_change_the_record(runtime: Runtime):
    """Changing a returned value does not change the record."""

    @step
    def f():
        return [1]

    @workflow
    def w():
        f().append(2)
        return "done"

    w()
    (run,) = runtime.runs()
    (record,) = run.steps()
    record.result().append(3)
    assert record.result() == [1]


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: {"a": [threading.Lock()]}, "['a'][0]"),
        (lambda: Order(1, [(x for x in "ab")]), ".lines[0]"),
        (lambda: [1, (2, {"k": Odd()})], "['k']"),
    ],
)
def test_what_cannot_be_stored_names_the_culprit(
    runtime: Runtime, flavour: Flavour, effects: Effects, make, where
):
    """``ResultNotStorable`` names the part at fault, is not retried or caught, and leaves the run
    resumable."""

    @flavour.step(retry=Retry(attempts=5))
    def f():
        effects("f")
        return make()

    @flavour.workflow
    def w():
        try:
            yield f()
        except Exception:
            effects("refund")

    with pytest.raises(ResultNotStorable) as caught:
        flavour.call(w)
    assert where in str(caught.value)
    assert f.path in str(caught.value)
    assert runtime.runs()[0].id in str(caught.value)
    assert caught.value.run
    assert caught.value.step == f.key()
    assert effects == ["f"]
    (run,) = runtime.runs()
    assert run.status is RunStatus.RUNNING
    assert run.interrupted


def test_after_the_code_is_mended_a_run_with_such_a_result_continues(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """After the code is mended, the step executes again and the run continues."""
    fixed = []

    @flavour.step
    def f():
        effects("f")
        return "plain" if fixed else threading.Lock()

    @flavour.workflow
    def w():
        return (yield f())

    with pytest.raises(ResultNotStorable):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "plain"
    assert effects == ["f", "f"]


def test_a_workflow_result_that_cannot_be_stored(
    runtime: Runtime, flavour: Flavour, effects: Effects, hooks: Recorder
):
    """A workflow result that cannot be stored leaves the run resumable, not failed, and calls no
    ``on_error``."""
    fixed = []

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow(on_error=lambda run, error: effects("on_error"))
    def w():
        yield f()
        return "plain" if fixed else {"lock": threading.Lock()}

    with pytest.raises(ResultNotStorable, match="lock"):
        flavour.call(w)
    assert "run_fail" not in hooks.names()
    fixed.append(True)
    assert flavour.call(w) == "plain"
    assert effects == ["f"]


def test_a_large_result_is_stored(runtime: Runtime, flavour: Flavour):
    """A result of megabytes is stored."""
    first, again = twice(flavour, runtime, lambda: b"x" * 3_000_000)
    assert first == again == b"x" * 3_000_000


class Small(MemoryStorage):
    """Has no room for the result of a run or a step in doubt that is longer than a thousand bytes."""

    def commit(self, operations, /):
        outcomes = []
        for operation in operations:
            held = operation.changes.get("result") if isinstance(operation, UpdateRun) else None
            held = operation.step.payload if isinstance(operation, PutStep) else held
            if len(held or b"") > 1000:
                outcomes.append(Unstorable(StorageError("it is too large")))
            else:
                outcomes += super().commit([operation])
        return outcomes


@pytest.mark.parametrize("where", ["run", "step", "resolve"])
def test_a_result_too_large_for_the_storage_is_not_said_to_be_stored(clock, flavour: Flavour, where):
    """A result too large for the storage raises its error, which no ``except`` of the body sees, and the run
    can continue."""
    size = [2000]

    @flavour.step(in_doubt="raise" if where == "resolve" else "rerun")
    def f():
        if where == "resolve":
            raise KeyboardInterrupt
        return "x" * size[0]

    @flavour.workflow(id="large")
    def w():
        if where == "run":
            return "x" * size[0]
        try:
            return (yield f())
        except Exception:
            return "swallowed"

    with Runtime(Small(), clock=clock) as rt:
        if where == "resolve":
            with pytest.raises(KeyboardInterrupt):
                flavour.call(w)
        with pytest.raises(ResultNotStorable, match="too large"):
            rt.resolve("large", f, result="x" * 2000) if where == "resolve" else flavour.call(w)
        assert rt.run("large").status == "running"
        size[0] = 20
        if where == "resolve":
            rt.resolve("large", f, result="x" * 20)
        assert flavour.call(w) == "x" * 20


def test_previews_are_readable_and_short(runtime: Runtime):
    """Previews of arguments and results are readable without loading anything."""

    @step
    def f(items, name="n"):
        return {"total": len(items)}

    @workflow
    def w():
        return f(list(range(10_000)))

    w()
    (run,) = runtime.runs()
    (record,) = run.steps()
    assert record.args.startswith("items=[0, 1, ")
    assert "name='n'" in record.args or "…" in record.args
    assert len(record.args) < 500
    assert record.preview == "{'total': 10000}"


def damage(storage, run_id, change):
    """Change the stored payload of the only step of a run."""

    (record,) = storage.list_steps(run_id)
    storage.set_step(record._replace(payload=change(record.payload)))


def stopped(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A workflow with one recorded step, interrupted behind it."""
    stop = [True]

    @flavour.step
    def f():
        return Order(effects("f"), [])

    @flavour.workflow(id="damaged")
    def w():
        try:
            value = yield f()
        except Exception:
            effects("swallowed")
            return None
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value.number

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    return w


def test_a_corrupted_payload_is_refused_and_nothing_executes(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A corrupted payload is a typed error with run and step; with the right bytes the run continues."""
    w = stopped(runtime, flavour, effects)
    (record,) = runtime.storage.list_steps("damaged")
    damage(runtime.storage, "damaged", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptPayload) as caught:
        flavour.call(w)
    assert caught.value.run == "damaged"
    assert effects == ["f"]
    assert runtime.run("damaged").status is RunStatus.RUNNING
    runtime.storage.set_step(record)
    assert flavour.call(w) == 1


def test_a_payload_of_another_step_is_refused(runtime: Runtime, effects: Effects):
    """A payload of another step is refused."""

    @step
    def f(x):
        return x

    @workflow
    def w():
        f(1), f(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w()

    (run,) = runtime.runs()
    one, two = runtime.storage.list_steps(run.id)
    runtime.storage.set_step(one._replace(payload=two.payload))
    with pytest.raises(CorruptPayload):
        w()


def test_a_missing_class_is_named_and_the_run_stays_resumable(
    runtime: Runtime, flavour: Flavour, effects: Effects, monkeypatch
):
    """A missing class is named, and with the class the run continues."""
    import sys

    w = stopped(runtime, flavour, effects)
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules[__name__], "Order")
        with pytest.raises(MissingClass, match="Order") as caught:
            flavour.call(w)
    assert isinstance(caught.value, StorageError)
    assert effects == ["f"]
    assert flavour.call(w) == 1


def test_a_result_stored_by_another_codec_still_loads(storage, clock, effects: Effects):
    """A result of another codec still loads, because the envelope names its codec."""
    stop = [True]

    @step
    def f():
        return (effects("f"), "x")

    @workflow
    def w():
        value = f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return list(value)

    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        w()
    with Runtime(storage, clock=clock, codec=JsonCodec()):
        assert w() == [1, "x"]
    assert effects == ["f"]


def test_signed_payloads_need_the_key(storage, clock, monkeypatch, effects: Effects):
    """With ``FLOWDSL_SECRET_KEY``, another key or no key loads nothing."""
    stop = [True]

    @step
    def f():
        return effects("f")

    @workflow(id="signed")
    def w():
        value = f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "one")
    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        w()
    for other in ("two", ""):
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", other)
        with Runtime(storage, clock=clock), pytest.raises(CorruptPayload):
            w()
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "one")
    with Runtime(storage, clock=clock):
        assert w() == 1


def test_results_of_steps_with_the_same_result_are_independent(runtime: Runtime, flavour: Flavour):
    """Two steps that return the same object give two objects."""
    shared = [0]

    @flavour.step
    def f(x):
        return shared

    @flavour.workflow
    def w():
        a = yield f(1)
        b = yield f(2)
        return a is b, a is shared

    assert flavour.call(w) == (False, False)
