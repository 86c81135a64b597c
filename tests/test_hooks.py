"""Hooks: they are called for every event, in order, from every entry point, and cannot disturb a run."""

import inspect
import logging

import pytest
from support import ONCE, Declined, Effects, Flavour, Recorder

from flowdsl import Hooks, Retry, Runtime, step, workflow
from flowdsl.errors import RunCancelled


def test_the_view_of_a_step(runtime: Runtime, flavour: Flavour, hooks: Recorder, clock):
    """The view of a step has ``run_id``, ``key``, ``path``, ``mode``, ``attempt``, and a duration after the
    attempt."""

    @flavour.step
    def f():
        clock._now += 5
        return 1

    @flavour.workflow(id="viewed")
    def w():
        yield f()

    flavour.call(w)
    ((start,),) = hooks.of("step_start")
    ((done, result),) = hooks.of("step_complete")
    assert (start.run_id, start.key, start.path, start.mode, start.attempt) == (
        "viewed",
        f.key(),
        f.path,
        "do",
        1,
    )
    assert (done.attempt, done.duration, result) == (1, 5.0, 1)


def test_a_hook_may_call_the_one_it_overrides(runtime: Runtime, another):
    """All hook methods exist on the base class, and do nothing there."""
    seen = []

    class Watch(Hooks):
        def on_run_complete(self, run, result):
            super().on_run_complete(run, result)
            seen.append(result)

    @workflow
    def w():
        return 5

    with another(hooks=Watch()):
        w()
    assert seen == [5]


def test_hooks_have_these_parameters():
    """The ten hook methods have the documented parameters."""
    asked = {
        name: list(inspect.signature(getattr(Hooks, name)).parameters)[1:]
        for name in vars(Hooks)
        if name.startswith("on_")
    }
    assert asked == {
        "on_run_start": ["run"],
        "on_run_complete": ["run", "result"],
        "on_run_fail": ["run", "error"],
        "on_run_cancel": ["run"],
        "on_step_start": ["step"],
        "on_step_complete": ["step", "result"],
        "on_step_replay": ["step", "result"],
        "on_step_error": ["step", "error", "attempt"],
        "on_step_retry": ["step", "error", "attempt", "delay"],
        "on_signal": ["run", "signal"],
    }


def test_the_run_in_a_hook_is_a_handle(runtime: Runtime, flavour: Flavour, hooks: Recorder):
    """The run in a hook is a handle with status, arguments and steps."""
    seen = []

    class Watch(Hooks):
        def on_run_start(self, run):
            seen.append(("start", run.id, run.status, run.args))

        def on_run_complete(self, run, result):
            seen.append(("complete", run.status, run.result(), result, len(run.steps())))

    @flavour.step
    def f(x):
        return x

    @flavour.workflow(id="handled")
    def w(x):
        return (yield f(x))

    with Runtime("memory://", hooks=Watch()):
        flavour.call(w, 3)
    assert seen == [("start", "handled", "running", {"x": 3}), ("complete", "completed", 3, 3, 1)]


def test_several_hooks_compose_in_order():
    """Several hooks are each called for each event, in the order given."""
    order = []

    def make(name):
        class One(Hooks):
            def on_run_start(self, run):
                order.append((name, "start"))

            def on_run_complete(self, run, result):
                order.append((name, "complete"))

        return One()

    @workflow
    def w(): ...

    with Runtime("memory://", hooks=[make("a"), make("b")]):
        w()
    assert order == [("a", "start"), ("b", "start"), ("a", "complete"), ("b", "complete")]


def test_one_hook_need_not_be_wrapped_in_a_list():
    """``hooks=`` takes one hook or several."""
    recorder = Recorder()

    @workflow
    def w(): ...

    with Runtime("memory://", hooks=recorder):
        w()
    assert recorder.names() == ["run_start", "run_complete"]


EVENTS = [
    "run_start",
    "run_complete",
    "run_fail",
    "step_start",
    "step_complete",
    "step_replay",
    "step_error",
    "step_retry",
]


@pytest.mark.parametrize("storage", ["memory"], indirect=True)
@pytest.mark.parametrize("event", EVENTS)
def test_a_hook_that_raises_changes_nothing(
    storage, clock, flavour: Flavour, effects: Effects, caplog, event
):
    """An exception in a hook is logged, and the step executes once and completes."""
    after = Recorder()

    def broken(self, *args):
        raise RuntimeError("hook")

    Broken = type("Broken", (Hooks,), {f"on_{event}": broken})
    stop = [True]

    @flavour.step(retry=Retry(attempts=2, jitter=0))
    def f(x):
        if effects("f", x) == 1 and x == 1:
            raise OSError
        return x

    @flavour.workflow
    def w(fail):
        yield f(0)
        yield f(1)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        if fail:
            raise Declined
        return "done"

    with Runtime(storage, clock=clock, hooks=[Broken(), after]) as runtime:
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w, False)
        assert flavour.call(w, False) == "done"
        with pytest.raises(Declined):
            flavour.call(w, True)
        assert sorted(str(r.status) for r in runtime.runs()) == ["completed", "failed"]
    assert [effects.count("f", 0), effects.count("f", 1)] == [2, 3]
    logged = [r for r in caplog.records if "hook" in r.getMessage() and event in r.getMessage()]
    assert len(logged) == len(after.of(event)) > 0
    assert {r.levelno for r in logged} == {logging.ERROR}


