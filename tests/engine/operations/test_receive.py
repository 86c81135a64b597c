"""``receive``: a message of any of several names, and its answer."""

from collections import Counter

import pytest
from support import Crash, Mortal, Relay, script, spawn
from verbtools import until, with_a_crash_at_each_commit

from flowdsl import Message, Runtime, aio, receive, step, wait_for, workflow
from flowdsl.errors import Refused, RunFinished, RunNotFound, WaitTimeout
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import TakeSignal
from flowdsl.testing import VirtualClock


def test_the_oldest_over_all_names_comes_first(runtime, flavour, verbs):
    """``receive`` takes the oldest message of all names, with name, payload and sender."""

    @flavour.step
    def tell():
        runtime.signal("w", "b", 1, sender="Ada")
        runtime.signal("w", "a", 2)
        runtime.signal("w", "c", 3)
        runtime.signal("w", "b", 4)

    @flavour.workflow(id="w")
    def w():
        yield tell()
        found = []
        for _ in range(3):
            message = yield verbs.receive("a", "b")
            found.append((message.name, message.payload, message.sender))
        return found, (yield verbs.wait_for("c"))

    assert flavour.call(w) == ([("b", 1, "Ada"), ("a", 2, None), ("b", 4, None)], 3)


def test_where_looks_at_the_payload(runtime, flavour, verbs):
    """A predicate, or the items of a dict, select messages by payload."""

    @flavour.step
    def tell():
        runtime.signal("w", "a", {"n": 1})
        runtime.signal("w", "b", {"n": 2})

    @flavour.workflow(id="w")
    def w():
        yield tell()
        first = yield verbs.receive("a", "b", where={"n": 2})
        second = yield verbs.receive("a", "b", where=lambda payload: payload["n"] == 1)
        return first.name, second.name

    assert flavour.call(w) == ("b", "a")


