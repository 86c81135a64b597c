"""``continue_as_new``: a run that begins anew under its id, with a journal that stays short."""

import threading

import pytest
from support import Crash, Mortal, Relay, script, spawn
from verbtools import with_a_crash_at_each_commit

from flowdsl import Retry, Runtime, continue_as_new, current_run, publish, schedule, step, wait_for, workflow
from flowdsl.errors import FlowError, RunConflict
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Restart


def counting(flavour, effects, upto=3):
    """A workflow that counts to *upto*, one generation each."""

    @flavour.step
    def note(n):
        effects(n)

    @flavour.workflow(id="w")
    def w(n=0):
        yield note(n)
        if n < upto:
            continue_as_new(n + 1)
        return n, current_run().generation

    return w


def test_the_next_generation_begins_under_the_same_id(runtime, flavour, effects):
    """The next generation has the same id, its own journal and result, and generations count from 1."""
    w = counting(flavour, effects)
    assert flavour.call(w) == (3, 4)
    run = runtime.run("w")
    assert run.generation == 4
    assert run.args == {"n": 3}
    assert [step.args for step in run.steps()] == ["n=3"]
    assert effects == [0, 1, 2, 3]
    assert [one.id for one in runtime.runs()] == ["w"]


def test_a_crash_at_each_commit_around_the_change(flavour, effects):
    """After a crash at each commit around the change no generation is lost or begins with wrong arguments."""
    w = counting(flavour, effects, 2)
    for rt, result in with_a_crash_at_each_commit(MemoryStorage, lambda rt: flavour.call(w)):
        assert result == (2, 3)
        assert set(effects.log) == {0, 1, 2}
        assert all(effects.count(n) <= 2 for n in (0, 1, 2))
        effects.log.clear()


def test_a_call_is_held_against_the_first_arguments(storage):
    """A call with the first arguments joins or continues the run in any generation, and other arguments
    conflict."""

    @workflow(id="w")
    def w(n):
        if n < 3:
            continue_as_new(n + 1)
        return n

    with Runtime(storage):
        assert w(1) == 3
        assert w(1) == 3
        with pytest.raises(RunConflict):
            w(2)


def test_messages_channels_and_tags_stay(storage, flavour, verbs):
    """Unread messages, published items and tags belong to the run, not to a generation."""

    @flavour.workflow(id="w", tags=("mine",))
    def w(seen=()):
        message = yield verbs.wait_for("n")
        publish("seen", message)
        if message < 3:
            continue_as_new((*seen, message))
        return (*seen, message)

    with Runtime(storage) as rt:
        run = w.start()
        for n in (1, 2, 3):
            run.signal("n", n)
        assert run.result() == (1, 2, 3)
        assert list(run.stream("seen")) == [1, 2, 3]
        assert [one.id for one in rt.runs(tags="mine")] == ["w"]
        assert len(rt.storage.list_signals("w")) <= 1


def test_nothing_of_the_run_may_be_under_way(runtime):
    """``continue_as_new`` with an unfinished branch or child is refused, and the message names it."""

    @step
    def late():
        pass

    @workflow
    def child():
        wait_for("go")

    @workflow(id="w")
    def w():
        branch, run = schedule(late, delay="1 day"), child.start()
        with pytest.raises(FlowError, match="2 of its branches or children are unfinished"):
            continue_as_new()
        branch.result()
        with pytest.raises(FlowError, match="1 of its branches or children is unfinished"):
            continue_as_new()
        run.signal("go")
        run.result()
        return "ended"

    assert w() == "ended"


def test_it_belongs_in_a_workflows_body(runtime):
    """``continue_as_new`` in a step or outside a run is refused, and the message says where it belongs."""

    @step(retry=None)
    def inside():
        continue_as_new()

    @workflow
    def w():
        inside()

    with pytest.raises(FlowError, match="body of a workflow"):
        w()
    with pytest.raises(FlowError, match="inside a run"):
        continue_as_new()


def test_arguments_that_do_not_fit_are_refused_before_anything_is_lost(runtime):
    """Arguments that do not fit are a ``TypeError`` in the body, and the generation goes on."""

    @workflow(id="w")
    def w(n):
        with pytest.raises(TypeError):
            continue_as_new(n, n, n)
        return current_run().generation

    assert w(1) == 1


def test_a_body_cannot_swallow_it(runtime):
    """``except Exception`` does not stop ``continue_as_new``."""

    @workflow(id="w")
    def w(n=0):
        if n == 0:
            try:
                continue_as_new(1)
            except Exception:
                return "swallowed"
        return n

    assert w() == 1


def test_a_real_kill_in_a_later_generation(tmp_path):
    """A run that is killed in generation 3 goes on in generation 3."""
    code = script(
        tmp_path / "goes_on.py",
        """
        import sys
        from flowdsl import Runtime, continue_as_new, current_run, step, workflow
        @step
        def work(n):
            print("work", n, flush=True)
            if n == 2 and sys.argv[1] == "first":
                sys.stdin.read()
        @workflow(id="w")
        def w(n):
            work(n)
            if n < 4:
                continue_as_new(n + 1)
            return current_run().generation
        with Runtime("sqlite:///flow.db"): print(w(0), flush=True)
        """,
    )
    first = spawn(code, "first")
    assert [first.stdout.readline() for _ in range(3)] == ["work 0\n", "work 1\n", "work 2\n"]
    first.kill()
    first.communicate()
    second = spawn(code, "second")
    assert second.communicate(timeout=60)[0] == "work 2\nwork 3\nwork 4\n5\n"


