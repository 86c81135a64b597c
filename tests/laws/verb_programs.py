"""How each kind of node of a random program is executed: as a real workflow over real steps.

The grammar is ``grammar.VERBS``; what bodies note in ``verb_world.py``; the verbs between runs are in
``verb_talks.py``. The laws, and the lives that end anywhere, are in ``verb_laws.py``.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from bodies import step, workflow
from grammar import Program, Slot
from verb_talks import Talks, attempt
from verb_world import Failed, Refused
from worlds import world

import flowdsl
import flowdsl.aio
from flowdsl import Retry
from flowdsl.errors import FlowError, WaitTimeout

__all__ = ["PLAYERS", "Player"]

_QUICK = Retry(attempts=4, initial=1, jitter=0)


@flowdsl.on("laws.event")
def _hear(slot: Slot) -> None:
    with world().lock:
        world().heard[slot] += 1


class Player(Talks):
    """The steps and workflows, sync or async, and what each kind of node does with them."""

    def __init__(self, is_async: bool) -> None:
        super().__init__("laws", is_async)
        undos = {
            "undoable": self.take_back,
            "plainly_undoable": self.made(_take_back),
            "stubborn": self.cannot_take_back,
        }
        for name, undo in undos.items():
            setattr(self, name, self.step(name, undo=undo)(self._undoable))

    def _undoable(self, slot: Slot) -> Any:
        yield from self.wait(self.verbs.store.push("undoables", slot))
        world().did(slot)
        return slot

    @step()
    def work(self, slot: Slot) -> Any:
        world().did(slot)
        return slot

    @step()
    def timed(self, slot: Slot) -> Any:
        world().woke(slot, world().dues.get(slot))
        world().did(slot)
        return slot

    @step(retry=_QUICK)
    def flaky(self, slot: Slot) -> Any:
        pushed = yield from self.wait(self.verbs.store.push("flaky", slot))
        flowdsl.log("attempt", slot=repr(slot))
        yield from self.wait(self.work((*slot, "inner")))
        world().did(slot)
        if attempt() < 3:
            raise OSError(slot)
        return pushed

    @step(retry=Retry(attempts=2, initial=1, jitter=0))
    def refused(self, slot: Slot) -> Any:
        world().did(slot)
        raise Refused(17, slot)

    @step(retry=Retry(attempts=1))
    def gate(self, slot: Slot) -> Any:
        world().did(slot)
        if not world().open:
            raise Failed
        return slot

    @step(memo=True, expires="1 hour", ignore=("slot",))
    def memo(self, number: int, slot: Slot = ()) -> Any:
        world().did(slot)
        return ("memo", number)

    @step(in_doubt="raise")
    def doubt(self, slot: Slot) -> Any:
        world().did(slot)
        return slot

    @step(mode="try")
    def tried(self, slot: Slot) -> Any:
        world().did(slot)
        return slot

    @step(ignore=("value",))
    def act(self, slot: Slot, value: Any = None) -> Any:
        world().act(slot, value)
        return slot

    @step()
    def tell(self, run_id: str, name: str, payload: Any, slot: Slot) -> Any:
        world().did(slot)
        flowdsl.current_runtime().signal(run_id, name, payload, sender="laws", key=repr(slot))
        return slot

    @step(retry=_QUICK)
    def storing(self, slot: Slot) -> Any:
        found = [(yield from self.wait(self.verbs.store.increment("of steps", 2)))]
        yield from self.wait(self.verbs.store.set(repr(slot), slot))
        found.append((yield from self.wait(self.verbs.store.delete(repr(slot)))))
        found.append((yield from self.wait(self.verbs.store.push("of steps too", slot))))
        world().did(slot)
        if attempt() < 2:
            raise OSError(slot)
        return found

    @step()
    def scheduling(self, slot: Slot) -> Any:
        world().did(slot)
        yield from self.wait(self.verbs.schedule(self.work, (*slot, "scheduled"), delay="1 hour"))
        return slot

    @step()
    def nested(self, slot: Slot, body: Program) -> Any:
        return (yield from self.play(slot, body))

    @step(retry=_QUICK)
    def retried(self, slot: Slot, body: Program) -> Any:
        found = yield from self.play(slot, body)
        if attempt() < 2:
            raise OSError(slot)
        return found

    @step(retry=Retry(attempts=3, initial=1, jitter=0))
    def take_back(self, slot: Slot) -> None:
        world().tries["undo", *slot] += 1
        if world().tries["undo", *slot] == 1:
            raise OSError("at the second attempt")
        world().take_back(slot)

    @step(retry=Retry(attempts=2, initial=1, jitter=0))
    def cannot_take_back(self, slot: Slot) -> None:
        world().fails_to_take_back(slot, attempt())
        raise OSError("never")

    @workflow()
    def child(self, slot: Slot, body: Program) -> Any:
        return (yield from self.play(slot, body))

    @workflow()
    def lost(self, slot: Slot, body: Program) -> Any:
        yield from self.play(slot, body)
        yield from self.wait(self.refused((*slot, "lost")))

    @workflow(
        id="main",
        on_complete=lambda run: world().ends.append("complete"),
        on_error=lambda run, error: world().ends.append(type(error).__name__),
    )
    def main(self) -> Any:
        run = flowdsl.current_run()
        if run.generation > 1:
            return run.generation, {}
        found = yield from self.play((), world().program)
        if world().ending == "raise":
            raise Failed
        if world().ending == "retry":
            yield from self.wait(self.gate(("gate",)))
        if world().ending == "anew":
            # all branches have ended by then, if nobody was dead so long
            yield from self.wait(self.verbs.sleep("100 days"))
            yield from self._begin_anew()
        if world().ending == "timeout":
            yield from self.wait(self.verbs.wait_for("what never comes"))
        return found, (yield from self.wait(self.verbs.store.items()))

    def _begin_anew(self) -> Any:
        for _ in range(10):
            try:
                flowdsl.continue_as_new()
            except FlowError:
                yield from self.wait(self.verbs.sleep("1 hour"))

    # Steps

    def _same(self, slot: Slot, call: Any) -> Any:
        value = yield from self.wait(call)
        world().expect(slot, value, slot)
        world().saw(slot, value)
        return value

    def on_step(self, slot: Slot) -> Any:
        return (yield from self._same(slot, self.work(slot)))

    def on_doubt(self, slot: Slot) -> Any:
        return (yield from self._same(slot, self.doubt(slot)))

    def on_try_(self, slot: Slot) -> Any:
        value = yield from self.wait(self.tried(slot))
        world().expect(slot, value, slot)
        return value

    def on_flaky(self, slot: Slot) -> Any:
        value = yield from self.wait(self.flaky(slot))
        world().saw(slot, value)
        return value is not None

    def on_undoable(self, slot: Slot) -> Any:
        yield from self._same(slot, self.undoable(slot))
        with world().lock:
            if slot not in world().undoables and not world().dead:
                world().undoables.append(slot)

    def on_plainly_undoable(self, slot: Slot) -> Any:
        yield from self._same(slot, self.plainly_undoable(slot))
        with world().lock:
            if slot not in world().undoables and not world().dead:
                world().undoables.append(slot)

    def on_stubborn(self, slot: Slot) -> Any:
        yield from self._same(slot, self.stubborn(slot))

    def on_memo(self, slot: Slot) -> Any:
        """The second call is answered by the memo, which may have expired when that is replayed."""
        for at in (slot, (*slot, "again")):
            value = yield from self.wait(self.memo(len(slot) % 2, at))
            world().expect(at, value, ("memo", len(slot) % 2))
            world().saw(at, value)
        return value

    def on_handled(self, slot: Slot) -> Any:
        try:
            yield from self.wait(self.refused(slot))
        except Refused as error:
            world().expect(slot, (error.code, error.slot, str(error)), (17, slot, "code 17"))
            yield from self.wait(self.work((*slot, "handled")))
            world().saw(slot, "handled")
            return error.code
        raise AssertionError

    def on_silent(self, slot: Slot) -> Any:
        try:
            yield from self.wait(self.refused(slot))
        except Refused as error:
            world().saw(slot, error.code)
            return error.code
        raise AssertionError

    def on_nested(self, slot: Slot, body: Program) -> Any:
        return (yield from self.wait(self.nested(slot, body)))

    def on_retried(self, slot: Slot, body: Program) -> Any:
        return (yield from self.wait(self.retried(slot, body)))

    # The run store

    def on_increment(self, slot: Slot) -> Any:
        value = yield from self.wait(self.verbs.store.increment("n", 1))
        world().saw(slot, value)
        return value > 0

    def on_push(self, slot: Slot) -> Any:
        value = yield from self.wait(self.verbs.store.push("l", slot))
        world().saw(slot, value)
        return value > 0

    def on_set(self, slot: Slot) -> Any:
        yield from self.wait(self.verbs.store.set(repr(slot), slot))
        value = yield from self.wait(self.verbs.store.get(repr(slot)))
        world().expect(slot, value, slot)

    def on_delete(self, slot: Slot) -> Any:
        yield from self.wait(self.verbs.store.set(repr(slot), 1))
        found = (
            (yield from self.wait(self.verbs.store.delete(repr(slot)))),
            (yield from self.wait(self.verbs.store.delete(repr(slot)))),
        )
        world().expect(slot, found, (True, False))

    def on_get(self, slot: Slot) -> Any:
        value = yield from self.wait(self.verbs.store.get("n", "none"))
        if flowdsl.current_step() is None:  # in a step, reads are live
            yield from self.wait(self.act(slot, value))
            world().saw(slot, value)

    def on_items(self, slot: Slot) -> Any:
        value = yield from self.wait(self.verbs.store.items())
        if flowdsl.current_step() is None:
            yield from self.wait(self.act(slot, value))
            world().saw(slot, value)

    def on_store_in_step(self, slot: Slot) -> Any:
        value = yield from self.wait(self.storing(slot))
        world().saw(slot, value)
        return len(value)

    # Time and signals

    def on_sleep(self, slot: Slot) -> Any:
        seconds = world().length(slot, 72)
        due = world().due("sleep", f"{seconds:g} s", seconds)
        yield from self.wait(self.verbs.sleep(timedelta(seconds=seconds)))
        world().woke(slot, due)

    def on_sleep_until(self, slot: Slot) -> Any:
        moment = flowdsl.now() + timedelta(hours=5)
        yield from self.wait(self.verbs.sleep_until(moment))
        if moment.timestamp() > world().clock.now() + 0.01 and not world().dead:
            world().wrong.append(f"{slot} slept until {moment} and woke before that")

    def on_early(self, slot: Slot) -> Any:
        name = f"early {slot}"
        yield from self.wait(self.tell(flowdsl.current_run().id, name, slot, (*slot, "tell")))
        value = yield from self.wait(self.verbs.wait_for(name, timeout="1 day"))
        world().expect(slot, value, slot)

    def on_late(self, slot: Slot) -> Any:
        name = f"late {slot}"
        run_id = flowdsl.current_run().id
        yield from self.wait(
            self.verbs.schedule(self.tell, run_id, name, slot, (*slot, "scheduled"), delay="1 hour")
        )
        value = yield from self.wait(self.verbs.wait_for(name, timeout="10 days"))
        world().expect(slot, value, slot)

    def on_chosen(self, slot: Slot) -> Any:
        name, run_id = f"chosen {slot}", flowdsl.current_run().id
        yield from self.wait(self.tell(run_id, name, {"to": "others"}, (*slot, "tell", 0)))
        yield from self.wait(self.tell(run_id, name, {"to": "me", "slot": slot}, (*slot, "tell", 1)))
        value = yield from self.wait(self.verbs.wait_for(name, where={"to": "me"}))
        world().expect(slot, value, {"to": "me", "slot": slot})
        value = yield from self.wait(
            self.verbs.wait_for(name, where=lambda payload: payload["to"] == "others")
        )
        world().expect(slot, value, {"to": "others"})

    def on_two_signals(self, slot: Slot) -> Any:
        name, run_id = f"two {slot}", flowdsl.current_run().id
        for n in range(2):
            yield from self.wait(self.tell(run_id, name, n, (*slot, "tell", n)))
        for n in range(2):
            value = yield from self.wait(self.verbs.wait_for(name))
            world().expect(slot, value, n)

    def on_in_vain(self, slot: Slot) -> Any:
        name, seconds = f"never {slot}", world().length(slot, 2)
        due = world().due("wait", repr(name), seconds)
        try:
            yield from self.wait(self.verbs.wait_for(name, timeout=seconds))
        except WaitTimeout:
            world().woke(slot, due)
            return "in vain"
        raise AssertionError

    # Recorded values

    def on_now(self, slot: Slot) -> Any:
        yield from self.wait(self.act(slot, flowdsl.now()))

    def on_uuid4(self, slot: Slot) -> Any:
        value = str(flowdsl.uuid4())
        yield from self.wait(self.act(slot, value))
        return value

    def on_rng(self, slot: Slot) -> Any:
        value = flowdsl.rng().random()
        yield from self.wait(self.act(slot, value))
        return value

    def on_log(self, slot: Slot) -> Any:
        flowdsl.log("line", slot=repr(slot))
        return None
        yield

    def on_send(self, slot: Slot) -> Any:
        with world().lock:
            world().sent.add(slot)
        flowdsl.send("laws.event", slot)
        return None
        yield

    # Branches and children

    def on_schedule(self, slot: Slot) -> Any:
        seconds, there = world().length(slot, 1), (*slot, "scheduled")
        world().arm(there, world().due("schedule", f"slot={there!r}", seconds))
        yield from self.wait(self.verbs.schedule(self.timed, there, delay=seconds))

    def on_schedule_from_step(self, slot: Slot) -> Any:
        yield from self.wait(self.scheduling(slot))

    def on_child(self, slot: Slot, body: Program) -> Any:
        return (yield from self.wait(self.child(slot, body)))

    def on_started(self, slot: Slot, body: Program) -> Any:
        run = self.child.start(slot, body)
        yield from self.wait(self.work((*slot, "beside")))
        return (yield from self.wait(run if self.is_async else run.result()))

    def on_lost_child(self, slot: Slot, body: Program) -> Any:
        try:
            yield from self.wait(self.lost(slot, body))
        except Refused as error:
            yield from self.wait(self.work((*slot, "handled")))
            return error.code
        raise AssertionError

    def on_submitted(self, slot: Slot, body: Program) -> Any:
        futures = [self.nested.submit((*slot, n), (node,)) for n, node in enumerate(body)]
        return (yield from self.wait(self.verbs.gather(*futures)))

    def on_mapped(self, slot: Slot, body: Program) -> Any:
        return (
            yield from self.wait(
                self.nested.map([(*slot, n) for n in range(len(body))], [(node,) for node in body])
            )
        )

    def on_branches(self, slot: Slot, body: Program) -> Any:
        if not self.is_async:
            futures = [self.nested.submit((*slot, n), (node,)) for n, node in enumerate(body)]
            return [future.result() for future in reversed(futures)][::-1]
        return (
            yield from self.wait(
                self.verbs.gather(*(self.branch((*slot, n), (node,)) for n, node in enumerate(body)))
            )
        )

    def on_own_tasks(self, slot: Slot, body: Program) -> Any:
        """Tasks or threads of the body's own, each with several steps of its own content."""
        branch = self.made(self._two)
        return (yield from self.beside([partial(branch, (*slot, n), node) for n, node in enumerate(body)]))[0]

    def _two(self, at: Slot, node: Any) -> Any:
        nested = yield from self.wait(self.nested((*at, "a"), (("step",), node, ("step",))))
        return [nested, (yield from self.wait(self.work((*at, "b"))))]


def _take_back(slot: Slot) -> None:
    world().take_back(slot)


PLAYERS = {is_async: Player(is_async) for is_async in (False, True)}