def test_a_timeout_raises_and_names_all(storage, clock, flavour, verbs):
    """``WaitTimeout`` names the messages that did not come, and a replay raises it again."""

    @flavour.step
    def after():
        pass

    @flavour.workflow(id="w")
    def w():
        with pytest.raises(WaitTimeout, match="'a' or 'b'"):
            yield verbs.receive("a", "b", timeout="1 day")
        yield after()
        return (yield verbs.receive("a", "b")).payload

    with Runtime(Mortal(storage, 3), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        rt.signal("w", "b", 5)
        assert flavour.call(w) == 5


@pytest.mark.parametrize("names", [(), (1,), ("",)])
def test_names_are_checked(runtime, names):
    """``receive`` needs at least one name, and each name is a text."""

    @workflow
    def w():
        receive(*names)

    with pytest.raises((TypeError, ValueError)):
        w()


def answering(flavour, verbs, count):
    """A workflow that doubles numbers and refuses what is none."""

    @flavour.workflow(id="w")
    def w():
        for _ in range(count):
            message = yield verbs.receive("double", "stop")
            if message.name == "stop":
                return "stopped"
            if isinstance(message.payload, int):
                message.reply(message.payload * 2)
            else:
                message.refuse(ValueError(f"{message.payload!r} is no number"))
        return "done"

    return w


def test_ask_gets_the_reply(storage, flavour, verbs):
    """``run.ask`` returns the reply, and raises the error of ``refuse``."""
    w = answering(flavour, verbs, 3)
    with Runtime(storage) as rt:
        run = w.start()
        assert run.ask("double", 4) == 8
        with pytest.raises(ValueError, match="'x' is no number"):
            rt.ask("w", "double", "x")
        run.signal("stop")
        assert run.result() == "stopped"


def test_ask_can_be_awaited(storage):
    """``rt.aio.ask`` waits without blocking the event loop."""
    import asyncio

    @workflow(id="w")
    async def w():
        message = await aio.receive("double")
        message.reply(message.payload * 2)
        return "done"

    async def main():
        async with Runtime(storage) as rt:
            run = w.start()
            return await rt.aio.ask("w", "double", 21), await run

    assert asyncio.run(main()) == (42, "done")


def test_the_first_reply_counts(storage):
    """A second reply or refusal to a message is ignored."""

    @workflow(id="w")
    def w():
        message = receive("ask")
        message.reply(1)
        message.reply(2)
        message.refuse(ValueError("too late"))

    with Runtime(storage):
        assert w.start().ask("ask") == 1


def test_a_message_that_nobody_asked_can_be_replied_to(runtime):
    """A reply to a plain signal is ignored."""

    @step
    def tell():
        runtime.signal("w", "n", 1)

    @workflow(id="w")
    def w():
        tell()
        message = receive("n")
        message.reply("thanks")
        return message.payload

    assert w() == 1


def test_an_answered_key_gives_the_reply_again_even_after_the_end(storage):
    """The same key asks once, and the reply can be read after the end of the run."""

    @workflow(id="w")
    def w():
        receive("ask").reply("yes")
        return "done"

    with Runtime(storage) as rt:
        run = w.start()
        assert run.ask("ask", key="k1") == "yes"
        assert run.result() == "done"
        assert rt.ask("w", "ask", key="k1") == "yes"
        with pytest.raises(RunFinished):
            rt.ask("w", "ask", key="k2")
    with Runtime(storage) as rt:
        assert rt.ask("w", "ask", key="k1") == "yes"


def test_a_run_that_ends_without_replying(storage):
    """If the run ends without a reply, the asker gets ``RunFinished``."""

    @workflow(id="w")
    def w():
        receive("ask")

    with Runtime(storage):
        with pytest.raises(RunFinished):
            w.start().ask("ask")


def test_asking_takes_no_longer_than_its_timeout(storage):
    """``WaitTimeout`` ends the asker's wait, and the question stays."""

    @workflow(id="w")
    def w():
        wait_for("begin")
        message = receive("ask")
        message.reply(message.payload)

    with Runtime(storage) as rt:
        run = w.start()
        with pytest.raises(WaitTimeout):
            run.ask("ask", 7, timeout=0.01, key="k")
        run.signal("begin")
        assert run.ask("ask", 8, key="k") == 7
        with pytest.raises(RunNotFound):
            rt.ask("nobody", "ask")


class Odd(Exception):
    """An error that does not pickle."""

    def __init__(self):
        super().__init__("odd")
        self.lock = __import__("threading").Lock()


def test_an_error_that_cannot_be_stored_is_refused_as_such(storage):
    """An error that cannot be stored reaches the asker with its text, as itself or as ``Refused``."""

    @workflow(id="w")
    def w():
        receive("ask").refuse(Odd())

    with Runtime(storage):
        with pytest.raises((Odd, Refused), match="odd"):
            w.start().ask("ask")


def test_a_reply_survives_a_crash_at_each_commit(flavour, verbs):
    """After a crash at each commit a question has one answer, and the body sees each message once."""
    w = answering(flavour, verbs, 3)

    def execute(rt):
        if rt.run("w") is None:
            rt.storage  # the run is begun by the call below; messages may come before
        run = w.start()
        for n in (1, 2):
            rt.signal("w", "double", n, key=f"s{n}")
        rt.signal("w", "stop", key="end")
        return run.result(60)

    for _, result in with_a_crash_at_each_commit(MemoryStorage, execute):
        assert result == "stopped"


def test_five_hundred_questions(storage):
    """Each of 500 questions gets its own answer."""

    @workflow(id="w")
    def w():
        total = 0
        while True:
            message = receive("add", "total")
            if message.name == "total":
                message.reply(total)
                return total
            total += message.payload
            message.reply(total)

    with Runtime(storage):
        run = w.start()
        expected = 0
        for n in range(100):
            expected += n
            assert run.ask("add", n) == expected
        assert run.ask("total") == expected


def test_a_kill_between_message_and_reply(tmp_path):
    """After a kill between message and reply the next process answers, while the asker waits."""
    code = script(
        tmp_path / "answers.py",
        """
        import sys
        from flowdsl import Runtime, receive, step, workflow
        @step
        def think(n):
            print("thinking", flush=True)
            if sys.argv[1] == "first":
                sys.stdin.read()
            return n * 2
        @workflow(id="w")
        def w():
            message = receive("ask")
            message.reply(think(message.payload))
        with Runtime("sqlite:///flow.db"): w()
        """,
    )
    first = spawn(code, "first")
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        until(lambda: rt.run("w"))
        rt.signal("w", "nothing")
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(rt.ask, "w", "ask", 4, timeout=60)
            assert first.stdout.readline() == "thinking\n"
            first.kill()
            first.communicate()
            second = spawn(code, "second")
            assert answer.result(60) == 8
            assert second.communicate(timeout=60)[0] == "thinking\n"


def test_messages_keep_their_place_beside_wait_for(runtime, flavour, verbs):
    """``wait_for`` and ``receive`` take from the same queue of messages."""

    @flavour.step
    def tell():
        for n in range(4):
            runtime.signal("w", "n", n)

    @flavour.workflow(id="w")
    def w():
        yield tell()
        return [
            (yield verbs.wait_for("n")),
            (yield verbs.receive("n")).payload,
            (yield verbs.wait_for("n")),
            (yield verbs.receive("n", "m")).payload,
        ]

    assert flavour.call(w) == [0, 1, 2, 3]


def test_a_message_reads_well():
    """The repr of a message shows name and payload."""
    with Runtime("memory://", clock=VirtualClock()) as rt:

        @step
        def tell():
            rt.signal("w", "n", {"a": 1}, sender="Ada")

        @workflow(id="w")
        def w():
            tell()
            message = receive("n")
            assert isinstance(message, Message)
            return repr(message)

        assert w() == "<Message 'n' from 'Ada': {'a': 1}>"


class CountsMessages(Relay):
    """Counts commits and reads of messages, and what the counts are whenever a message is taken."""

    def __init__(self):
        super().__init__(MemoryStorage())
        self.counts = Counter()
        self.taken = []

    def commit(self, operations, /):
        self.counts["commit"] += 1
        if any(isinstance(op, TakeSignal) for op in operations):
            self.taken.append(dict(self.counts))
        return self.inner.commit(operations)

    def list_signals(self, *args, **options):
        found = self.inner.list_signals(*args, **options)
        self.counts["read"] += len(found)
        return found


def test_the_last_of_many_messages_costs_what_the_first_did():
    """Each of 500 messages takes a constant number of commits and of reads."""

    @workflow(id="inbox")
    def inbox():
        return [receive("add", "remove").payload for _ in range(500)]

    storage = CountsMessages()
    with Runtime(storage) as runtime:
        run = inbox.start()
        for n in range(500):
            run.signal(("add", "remove")[n % 2], n, key=str(n))
        assert run.result() == list(range(500))
        assert runtime.run("inbox").status == "completed"
    reads = storage.taken[-1].get("read", 0) - storage.taken[0].get("read", 0)
    assert len(storage.taken) == 500
    assert reads <= 500 * 4
    late = storage.taken[-1]["commit"] - storage.taken[400]["commit"]
    assert late <= 100 * 3 + 20  # taken, waited for, sent meanwhile; and what keeps the lease
