"""Messages to a run, from outside and from other runs: each is sent once."""

import asyncio
import threading

import pytest
from verbsupport import until
from verbtools import with_a_crash_at_each_commit

import flowdsl
from flowdsl import Runtime, current_runtime, step, wait_for, workflow
from flowdsl.errors import RunFinished, RunNotFound
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import AddSignal
from flowdsl.storage.relay import RelayStorage


def unread(rt, run_id):
    """Payloads of the messages of a run that it has not taken."""
    return [signal.preview for signal in rt.storage.list_signals(run_id, unread=True)]


@pytest.fixture
def inbox():
    """A workflow that waits until it is told to end."""

    @workflow(id="inbox")
    def inbox():
        wait_for("end")

    return inbox


def test_a_message_is_sent_once_whatever_is_resumed(inbox, flavour):
    """A crash at each commit of the sender leaves one message for each call, in order."""

    @flavour.workflow(id="sender")
    def sender():
        run = current_runtime().run("inbox")
        run.signal("n", 1)
        run.signal("n", 1)
        current_runtime().signal("inbox", "n", 2)
        yield note()
        return "sent"

    @flavour.step
    def note():
        pass

    def execute(rt):
        inbox.start()
        return flavour.call(sender)

    for rt, result in with_a_crash_at_each_commit(MemoryStorage, execute):
        assert result == "sent"
        assert unread(rt, "inbox") == ["1", "1", "2"]


def test_an_awaited_message_leaves_the_event_loop_free(inbox):
    """``await rt.aio.signal(…)`` in an async body is stored by another thread, once for each call."""
    loops = set()

    class Watched(RelayStorage):
        def commit(self, operations):
            if any(isinstance(operation, AddSignal) for operation in operations):
                assert threading.get_ident() not in loops
            return super().commit(operations)

    @workflow(id="sender")
    async def sender():
        loops.add(threading.get_ident())
        await current_runtime().aio.signal("inbox", "n", 1)
        await current_runtime().aio.signal("inbox", "n", 1)
        await current_runtime().aio.signal("inbox", "n", 2)
        return "sent"

    def execute(rt):
        inbox.start()
        return asyncio.run(sender())

    for rt, result in with_a_crash_at_each_commit(lambda: Watched(MemoryStorage()), execute):
        assert result == "sent"
        assert unread(rt, "inbox") == ["1", "1", "2"]


def test_a_retried_step_sends_once(runtime, inbox):
    """A step that is retried sends the message of one call once."""
    fails = [True, True]

    @step
    def tell():
        current_runtime().signal("inbox", "n", "hello")
        if fails and fails.pop():
            raise OSError("again")

    @workflow
    def sender():
        tell()

    run = inbox.start()
    sender()
    assert unread(runtime, "inbox") == ["'hello'"]
    run.signal("end")


def test_a_replay_sends_nothing_to_a_run_that_has_ended(storage, inbox):
    """A replay sends nothing again, although the receiver has ended since."""
    fails = [True]

    @step
    def work():
        if fails.pop() if fails else False:
            raise LookupError("not yet")

    @workflow(id="sender")
    def sender():
        current_runtime().signal("inbox", "end")
        current_runtime().run("inbox").result()
        work.options(retry=None)()
        return "done"

    with Runtime(storage):
        inbox.start()
        fails[:] = [True] * 3
        with pytest.raises(LookupError):
            sender()
    fails.clear()
    with Runtime(storage):
        assert sender() == "done"


def test_a_receiver_that_has_ended_is_an_error_every_time(storage, inbox):
    """``RunFinished`` reaches the body on the first run and on the replay."""

    @workflow(id="sender")
    def sender():
        with pytest.raises(RunFinished):
            current_runtime().signal("inbox", "n")
        return "told"

    with Runtime(storage):
        inbox.start().signal("end")
        current_runtime().run("inbox").result()
        assert sender() == "told"


def test_a_key_of_ones_own_counts(runtime, inbox):
    """A second message with the same ``key`` is dropped, from a run as from outside."""

    @workflow
    def sender():
        current_runtime().signal("inbox", "n", 1, key="k")
        current_runtime().signal("inbox", "n", 2, key="k")

    run = inbox.start()
    sender()
    assert unread(runtime, "inbox") == ["1"]
    run.signal("end")


def test_a_message_with_a_key_has_one_id(inbox, runtime):
    """A message that is sent again with its key returns the id of the stored one."""
    run = inbox.start()
    first = run.signal("n", 1, key="a")
    assert run.signal("n", 2, key="a") == first
    assert run.signal("n", 1, key="b") != first
    assert next(iter(runtime.storage.list_signals("inbox", unread=True))).id == first


def test_a_signal_reaches_a_run_of_another_runtime(storage, flavour, verbs):
    """A signal from another runtime on the storage wakes the waiting run."""

    @flavour.workflow(id="w")
    def w():
        return (yield verbs.wait_for("go"))

    with Runtime(storage) as one, Runtime(storage) as two:
        run = w.start()
        until(lambda: two.storage.list_steps("w"))
        one.signal("w", "go", 1)
        assert run.result(60) == 1


def test_sender_and_key(runtime, hooks):
    """A second signal with the same key is dropped, and the hook is called for each taken signal."""

    @step
    def tell():
        runtime.signal("w", "n", 1, sender="ann", key="k")
        runtime.signal("w", "n", 2, sender="bob", key="k")
        runtime.signal("w", "n", 3)

    @workflow(id="w")
    def w():
        tell()
        return flowdsl.wait_for("n"), flowdsl.wait_for("n")

    assert w() == (1, 3)
    seen = [(s.run_id, s.name, s.payload, s.sender, s.key) for _, s in hooks.of("signal")]
    assert [one[:4] for one in seen] == [("w", "n", 1, "ann"), ("w", "n", 3, None)]
    assert seen[0][4] == "k"
    assert seen[1][4].startswith("w/")  # sent from inside run w: it derives from the call


def test_wrong_signals_raise_typed_errors(runtime, flavour, verbs):
    """An unknown run, a finished run, an empty name and a name that is no text raise typed errors."""

    @flavour.workflow(id="w")
    def w():
        yield verbs.store.set("a", 1)

    flavour.call(w)
    with pytest.raises(RunNotFound):
        runtime.signal("nobody", "n")
    with pytest.raises(RunFinished):
        runtime.signal("w", "n")
    for name, error in (("", ValueError), ("  ", ValueError), (3, TypeError)):
        with pytest.raises(error):
            runtime.signal("w", name)