def test_hooks_fire_the_same_from_every_entry_point(storage, clock):
    """A call, a start, ``do`` by name and a resume call the same hooks."""

    @step(name="hooks.everywhere")
    def f(x):
        return x

    @workflow
    def w(x):
        return f(x)

    expected = ["run_start", "step_start", "step_complete", "run_complete"]
    for call in (
        lambda runtime: w(1),
        lambda runtime: w.start(2).result(60),
        lambda runtime: w.options(id="mine")(3),
        lambda runtime: runtime.do(f, 4),
        lambda runtime: runtime.do("hooks.everywhere", 5),
        lambda runtime: runtime.execute_step("six", f, 6),
    ):
        recorder = Recorder()
        with Runtime(storage, clock=clock, hooks=recorder) as runtime:
            call(runtime)
        assert recorder.names() == expected


def test_resume_and_retry_fire_too(runtime: Runtime, hooks: Recorder):
    """A continued run calls ``on_run_start`` again."""
    state = {"stop": True, "fail": True}

    @step(retry=ONCE)
    def f():
        if state.pop("fail", False):
            raise Declined
        return 1

    @workflow(id="hooked")
    def w():
        if state.pop("stop", False):
            raise KeyboardInterrupt
        return f()

    with pytest.raises(KeyboardInterrupt):
        w()
    with pytest.raises(Declined):
        runtime.resume("hooked").result(60)
    runtime.retry("hooked").result(60)
    assert hooks.names() == [
        "run_start",
        "run_start", "step_start", "step_error", "run_fail",
        "run_start", "step_start", "step_complete", "run_complete",
    ]  # fmt: skip


def test_hooks_of_try_and_send(storage, clock):
    """Steps of the modes ``try`` and ``send`` call hooks too."""
    recorder = Recorder()

    @step(mode="try")
    def tried():
        raise Declined

    @step(mode="send")
    def sent():
        return "sent"

    @workflow
    def w():
        with pytest.raises(Declined):
            tried()
        sent()

    with Runtime(storage, clock=clock, hooks=recorder):
        w()
    views = {
        args[0].path: [] for _, args in [(e[0], e[1:]) for e in recorder.events] if hasattr(args[0], "path")
    }
    for name, *args in recorder.events:
        if hasattr(args[0], "path"):
            views[args[0].path].append((name, args[0].mode))
    assert views == {
        tried.path: [("step_start", "try"), ("step_error", "try")],
        sent.path: [("step_start", "send"), ("step_complete", "send")],
    }


def test_the_result_a_hook_sees_is_stored(runtime: Runtime, storage):
    """``on_step_complete`` is called after the commit."""
    seen = []

    class Watch(Hooks):
        def on_step_complete(self, step, result):
            record = storage.get_step(step.run_id, step.key)
            seen.append((record.status, result))

        def on_run_complete(self, run, result):
            seen.append((storage.get_run(run.id).status, result))

        def on_run_fail(self, run, error):
            seen.append((storage.get_run(run.id).status, type(error)))

    @step
    def f():
        return (1, 2)

    @workflow
    def w(fail):
        f()
        if fail:
            raise Declined

    with Runtime(storage, hooks=Watch()):
        w(False)
        with pytest.raises(Declined):
            w(True)
    assert seen == [("completed", (1, 2)), ("completed", None), ("completed", (1, 2)), ("failed", Declined)]


def test_a_cancelled_run_fires_its_hook(runtime: Runtime, hooks: Recorder):
    """A cancelled run calls ``on_run_cancel``, and neither complete nor fail."""

    @step
    def f():
        runtime.cancel("c")

    @workflow(id="c")
    def w():
        f()
        f()

    with pytest.raises(RunCancelled):
        w()
    assert hooks.names()[-1] == "run_cancel"
    assert not {"run_fail", "run_complete"} & set(hooks.names())


def test_a_listener_of_any_class_will_do():
    """A hook need not be a subclass: a method of the right name is called."""
    seen = []

    class Duck:
        def on_run_complete(self, run, result):
            seen.append(result)

    @workflow
    def w():
        return 5

    with Runtime("memory://", hooks=[Duck()]):
        w()
    assert seen == [5]


def test_hooks_of_children_fire_for_the_child(runtime: Runtime, hooks: Recorder):
    """The hooks of a child are called between those of its parent."""

    @workflow(id="child")
    def child(): ...

    @workflow(id="parent")
    def parent():
        child()

    parent()
    assert [(name, run.id) for name, run, *_ in hooks.events if name.startswith("run")] == [
        ("run_start", "parent"), ("run_start", "child"),
        ("run_complete", "child"), ("run_complete", "parent"),
    ]  # fmt: skip
