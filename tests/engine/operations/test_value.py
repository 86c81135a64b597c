"""Recorded values, logs, events, progress and memos."""

import threading

import pytest
from support import ONCE, Crash, Effects, Mortal
from verbsupport import until

import flowdsl
from flowdsl import Retry, Runtime, step, workflow


def test_values_are_the_same_at_every_replay(storage, clock, flavour):
    """A replay sees the ``now``, ``uuid4`` and ``rng`` on which a step acted, wherever the run died."""
    seen = []

    @flavour.step(name="values.f", ignore=("value",))
    def f(n, value):
        seen.append((n, value))

    @flavour.workflow(id="w")
    def w():
        for n in range(3):
            yield f(n, (flowdsl.now(), flowdsl.uuid4(), flowdsl.rng().random()))

    for at in range(1, 6):
        seen.clear()
        try:
            with Runtime(Mortal(storage, at), clock=clock):
                flavour.call(w)
        except Crash:
            pass
        clock.sleep(60)
        with Runtime(storage, clock=clock) as rt:
            flavour.call(w)
            rt.delete("w")
        assert len(dict(seen)) == 3
        assert len(set(seen)) == 3
        assert len({value[1] for _, value in seen}) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt, KeyError])
def test_values_that_no_step_acted_upon_are_the_same_too_where_the_process_could_say_goodbye(
    storage, clock, flavour, end
):
    """After an interrupt or a failure a replay sees the same values, and log lines exist once."""
    seen = []

    @flavour.workflow(id="w")
    def w():
        seen.append((flowdsl.now(), flowdsl.uuid4(), flowdsl.rng().random()))
        flowdsl.log("seen")
        if len(seen) == 1:
            raise end
        yield from ()

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(end):
            flavour.call(w)
        assert len(rt.run("w").logs()) == 1
        clock.advance(60)
        flavour.call(w)
        assert seen[0] == seen[1]
        assert len(rt.run("w").logs()) == 1


def test_a_log_line_is_stored_once_and_not_repeated_by_a_replay(storage, clock, flavour, caplog):
    """A log line is stored once with its fields, and a second attempt of a step logs its own."""
    tries, broken = [], [True]
    caplog.set_level("INFO", "flowdsl")

    @flavour.step(retry=Retry(attempts=2, jitter=0))
    def f():
        tries.append(1)
        flowdsl.log("try", number=len(tries))
        if len(tries) == 1:
            raise OSError

    @flavour.step(retry=ONCE)
    def fails():
        if broken:
            raise KeyError

    @flavour.workflow(id="w")
    def w():
        flowdsl.log("begin")
        yield f()
        yield fails()

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(KeyError):
            flavour.call(w)
        broken.clear()
        flavour.call(w)
        assert len(rt.run("w").logs()) == 3
        assert [r.message for r in caplog.records if r.message.startswith("begin")] == ["begin"]
        lines = [s for s in rt.storage.list_steps("w") if s.kind == "log"]
    assert [s.extra for s in lines] == [
        '{"fields": {}}',
        '{"fields": {"number": 1}}',
        '{"fields": {"number": 2}}',
    ]


def test_events_call_every_handler_on_the_runtime_that_sends(storage, clock, effects: Effects):
    """An event calls functions, steps and workflows, and handlers can be unregistered."""
    other = Runtime("memory://")

    @flowdsl.on("order.paid")
    def plain(payload):
        effects("plain", payload)

    @step
    def stepped(payload):
        effects("step", payload)

    @workflow
    def whole(payload):
        effects("workflow", payload)

    off = [flowdsl.on("order.paid", stepped), flowdsl.on("order.paid", whole), plain.unsubscribe]
    with Runtime(storage, clock=clock) as rt, other:
        rt.send("order.paid", 7)
        until(lambda: len(effects) == 3)
        assert until(lambda: [run.workflow for run in rt.runs()]) == [whole.path]
        assert other.runs() == []
        rt.runs()[0].result()
        for one in off:
            one()
        rt.send("order.paid", 8)
        with pytest.raises(ValueError):
            rt.send("  ")
    assert sorted(effects.log) == [("plain", 7), ("step", 7), ("workflow", 7)]


def test_progress_shows_counts_and_the_running_step(storage):
    """The handle and a query show counts and the running step."""
    inside, go_on = threading.Event(), threading.Event()

    @step
    def quick(n):
        return n

    @step(name="progress.slow")
    def slow():
        inside.set()
        go_on.wait(60)

    @workflow(id="w")
    def w():
        quick(1)
        quick(2)
        slow()

    with Runtime(storage) as rt:
        run = w.start()
        inside.wait(60)
        found = rt.query("w", "progress")
        assert (found["done"], found["known"], found["failed"]) == (2, 3, 0)
        (entry,) = run.progress()["running"]
        assert entry["path"] == "progress.slow"
        assert entry["started_at"].tzinfo is not None
        go_on.set()
        run.result()
        assert run.progress()["running"] == []


def test_a_memo_is_shared_until_it_expires_or_is_forgotten(storage, clock, flavour, effects: Effects):
    """Another run takes the shared result; after it expires or is forgotten, the body executes again."""

    @flavour.step(memo=True, expires="1 day")
    def f(n):
        return effects(n)

    @flavour.workflow
    def w(run):
        return (yield f(1))

    with Runtime(storage, clock=clock):
        assert [flavour.call(w, n) for n in range(3)] == [1, 1, 1]
        f.forget(1)
        assert flavour.call(w, 4) == 2
        clock.sleep(86_401)
        assert flavour.call(w, 5) == 3
        assert flavour.call(w, 0) == 3


def test_any_text_can_be_logged(runtime):
    """A message with lone surrogates is stored escaped."""

    @workflow(id="w")
    def w():
        flowdsl.log("name \udcff", file="\udcfe")

    w()
    (line,) = runtime.run("w").logs()
    assert line.message == "name \\udcff"
    assert line.fields["file"]
