"""The run store: state of a run that takes effect once."""

import asyncio
import threading
from decimal import Decimal

import pytest
from support import ONCE, Crash, Effects, Mortal, python

import flowdsl
from flowdsl import Retry, RunStatus, Runtime, aio, step, store, workflow
from flowdsl.errors import ResultNotStorable


def test_what_each_operation_returns(runtime, flavour, verbs):
    """Writes return what the documentation says, and reads return a copy."""

    @flavour.workflow
    def w():
        s = verbs.store
        found = [(yield s.get("a")), (yield s.get("a", 7)), (yield s.set("a", None)), (yield s.get("a", 7))]
        found += [(yield s.increment("n")), (yield s.increment("n", 2.5)), (yield s.increment("n", -1))]
        found += [(yield s.push("l", 1)), (yield s.push("l", [2]))]
        (yield s.get("l")).append("a copy")
        (yield s.items())["l"].append("a copy")
        found += [(yield s.delete("a")), (yield s.delete("a")), (yield s.items())]
        return found

    assert flavour.call(w) == [None, 7, None, None, 1, 3.5, 2.5, 1, 2, True, False, {"n": 2.5, "l": [1, [2]]}]


def test_what_a_step_reads_is_its_own(runtime, flavour, verbs):
    """Changing a value that was read, or an item after it was stored, does not change the store."""

    @flavour.step
    def f():
        s = verbs.store
        item = ["stored"]
        yield s.push("l", item)
        item.append("changed afterwards")
        (yield s.get("l")).append("a copy")
        (yield s.get("l"))[0].append("a copy")
        (yield s.items())["l"].append("a copy")
        return (yield s.get("l"))

    @flavour.workflow
    def w():
        return (yield f())

    assert flavour.call(w) == [["stored"]]


def test_values_that_cannot_be_applied_change_nothing(runtime, flavour, verbs):
    """Incrementing text or by a non-number, pushing to what is no list, and unstorable values raise and
    change nothing."""

    @flavour.workflow
    def w():
        s = verbs.store
        yield s.set("text", "x")
        yield s.set("flag", True)
        yield s.set("big", 10**400)
        yield s.set("money", Decimal("Infinity"))
        wrong = [
            lambda: s.increment("text"), lambda: s.increment("n", "1"), lambda: s.increment("n", None),
            lambda: s.increment("n", True), lambda: s.increment("flag"), lambda: s.push("text", 1),
            lambda: s.increment("big", 0.5), lambda: s.increment("money", Decimal("-Infinity")),
            lambda: s.set("lock", threading.Lock()), lambda: s.push("list", threading.Lock()),
            lambda: s.set(3, 3), lambda: s.set("", 3), lambda: s.get(None if False else 3),
        ]  # fmt: skip
        errors = []
        for one in wrong:
            try:
                yield one()
            except Exception as error:
                errors.append(type(error).__name__)
        return errors, (yield s.items())

    errors, items = flavour.call(w)
    assert errors == [
        "TypeError", "TypeError", "TypeError", "TypeError", "TypeError", "TypeError", "OverflowError", "InvalidOperation",
        "ResultNotStorable", "ResultNotStorable", "TypeError", "ValueError", "TypeError",
    ]  # fmt: skip
    assert items == {"text": "x", "flag": True, "big": 10**400, "money": Decimal("Infinity")}


@pytest.mark.parametrize("where", ["body", "step"])
def test_a_value_that_cannot_be_stored_leaves_the_run_resumable(
    runtime, flavour, verbs, effects: Effects, where
):
    """An unstorable value leaves the run resumable: nothing is retried, undone or failed, and mended code
    goes on."""
    value = [threading.Lock()]

    @flavour.step(undo=lambda result: effects("undo"))
    def first():
        return 1

    @flavour.step
    def keep():
        effects("keep")
        yield verbs.store.push("k", value[0])

    @flavour.workflow(id="kept", on_error=lambda run, error: effects("on_error"))
    def w():
        yield first()
        yield (keep() if where == "step" else verbs.store.push("k", value[0]))
        return (yield verbs.store.get("k"))

    with pytest.raises(ResultNotStorable):
        flavour.call(w)
    assert runtime.run("kept").status is RunStatus.RUNNING
    assert effects == (["keep"] if where == "step" else [])
    value[0] = "plain"
    assert flavour.call(w) == ["plain"]


def test_the_store_belongs_to_one_run(runtime):
    """Two runs of one workflow have separate stores."""

    @workflow
    def w(n):
        return store.increment("n"), store.items()

    assert w(1) == (1, {"n": 1})
    assert w(2) == (1, {"n": 1})


def test_keys_vanish_when_the_run_completes_after_on_complete(runtime, flavour):
    """``on_complete`` reads the store, and afterwards it is empty."""
    seen = []

    @flavour.workflow(on_complete=lambda run: seen.append(run.state()))
    def w():
        if flavour.is_async:
            yield aio.store.set("a", 1)
        else:
            yield store.set("a", 1)

    flavour.call(w)
    (run,) = runtime.runs()
    assert seen == [{"a": 1}]
    assert run.state() == {}
    assert runtime.query(run.id, "state") == {}


def test_on_complete_reads_the_store_by_its_verbs(runtime):
    """``on_complete`` can use the verbs of ``store``."""
    seen = []

    @workflow(on_complete=lambda run: seen.append(store.get("a")))
    def w():
        store.set("a", 1)

    w()
    assert seen == [1]


