"""``wait_for``: a run waits for a signal."""

import pytest
from support import Crash, Mortal, script, spawn
from verbsupport import until

from flowdsl import Runtime, aio, step, workflow
from flowdsl.errors import WaitTimeout


def test_early_signals_are_kept_and_come_in_order(runtime, flavour, verbs):
    """A hundred signals before the first wait are kept, and each wait takes the oldest of its name."""

    @flavour.step
    def tell():
        for n in range(100):
            runtime.signal("w", "n", n)
        runtime.run("w").signal("other", "x", sender="me")

    @flavour.workflow(id="w")
    def w():
        yield tell()
        found = []
        for _ in range(100):
            found.append((yield verbs.wait_for("n")))
        return found, (yield verbs.wait_for("other"))

    assert flavour.call(w) == (list(range(100)), "x")


@pytest.mark.parametrize("where", [{"id": 7}, lambda payload: payload["id"] == 7])
def test_a_wait_takes_the_oldest_that_matches(runtime, flavour, verbs, where):
    """A predicate, or the items of a dict, select a signal; others stay for another wait."""

    @flavour.step
    def tell():
        for payload in ({"id": 1}, {"id": 7, "n": 1}, {"id": 7, "n": 2}):
            runtime.signal("w", "n", payload)

    @flavour.workflow(id="w")
    def w():
        yield tell()
        return (yield verbs.wait_for("n", where=where)), (yield verbs.wait_for("n"))

    assert flavour.call(w) == ({"id": 7, "n": 1}, {"id": 1})


def test_a_timeout_raises_and_is_replayed(storage, clock, flavour, verbs):
    """``WaitTimeout`` is a ``TimeoutError``, and a later signal does not change a recorded timeout."""

    @flavour.step
    def after():
        pass

    @flavour.workflow(id="w")
    def w():
        try:
            yield verbs.wait_for("n", timeout="3 days")
        except WaitTimeout as error:
            assert isinstance(error, TimeoutError)
        yield after()
        return (yield verbs.wait_for("n"))

    before = clock.now()
    with Runtime(Mortal(storage, 3), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        rt.signal("w", "n", 5)
        assert flavour.call(w) == 5
    assert clock.now() - before == 3 * 86_400


def test_a_signal_before_the_deadline_beats_the_timeout_even_when_it_is_read_later(storage, flavour, verbs):
    """A signal before the deadline wins, although the process was dead at the deadline."""
    from flowdsl.testing import VirtualClock

    @flavour.workflow(id="w")
    def w():
        return (yield verbs.wait_for("n", timeout=100))

    for sent, expected in ((50.0, "in time"), (150.0, None)):
        with Runtime(Mortal(storage, 2), clock=VirtualClock(0.0)), pytest.raises(Crash):
            flavour.call(w)
        with Runtime(storage, clock=VirtualClock(sent)) as rt:
            rt.signal("w", "n", "in time")
        with Runtime(storage, clock=VirtualClock(500.0)) as rt:
            if expected:
                assert flavour.call(w) == expected
            else:
                with pytest.raises(WaitTimeout):
                    flavour.call(w)
            rt.delete("w")


def test_a_kill_while_waiting_then_a_restart_then_the_signal(tmp_path):
    """After a real kill while waiting, a signal from another process lets the run continue."""
    code = script(
        tmp_path / "waits.py",
        """
        import sys
        from flowdsl import Runtime, step, wait_for, workflow
        @step
        def before(): print("before", flush=True)
        @workflow(id="w")
        def w():
            before()
            return wait_for("go")
        with Runtime("sqlite:///flow.db"): print("got", w(), flush=True)
        """,
    )
    first = spawn(code)
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        until(lambda: rt.run("w") and any(s.kind == "wait" for s in rt.run("w").steps()))
        first.kill()
        assert first.communicate()[0] == "before\n"
        second = spawn(code)
        rt.signal("w", "go", "on")
        assert second.communicate(timeout=60)[0] == "got on\n"


def test_two_branches_take_one_signal_each(runtime):
    """Two waiting branches take one signal each."""
    import asyncio

    @step
    async def tell():
        for n in range(20):
            runtime.signal("w", "n", n)

    @workflow(id="w")
    async def w():
        async def branch():
            return await aio.wait_for("n")

        *found, _ = await aio.gather(*(branch() for _ in range(20)), tell())
        return sorted(found)

    assert asyncio.run(w()) == list(range(20))
