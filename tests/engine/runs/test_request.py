"""Which run a call means: ids, conflicts, joining, continuing."""

import asyncio
import threading

import pytest
from support import ONCE, Effects, Flavour

from flowdsl import RunStatus, Runtime, step, workflow
from flowdsl.errors import CorruptPayload, FlowError, RunConflict, StorageError, UnkeyableArgument
from flowdsl.storage.base import UpdateRun


def test_an_id_is_one_run_ever(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A call of a completed run returns its stored result, and nothing executes."""

    @flavour.workflow(id="order-{order_id}")
    def w(order_id):
        return effects("body", order_id)
        yield

    assert [flavour.call(w, 1), flavour.call(w, 1), flavour.call(w, 2)] == [1, 1, 1]
    assert effects == [("body", 1), ("body", 2)]
    assert runtime.run("order-1").number is None
    assert runtime.run("order-3") is None


def test_the_same_id_with_other_arguments_is_a_conflict(runtime: Runtime, flavour: Flavour):
    """The same id with other arguments raises ``RunConflict``, which shows both argument lists."""

    @flavour.workflow(id="order-{order_id}")
    def w(order_id, amount):
        return amount
        yield

    assert flavour.call(w, 1, 10) == 10
    with pytest.raises(RunConflict, match=r"(?s)order-1.*amount=10.*amount=11"):
        flavour.call(w, 1, 11)
    assert flavour.call(w, 1, 10) == 10


def test_the_same_id_with_another_workflow_is_a_conflict(runtime: Runtime):
    """The same id with another workflow raises ``RunConflict``."""

    @workflow(name="first", id="same")
    def first(x):
        return x

    @workflow(name="second", id="same")
    def second(x):
        return x

    first(1)
    with pytest.raises(RunConflict, match=r"same.*first.*second"):
        second(1)


def test_ids_by_callable_and_by_option(runtime: Runtime, flavour: Flavour):
    """An id is made by a function of the arguments, or given for the call, and the given one wins."""

    @flavour.workflow(id=lambda x, y=2: f"sum-{x + y}")
    def w(x, y=2):
        return x + y
        yield

    assert flavour.call(w, 1) == 3
    assert flavour.call(w.options(id="mine"), 1) == 3
    assert flavour.call(w, 2, y=5) == 7
    assert {r.id for r in runtime.runs()} == {"sum-3", "mine", "sum-7"}


def test_the_template_takes_defaults_attributes_items_and_formats(runtime: Runtime):
    """An id template is a format string over all arguments, defaults included."""
    from dataclasses import dataclass

    @dataclass
    class Order:
        number: int

    @workflow(id="{order.number:04d}-{tags[0]}-{shop}")
    def w(order, tags, shop="main"):
        return "ok"

    w(Order(17), ["a", "b"])
    assert runtime.run("0017-a-main") is not None


@pytest.mark.parametrize("template", ["o-{z}", "o-{z.x}", "o-{}", "o-{0}", "o-{x", "o-{left}"])
def test_a_template_that_no_call_can_fill_is_refused_at_decoration(template):
    """A template with an unknown or ignored parameter, or bad syntax, is refused when the workflow is
    decorated."""
    with pytest.raises(ValueError, match="o-"):

        @workflow(id=template, ignore=("left",))
        def w(x, left=None): ...


@pytest.mark.parametrize(("template", "args"), [("o-{x}", (None,)), ("o-{x.y}", (1,)), ("o-{x[0]}", ("",))])
def test_a_template_that_cannot_be_filled(runtime: Runtime, template, args):
    """``None`` or a missing attribute in a template is refused, and the message shows template and
    arguments."""

    @workflow(id=template)
    def w(x): ...

    with pytest.raises(ValueError, match="o-"):
        w(*args)
    assert runtime.runs() == []


@pytest.mark.parametrize("bad", [None, 5, "", "  ", b"x"])
def test_a_callable_id_that_gives_no_id(runtime: Runtime, bad):
    """An id function that returns no non-empty string is refused."""

    @workflow(id=lambda x: bad)
    def w(x): ...

    with pytest.raises((TypeError, ValueError), match="id of workflow"):
        w(1)
    assert runtime.runs() == []


def test_an_id_that_the_storage_cannot_take(tmp_path):
    """An id that is no Unicode, such as a file name, is a typed error that shows it, from a call and from a
    fork."""

    @step
    def read(): ...

    @workflow(id="index-{path}")
    def w(path):
        read()

    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        with pytest.raises(StorageError, match="surrogates"):
            w("\udc80.py")
        w("good.py")
        with pytest.raises(StorageError, match="surrogates"):
            rt.fork("index-good.py", before=read, id="\udc80")
        assert rt.run("\udc80") is None
        assert [run.id for run in rt.runs()] == ["index-good.py"]


@pytest.mark.parametrize("bad", ["", " ", 5, b"x"])
def test_an_option_that_is_no_id(bad):
    """An option that is no id is refused where it is given."""

    @workflow
    def w(): ...

    with pytest.raises((TypeError, ValueError), match="id"):
        w.options(id=bad)


def test_equal_calls_are_one_key(runtime: Runtime):
    """Equal calls continue the same run, by keyword or position, with defaults or without."""
    stop = [True] * 3

    @workflow
    def w(a, b=2, *, c=3):
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return a, b, c

    for call in (lambda: w(1), lambda: w(a=1, b=2), lambda: w(1, 2, c=3)):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert w(1) == (1, 2, 3)
    assert len(runtime.runs()) == 1


def test_other_arguments_are_another_run(runtime: Runtime):
    """A call with other arguments does not continue an interrupted run."""
    stop = [True]

    @workflow
    def w(a):
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return a

    with pytest.raises(KeyboardInterrupt):
        w(1)
    assert w(2) == 2
    assert w(True) is True
    assert [str(r.status) for r in runtime.runs(newest_first=False)].count("running") == 1


def test_ignored_arguments_do_not_tell_runs_apart(runtime: Runtime, effects: Effects):
    """Runs that differ only in ignored arguments are the same run."""
    stop = [True, True]

    @workflow(ignore=("client",), id="i-{x}")
    def w(x, client=None):
        effects(client is None)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return x

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            w(1, client=object())
    assert runtime.run("i-1").args == {"x": 1}
    assert runtime.resume("i-1").result(60) == 1
    assert effects == [False, False, True]


def test_a_resume_without_an_ignored_argument_says_what_is_missing(runtime: Runtime):
    """A resume without a stored value for an ignored parameter uses its default, or names it."""

    @workflow(ignore=("client",), id="m-{x}")
    def w(x, client):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w(1, object())
    with pytest.raises(TypeError, match="client"):
        runtime.resume("m-1")


def test_arguments_without_a_key_are_refused(runtime: Runtime):
    """An argument without an encoding is refused, and the message names parameter, place and remedies."""

    @workflow
    def w(order): ...

    class Thing: ...

    with pytest.raises(UnkeyableArgument, match=r"(?s)order.*client.*Thing.*ignore") as caught:
        w({"id": 1, "client": Thing()})
    assert isinstance(caught.value, TypeError)
    assert runtime.runs() == []


@pytest.fixture
def waiting(runtime: Runtime, monkeypatch) -> threading.Event:
    """Set once a call waits for a run that somebody else executes."""
    event = threading.Event()
    wait_for_change = runtime.storage.wait_for_change

    def watched(seen, timeout):
        if not threading.current_thread().name.startswith("flowdsl"):
            event.set()
        return wait_for_change(seen, timeout)

    monkeypatch.setattr(runtime.storage, "wait_for_change", watched)
    return event


def test_a_call_joins_the_run_that_executes(runtime: Runtime, waiting, effects: Effects):
    """A call of an executing run waits for the owner's outcome, and the body executes once."""
    entered, gate = threading.Event(), threading.Event()

    @workflow(id="j")
    def w():
        effects("body")
        entered.set()
        gate.wait(60)
        return "owner's"

    results = []
    first = w.start()
    entered.wait(60)
    joiner = threading.Thread(target=lambda: results.append(w()))
    joiner.start()
    assert waiting.wait(60)
    assert results == []
    gate.set()
    joiner.join(60)
    assert results == [first.result(60)] == ["owner's"]
    assert effects == ["body"]


def test_a_call_from_another_runtime_joins(runtime: Runtime, another, effects: Effects):
    """A call from another runtime on the storage waits too."""
    gate, entered = threading.Event(), threading.Event()

    @workflow(id="j")
    def w():
        effects("body")
        entered.set()
        gate.wait(60)
        return "owner's"

    run = w.start()
    entered.wait(60)
    with another():
        other = w.start()
        gate.set()
        assert other.result(60) == "owner's"
    assert run.result(60) == "owner's"
    assert effects == ["body"]


def test_a_joined_failure_is_the_callers_too(runtime: Runtime, waiting, effects: Effects):
    """A joining call gets the owner's failure, and does not execute the run again."""
    gate, entered = threading.Event(), threading.Event()

    @workflow(id="j")
    def w():
        effects("body")
        entered.set()
        gate.wait(60)
        raise LookupError("owner's")

    first = w.start()
    entered.wait(60)
    errors = []

    def join():
        try:
            w()
        except LookupError as error:
            errors.append(str(error))

    joiner = threading.Thread(target=join)
    joiner.start()
    assert waiting.wait(60)
    gate.set()
    joiner.join(60)
    assert isinstance(first.exception(60), LookupError)
    assert errors == ["owner's"]
    assert effects == ["body"]


def test_async_calls_join(runtime: Runtime, effects: Effects):
    """Two tasks with one id have one body and two results."""

    @step
    async def f():
        await asyncio.sleep(0)
        return effects("f")

    @workflow(id="j")
    async def w():
        return await f()

    async def main():
        return await asyncio.gather(w(), w(), w())

    assert asyncio.run(main()) == [1, 1, 1]


def test_a_joiner_claims_the_run_when_its_owner_lets_go(runtime: Runtime, waiting, effects: Effects):
    """If the owner is interrupted, the waiting call continues the run."""
    gate, entered = threading.Event(), threading.Event()

    @step
    def f():
        return effects("f")

    @workflow(id="j")
    def w():
        value = f()
        if effects("body") == 1:
            entered.set()
            gate.wait(60)
            raise KeyboardInterrupt
        return value

    first = w.start()
    entered.wait(60)
    results = []
    joiner = threading.Thread(target=lambda: results.append(w()))
    joiner.start()
    assert waiting.wait(60)
    gate.set()
    joiner.join(60)
    assert results == [1]
    assert effects == ["f", "body", "body"]
    assert first.result(60) == 1


def test_a_run_that_would_join_itself_gets_a_conflict(runtime: Runtime, flavour: Flavour):
    """A run that would wait for itself gets ``RunConflict``."""

    @flavour.workflow(id="loop")
    def w(n):
        return (yield w(n))

    with pytest.raises(RunConflict, match="itself"):
        flavour.call(w, 1)


def test_a_grandchild_that_would_join_its_grandparent_gets_a_conflict(runtime: Runtime):
    """A run that would wait for itself through other runs and steps gets ``RunConflict``."""

    @workflow(id="top")
    def top():
        return middle()

    @workflow
    def middle():
        return inner()

    @step(retry=ONCE)
    def inner():
        return top()

    with pytest.raises(RunConflict, match="itself"):
        top()


def test_concurrent_numbered_calls_are_runs_of_their_own(runtime: Runtime):
    """A concurrent call without an id starts the next number."""
    barrier = threading.Barrier(3)

    @workflow
    def w():
        barrier.wait(60)
        return "met"

    runs = [w.start() for _ in range(3)]
    assert [r.result(60) for r in runs] == ["met"] * 3
    assert sorted(r.number for r in runs) == [1, 2, 3]


def test_an_interrupted_run_of_another_runtime_is_continued(runtime: Runtime, another, effects: Effects):
    """Any runtime on the storage continues an interrupted run."""
    stop = [True]

    @step
    def f():
        return effects("f")

    @workflow
    def w():
        value = f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    with another(), pytest.raises(KeyboardInterrupt):
        w()
    assert w() == 1
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_the_version_of_a_workflow(runtime: Runtime):
    """Another version is another key for a numbered run, and no conflict for a run with an id."""

    def make(version):
        @workflow(name="versioned", version=version)
        def w():
            raise KeyboardInterrupt

        return w

    with pytest.raises(KeyboardInterrupt):
        make(1)()
    with pytest.raises(KeyboardInterrupt):
        make(2)()
    assert [r.number for r in runtime.runs()] == [1, 1]

    def with_id(version):
        @workflow(name="versioned.id", version=version, id="v")
        def w():
            if version == 1:
                raise KeyboardInterrupt
            return version

        return w

    with pytest.raises(KeyboardInterrupt):
        with_id(1)()
    assert with_id(2)() == 2


def test_resume_continues_in_the_background(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``resume`` continues in the background from the stored arguments, and refuses a completed run."""
    from flowdsl.errors import RunFinished

    stop = [True]

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow(id="r-{x}")
    def w(x, *rest, y=2, **more):
        value = yield f(x)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value, x, rest, y, more

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w, 1, 5, 6, z=7)
    assert runtime.resume("r-1").result(60) == (1, 1, (5, 6), 2, {"z": 7})
    with pytest.raises(RunFinished):
        runtime.resume("r-1")


def test_recover_continues_all_interrupted_runs(runtime: Runtime, effects: Effects):
    """``recover`` continues all interrupted runs, oldest first, and no completed or failed ones."""
    stop = [True] * 3

    @workflow
    def w(x):
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return x

    for x in range(3):
        with pytest.raises(KeyboardInterrupt):
            w(x)
    w(9)
    runs = runtime.recover()
    assert sorted(r.result(60) for r in runs) == [0, 1, 2]
    assert runtime.recover() == []


def test_recover_passes_over_a_run_that_cannot_be_continued(runtime: Runtime, caplog):
    """``recover`` logs a run that cannot continue, starts the others, and raises the error at the end."""
    stop = [True] * 4

    @workflow(id="r-{x}")
    def w(x):
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return x

    for x in range(4):
        with pytest.raises(KeyboardInterrupt):
            w(x)
    lost, worn_out = UpdateRun("r-0", {"args": b""}), UpdateRun("r-2", {"recoveries": 50})
    runtime.storage.commit([lost, worn_out])
    with pytest.raises(FlowError, match="r-0") as caught:
        runtime.recover()
    assert "r-1, r-3" in caught.value.__notes__[0]
    assert [runtime.run(f"r-{x}").result(60) for x in (1, 3)] == [1, 3]
    assert [r.run for r in caplog.records if r.levelname == "ERROR"] == ["r-0", "r-2"]


def test_a_run_whose_arguments_do_not_load_is_not_taken_to_cancel_it(runtime: Runtime):
    """Cancelling a run whose arguments do not load here leaves it interrupted for another process."""

    @workflow(id="r")
    def w():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w()
    runtime.storage.commit([UpdateRun("r", {"args": b"damaged"})])
    with pytest.raises(CorruptPayload):
        runtime.cancel("r")
    assert runtime.run("r").interrupted