def test_many_generations_leave_nothing_behind(runtime):
    """A thousand generations leave one short journal, and the stack does not grow."""

    @workflow(id="w")
    def w(n):
        return n if n == 1000 else continue_as_new(n + 1)

    assert w(0) == 1000
    assert runtime.run("w").generation == 1001
    assert len(runtime.storage.list_steps("w")) <= 1


def test_undo_ends_with_its_generation(runtime, effects):
    """A step of a former generation is not undone by a later failure."""

    @step(undo=lambda n: effects("undo", n))
    def act(n):
        return n

    @workflow(id="w")
    def w(n=0):
        act(n)
        if n == 0:
            continue_as_new(1)
        raise LookupError("fails")

    with pytest.raises(LookupError):
        w()
    assert effects == [("undo", 1)]


class SlowKeeper(Relay):
    """What the keeper commits arrives behind the next change of generations."""

    def __init__(self, inner):
        super().__init__(inner)
        self.under_way, self.changed, self.arrived = (threading.Event() for _ in range(3))

    def commit(self, operations, /):
        keeper = threading.current_thread().name == "flowdsl-keeper"
        if keeper:
            self.under_way.set()
            assert self.changed.wait(60)
        outcomes = self.inner.commit(operations)
        if keeper:
            self.arrived.set()
        elif any(isinstance(operation, Restart) for operation in operations):
            self.changed.set()
            assert self.arrived.wait(60)
        return outcomes


def test_a_flush_that_comes_late_leaves_nothing_in_the_next_generation():
    """Buffered records are stored before the change, and storing them again late is refused."""
    storage = SlowKeeper(MemoryStorage())

    @workflow(id="w")
    def w(n=0):
        if n == 0:
            publish("c", "item")
            assert storage.under_way.wait(60)
            continue_as_new(1)
        return n

    with Runtime(storage) as rt:
        assert w() == 1
        assert [step.kind for step in rt.storage.list_steps("w") if step.kind != "audit"] == []
        assert list(rt.run("w").stream("c")) == ["item"]


class Interrupted(Relay):
    """The change of generations is stored, and interrupted at that moment."""

    def commit(self, operations, /):
        outcomes = self.inner.commit(operations)
        if any(isinstance(operation, Restart) for operation in operations):
            raise KeyboardInterrupt
        return outcomes


def test_an_interrupt_at_the_change_gives_the_run_back(storage):
    """An interrupt at the change releases the lease under the new epoch, and the next call continues."""

    @workflow(id="w")
    def w(n=0):
        return n if n else continue_as_new(1)

    with Runtime(Interrupted(storage)), pytest.raises(KeyboardInterrupt):
        w()
    left = storage.get_run("w")
    assert (left.owner, left.generation) == (None, 2)
    with Runtime(storage):
        assert w() == 1


def test_what_has_ended_does_not_hold_it_up(flavour, verbs, effects):
    """A branch with a record and the loser of a race do not hold up the next generation, after a kill at any
    commit."""

    @flavour.step
    def work(n):
        effects(n)
        return n

    @flavour.workflow
    def idle():
        yield verbs.wait_for("nothing", timeout="2 hours")  # so a race ends whose winner died in its commit

    @flavour.workflow(id="w")
    def w(n=0):
        if n:
            return n
        branch = yield verbs.schedule(work, 1, delay="1 hour")
        found = yield verbs.race(work.submit(2), idle.start())
        yield verbs.gather(branch)
        continue_as_new(found)

    for rt, result in with_a_crash_at_each_commit(MemoryStorage, lambda rt: flavour.call(w)):
        assert result == 2

        assert {run.status for run in rt.runs()} == {"completed", "cancelled"}
        assert set(effects.log) == {1, 2}
        effects.log.clear()


def test_a_branch_that_ended_before_the_crash_does_not_hold_it_up(storage, clock, flavour, verbs, effects):
    """A branch that ended before the crash does not hold up the next generation."""

    @flavour.step
    def work():
        effects("work")

    @flavour.workflow(id="w")
    def w(n=0):
        if n:
            return n
        yield verbs.schedule(work, delay="1 hour")
        yield verbs.sleep("2 hours")
        continue_as_new(1)

    def is_the_change(operations):
        return any(isinstance(operation, Restart) for operation in operations)

    with Runtime(Mortal(storage, is_the_change), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock):
        assert flavour.call(w) == 1
    assert effects == ["work"]


def test_a_branch_that_has_failed_fails_the_run(runtime, flavour, verbs):
    """A branch that has failed fails the run, and there is no next generation."""

    @flavour.step(retry=Retry(attempts=1))
    def late():
        raise LookupError("late")

    @flavour.workflow(id="w")
    def w(n=0):
        yield verbs.schedule(late, delay="1 hour")
        yield verbs.sleep("2 hours")
        continue_as_new(n + 1)

    with pytest.raises(LookupError, match="late"):
        flavour.call(w)
    assert runtime.run("w").generation == 1