def test_keys_stay_while_a_failed_run_can_be_retried(runtime, flavour, verbs):
    """A failed run keeps its store, and its retry goes on from it."""
    broken = [True]

    @flavour.step(retry=ONCE)
    def f():
        if broken:
            raise OSError

    @flavour.workflow(id="w")
    def w():
        yield verbs.store.increment("n", 41)
        yield f()
        return (yield verbs.store.increment("n"))

    with pytest.raises(OSError):
        flavour.call(w)
    assert runtime.query("w", "state") == runtime.run("w").state() == {"n": 41}
    broken.clear()
    assert flavour.call(w) == 42
    assert runtime.query("w", "state") == {}


def test_200_concurrent_threads_get_each_number_once(storage):
    """200 threads that increment once get exactly 1 to 200."""

    @step
    def one(n):
        return store.increment("n")

    @workflow
    def w():
        return one.map(range(200)), store.get("n")

    with Runtime(storage):
        numbers, last = w()
    assert (sorted(numbers), last) == (list(range(1, 201)), 200)


def test_200_concurrent_tasks_get_each_number_once(storage):
    """200 tasks that increment once, by ``map`` and by ``gather``, get exactly 1 to 200."""

    @step
    async def one(n):
        return await aio.store.increment("n")

    async def branch():
        return await aio.store.increment("m")

    @workflow
    async def w():
        return await one.map(range(200)), await aio.gather(*(branch() for _ in range(200)))

    with Runtime(storage):
        mapped, gathered = asyncio.run(w())
    assert sorted(mapped) == sorted(gathered) == list(range(1, 201))


def test_a_step_that_pushes_fails_and_is_retried_leaves_one_item(runtime, flavour, verbs, effects: Effects):
    """A second attempt, and a replay, get the result of the first push."""

    @flavour.step(retry=Retry(attempts=3, jitter=0))
    def f(item):
        length = yield verbs.store.push("items", item)
        if effects(item) < 3:
            raise OSError("again")
        return length

    @flavour.workflow
    def w():
        return (yield f("a")), (yield f("b")), (yield verbs.store.get("items"))

    assert flavour.call(w) == (1, 2, ["a", "b"])


def test_a_replay_adds_nothing(storage, clock, flavour, verbs):
    """Wherever the run dies, each write takes effect once."""

    @flavour.step
    def f():
        return (yield verbs.store.push("l", "step"))

    @flavour.workflow(id="w")
    def w():
        yield verbs.store.push("l", "first")
        yield f()
        yield verbs.store.push("l", "last")
        return (yield verbs.store.get("l")), (yield verbs.store.increment("n"))

    for after in (False, True):
        for at in range(8):
            try:
                with Runtime(Mortal(storage, at, after=after), clock=clock):
                    flavour.call(w)
            except Crash:
                pass
            with Runtime(storage, clock=clock) as rt:
                assert flavour.call(w) == (["first", "step", "last"], 1)
                rt.delete("w")


def test_two_pushes_of_one_branch_keep_their_order(runtime):
    """The pushes of one branch keep their order, however branches interleave."""

    @step
    async def f(n):
        await aio.store.push("l", (n, 0))
        await asyncio.sleep(0)
        await aio.store.push("l", (n, 1))

    @workflow
    async def w():
        await f.map(range(20))
        return await aio.store.get("l")

    items = asyncio.run(w())
    assert len(items) == 40
    for n in range(20):
        assert [i for who, i in items if who == n] == [0, 1]


def test_reads_of_the_body_are_replayed_and_reads_of_a_step_are_live(storage, clock):
    """A read in the body is replayed, and a read in a step gives the present value."""
    broken, seen = [True], []

    @step(retry=ONCE)
    def fails():
        seen.append(store.get("n"))
        if broken:
            raise OSError

    @workflow(id="w")
    def w():
        store.set("n", 1)
        before = store.get("n")
        store.set("n", 2)
        fails()
        return before, store.get("n"), store.items()

    with Runtime(storage, clock=clock):
        with pytest.raises(OSError):
            w()
        broken.clear()
        assert w() == (1, 2, {"n": 2})
    assert seen == [2, 2]


def test_a_changed_write_diverges_and_reuse_takes_the_recorded_one(storage, clock):
    """A changed value of a write diverges, and with ``reuse`` the recorded write stands."""
    value = ["a"]

    @step
    def f():
        pass

    @workflow(id="w")
    def w():
        store.set("k", value[0])
        f()
        return store.get("k")

    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        w()
    value[0] = "b"
    with Runtime(storage, clock=clock), pytest.raises(flowdsl.errors.NondeterminismError, match="store.set"):
        w()
    with Runtime(storage, clock=clock, on_divergence="reuse"):
        assert w() == "a"


def test_the_state_is_read_from_another_process(tmp_path):
    """``rt.query(id, "state")`` reads the store of a run in another process."""
    python(
        """
        import sys
        from flowdsl import Runtime, store, step, workflow, Retry
        @step(retry=Retry(attempts=1))
        def f(): raise OSError
        @workflow(id="w")
        def w():
            store.push("l", 1); store.increment("n", 5); f()
        with Runtime(f"sqlite:///{sys.argv[1]}/flow.db"):
            try: w()
            except OSError: pass
        """,
        str(tmp_path),
    )
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        assert rt.run("w").status is RunStatus.FAILED
        assert rt.query("w", "state") == {"l": [1], "n": 5}


def test_an_unknown_query_is_an_error(runtime):
    """An unknown query and an unknown run raise."""

    @workflow(id="w")
    def w():
        return 5

    w()
    assert runtime.query("w", "status") == "completed"
    assert runtime.query("w", "result") == 5
    assert runtime.query("w", "progress")["known"] == 0
    with pytest.raises(ValueError, match="'weather'"):
        runtime.query("w", "weather")
    with pytest.raises(flowdsl.errors.RunNotFound):
        runtime.query("nobody", "status")
