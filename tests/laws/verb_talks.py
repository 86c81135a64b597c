"""The nodes of random programs that talk with other runs, show something, begin anew, or say that they live."""

from typing import Any

from bodies import Bodies, step, workflow
from grammar import Slot
from verb_world import Refused
from worlds import world

import flowdsl
from flowdsl import Retry

__all__ = ["Talks", "attempt"]


def attempt() -> int:
    """The number of the attempt that is executing."""
    view = flowdsl.current_step()
    assert view is not None
    return view.attempt


_PATIENT = Retry(attempts=None, initial=1, jitter=0)


class Talks(Bodies):
    """Part of the :class:`Player`, which has the other steps and workflows."""

    work: Any
    refused: Any
    child: Any

    @workflow()
    def clerk(self, slot: Slot) -> Any:
        while True:
            message = yield from self.wait(self.verbs.receive("work", "refuse", "close"))
            if message.name == "close":
                return slot
            if message.name == "refuse":
                message.refuse(LookupError("no"))
            else:
                message.reply((yield from self.wait(self.work((*slot, message.payload)))))
                message.reply("a second answer does not count")

    @workflow()
    def waiter(self, slot: Slot) -> Any:
        yield from self.wait(self.verbs.wait_for(f"never {slot}"))

    @workflow()
    def cycle(self, slot: Slot, n: int = 1) -> Any:
        run = flowdsl.current_run()
        yield from self.wait(self.work((*slot, "generation", n)))
        flowdsl.publish("generations", n)
        world().expect((*slot, n), run.generation, n)
        if n == 1:
            run.signal("to the next", slot)
        if n < 3:
            return flowdsl.continue_as_new(slot, n + 1)
        message = yield from self.wait(self.verbs.receive("to the next"))
        world().expect(slot, message.payload, slot)
        return list(run.stream("generations"))

    @step(heartbeat="1000 days", retry=_PATIENT)
    def beating(self, slot: Slot) -> Any:
        view = flowdsl.current_step()
        world().did(slot)
        if view.attempt > 1:
            world().expect(slot, view.details, ("half", slot))
        view.heartbeat(("half", slot))
        if view.attempt < 3:
            raise OSError(slot)
        return slot

    @step(retry=_PATIENT)
    def endless(self, slot: Slot) -> Any:
        world().did(slot)
        if attempt() < 7:
            raise OSError(slot)
        return slot

    def _ask(self, run: Any, name: str, payload: Any = None) -> Any:
        if self.is_async:
            return flowdsl.current_runtime().aio.ask(run.id, name, payload)
        return run.ask(name, payload)

    def _ended(self, run: Any) -> Any:
        return run if self.is_async else run.result()

    def on_received(self, slot: Slot) -> Any:
        """The oldest over all names; answers to messages that nobody waits for go nowhere."""
        run, names = flowdsl.current_run(), [f"{name} {slot}" for name in "ab"]
        for n in (1, 0, 1):
            run.signal(names[n], (slot, n))
        for n in (1, 0, 1):
            message = yield from self.wait(self.verbs.receive(*names))
            world().expect(slot, (message.name, message.payload), (names[n], (slot, n)))
            message.reply("nobody asked")

    def on_asked(self, slot: Slot) -> Any:
        """A run that answers another one."""
        clerk = self.clerk.start(slot)
        answer = yield from self.wait(self._ask(clerk, "work", 7))
        world().expect(slot, answer, (*slot, 7))
        world().saw((*slot, "answer"), answer)
        try:
            yield from self.wait(self._ask(clerk, "refuse"))
        except LookupError as error:
            world().expect(slot, str(error), "no")
        else:
            raise AssertionError
        clerk.signal("close")
        return (yield from self.wait(self._ended(clerk)))

    def on_published(self, slot: Slot) -> Any:
        """Shown once, in order, and durable before the next body begins."""
        run = flowdsl.current_run()
        for n in range(2):
            flowdsl.publish(repr(slot), n)
            yield from self.wait(self.work((*slot, n)))
        world().expect(slot, run.latest(repr(slot)), 1)

    def on_raced(self, slot: Slot) -> Any:
        """The step wins, for the run never ends."""
        waiter = self.waiter.start(slot)
        value = yield from self.wait(self.verbs.race(self.work.submit(slot), waiter))
        world().expect(slot, value, slot)
        world().saw(slot, value)

    def on_detached(self, slot: Slot) -> Any:
        """A run of its own."""
        run = self.child.options(detached=True).start(slot, (("step",),))
        yield from self.wait(self.work((*slot, "beside")))
        return (yield from self.wait(self._ended(run)))

    def on_renewed(self, slot: Slot) -> Any:
        """A run that begins anew twice."""
        found = yield from self.wait(self.cycle(slot))
        world().expect(slot, found, [1, 2, 3])

    def on_beating(self, slot: Slot) -> Any:
        """A body that fails twice, and finds what it said."""
        value = yield from self.wait(self.beating(slot))
        world().saw(slot, value)

    def on_endless(self, slot: Slot) -> Any:
        """A body that is tried until it succeeds."""
        value = yield from self.wait(self.endless(slot))
        world().saw(slot, value)

    def on_tagged(self, slot: Slot) -> Any:
        """The run is found by its tags."""
        flowdsl.current_run().tag(**{f"at_{'_'.join(map(str, slot))}": "here"})
        yield from self.wait(self.work(slot))

    def on_tolerant(self, slot: Slot) -> Any:
        """Errors in the places of results."""
        places = [(*slot, n) for n in range(3)]
        found = yield from self.wait(self.refused.map(places[:2], return_exceptions=True))
        futures = [self.work.submit(places[2]), self.refused.submit(places[2])]
        found += yield from self.wait(self.verbs.gather(*futures, return_exceptions=True))
        kinds = [type(one).__name__ for one in found]
        world().expect(slot, kinds, ["Refused", "Refused", "tuple", "Refused"])
        assert all(isinstance(one, Refused) for one in found[:2])
