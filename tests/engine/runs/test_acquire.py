"""One owner: real processes, killed and forked, on one SQLite file."""

import asyncio
import threading

import pytest
from attrs import evolve
from support import Effects, Mortal, Relay, is_closed, unreachable

from flowdsl import Retry, RunStatus, Runtime, step, workflow
from flowdsl.errors import LeaseLost, StorageUnavailable
from flowdsl.runtime import engine_of
from flowdsl.storage.base import ClaimRun, DeleteRun, Found, Opened, PutStep, UpdateRun

# A stale owner, in one process


def take_over(storage, run_id: str) -> None:
    """Another process claims the run."""
    record = storage.get_run(run_id)
    (outcome,) = storage.commit([ClaimRun(run_id, record.epoch, "elsewhere", 30.0, force=True)])
    assert isinstance(outcome, Opened)


def test_the_write_of_a_stale_owner_is_refused_by_the_storage(storage, clock, effects: Effects):
    """The storage refuses the write of a former owner with ``LeaseLost``, and the body's result is
    discarded."""

    @step
    def f(x):
        effects("f", x)
        if x == 1:
            take_over(storage, "stolen")
        return x

    @workflow(id="stolen", on_error=lambda run, error: effects("on_error"))
    def w():
        try:
            return [f(x) for x in range(3)]
        except Exception:
            effects("swallowed")

    with Runtime(storage, clock=clock), pytest.raises(LeaseLost, match="stolen"):
        w()
    record = storage.get_run("stolen")
    assert (record.owner, record.epoch, record.status) == ("elsewhere", 2, RunStatus.RUNNING)
    assert [s.args for s in storage.list_steps("stolen")] == ["x=0"]
    assert effects == [("f", 0), ("f", 1)]


def test_a_stale_owner_cannot_finish_the_run(storage, clock):
    """A former owner cannot write the outcome of the run."""

    @workflow(id="stolen")
    def w():
        take_over(storage, "stolen")
        return "mine"

    with Runtime(storage, clock=clock), pytest.raises(LeaseLost):
        w()
    assert storage.get_run("stolen").status is RunStatus.RUNNING
    assert storage.get_run("stolen").result is None


@pytest.mark.parametrize("options", [{"id": "mine"}, {}], ids=["id", "numbered"])
def test_a_run_is_ours_from_its_commit_on(storage, clock, options):
    """From the commit that opens or claims a run, other threads of the process see a living owner."""
    seen: list[tuple[type, bool]] = []

    class Peeping(Relay):
        def commit(self, operations, /):
            outcomes = super().commit(operations)
            for operation, outcome in zip(operations, outcomes, strict=True):
                if isinstance(outcome, Opened):
                    seen.append((type(operation).__name__, runtime.run(outcome.run.id).interrupted))
            return outcomes

    @workflow
    def w():
        if len(seen) == 1:
            raise ValueError("the first time")

    with Runtime(Peeping(storage), clock=clock) as runtime:
        call = w.options(**options)
        with pytest.raises(ValueError):
            call()
        call()
        assert list(engine_of(runtime).owned) == []
    assert seen == [("OpenRun", False), ("ClaimRun", False)]


def test_a_run_that_ended_meanwhile_is_not_executed_again(storage, clock, effects: Effects):
    """A caller that saw the run running, and then no owner, gets the outcome that was stored meanwhile."""

    class Late(Relay):
        def commit(self, operations, /):
            return [
                Found(tuple(evolve(run, status=RunStatus.RUNNING, owner=owner) for run in outcome.runs))
                if isinstance(outcome, Found)
                else outcome
                for outcome in super().commit(operations)
            ]

    @workflow(id="once")
    def w():
        return effects("w")

    with Runtime(Late(storage), clock=clock) as runtime:
        owner = engine_of(runtime).owned.owner
        assert w() == 1
        assert w() == 1
    assert (effects.count("w"), storage.get_run("once").epoch) == (1, 1)


def test_a_run_that_is_deleted_while_it_executes_is_lost(storage, clock):
    """A run that is deleted while it executes is not stored again."""

    @step
    def f(x):
        if x == 1:
            runtime.delete("gone")
        return x

    @workflow(id="gone")
    def w():
        return [f(x) for x in range(3)]

    with Runtime(storage, clock=clock) as runtime, pytest.raises(LeaseLost, match="deleted"):
        w()
    assert storage.get_run("gone") is None
    assert storage.list_steps("gone") == []


def test_a_run_that_is_deleted_before_it_is_continued_begins_anew(storage, clock, effects: Effects):
    """An interrupted run that somebody deletes while a call is about to continue it begins anew."""

    class Deleting(Relay):
        def commit(self, operations):
            if isinstance(operations[0], ClaimRun):
                self.inner.commit([DeleteRun(operations[0].run_id)])
            return self.inner.commit(operations)

    @workflow(id="gone")
    def w():
        if effects("w") == 1:
            raise KeyboardInterrupt
        return "done"

    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        w()
    before = storage.get_run("gone")
    with Runtime(Deleting(storage), clock=clock):
        assert w() == "done"
    after = storage.get_run("gone")
    assert after.status is RunStatus.COMPLETED
    assert after.epoch > before.epoch


def test_an_owner_elsewhere_is_waited_for_until_its_lease_runs_out(storage):
    """An owner on another host is waited for until its lease is over."""

    @workflow(id="far")
    def w():
        return storage.now()

    with Runtime(storage) as runtime:
        with pytest.raises(KeyboardInterrupt):
            workflow(id="far", name=w.path)(_interrupted)()
        record = storage.get_run("far")
        storage.commit([ClaimRun("far", record.epoch, "otherhost|boot|ns|1|2|token", 60.0, force=True)])
        assert not runtime.run("far").interrupted
        storage.commit([UpdateRun("far", {}, epoch=record.epoch + 1, lease=0.3)])
        lease_until = storage.get_run("far").lease_until
        assert w() >= lease_until
        assert storage.get_run("far").epoch == 3


def _interrupted():
    raise KeyboardInterrupt


def test_an_owner_elsewhere_that_renews_is_alive(storage):
    """A numbered call that sees the owner on another host renew its lease starts the next number."""
    stop = [True]

    @workflow
    def w():
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return "done"

    with Runtime(storage) as runtime:
        with pytest.raises(KeyboardInterrupt):
            w()
        (run,) = runtime.runs()
        record = storage.get_run(run.id)
        storage.commit([ClaimRun(run.id, record.epoch, "otherhost|boot|ns|1|2|token", 60.0, force=True)])
        beat = threading.Event()

        def renew():
            while not beat.wait(0.05):
                storage.commit([UpdateRun(run.id, {}, epoch=record.epoch + 1, lease=60.0)])

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            assert w() == "done"
        finally:
            beat.set()
            thread.join()
        assert sorted((r.number, str(r.status)) for r in runtime.runs()) == [(1, "running"), (2, "completed")]


def test_leases_are_renewed_while_a_run_executes(storage):
    """A body that takes longer than the lease does not lose its run."""
    gate = threading.Event()

    @step
    def f():
        assert gate.wait(60), "nothing renewed the lease"
        return "kept"

    @workflow(id="long")
    def w():
        return f()

    with Runtime(storage, lease=0.3):
        run = w.start()
        first = storage.get_run("long").lease_until
        seen = 0
        while run.status == "running" and storage.get_run("long").lease_until <= first + 0.3:
            seen = storage.wait_for_change(seen, 0.1)
        gate.set()
        assert run.result(60) == "kept"
    assert storage.get_run("long").epoch == 1


def test_a_lease_that_is_lost_stops_an_async_run_where_it_stands(storage, effects: Effects):
    """An async run whose lease is lost is cancelled within a moment."""

    @step
    async def forever():
        effects("begun")
        await asyncio.sleep(600)

    @workflow(id="taken")
    async def w():
        await forever()

    async def main():
        task = asyncio.create_task(w())
        while not effects:
            await asyncio.sleep(0.01)
        take_over(storage, "taken")
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(task, 60)

    with Runtime(storage, lease=0.3):
        asyncio.run(main())
    assert storage.get_run("taken").owner == "elsewhere"


class Unkept(Relay):
    """A storage that the keeper of leases does not reach: nothing is renewed, and nothing is noticed."""

    def commit(self, operations):
        self._require_no_keeper()
        return super().commit(operations)

    def attention(self, run_ids):
        self._require_no_keeper()
        return super().attention(run_ids)

    def _require_no_keeper(self):
        if threading.current_thread().name == "flowdsl-keeper":
            raise unreachable()


def stand_still(seconds: float) -> None:
    """As a process does that is stopped: nothing of it renews a lease meanwhile."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "free"])
def test_no_body_begins_when_the_lease_is_over_and_somebody_has_the_run(
    storage, effects: Effects, is_taken: bool
):
    """A process that stood still past its lease begins no body if another process has the run."""

    @step
    def f(x):
        effects(x)

    @workflow(id="frozen")
    def w():
        f(1)
        if is_taken:
            take_over(storage, "frozen")
        stand_still(0.15)
        f(2)
        return "went on"

    with Runtime(Unkept(storage), lease=0.1):
        if is_taken:
            with pytest.raises(LeaseLost):
                w()
        else:
            assert w() == "went on"
    assert effects == ([1] if is_taken else [1, 2])


def test_no_attempt_begins_when_the_lease_is_over_and_somebody_has_the_run(storage, effects: Effects):
    """An async run that stood still past its lease begins no further attempt if another process has it."""

    @step(retry=Retry(attempts=3, initial=0.15, jitter=0.0))
    async def f():
        effects("f")
        raise OSError("again")

    class Taken(Unkept):
        """Another process takes the run when a failed attempt was stored."""

        def commit(self, operations):
            outcomes = super().commit(operations)
            if any(isinstance(op, PutStep) for op in operations):
                take_over(self.storage, "frozen")
            return outcomes

    @workflow(id="frozen")
    async def w():
        await f()

    with Runtime(Taken(storage), lease=0.1), pytest.raises(LeaseLost):
        asyncio.run(w())
    assert effects == ["f"]


# Fork


def test_a_start_whose_commit_may_have_happened_leaves_an_abandoned_run(storage, clock):
    """A ``start`` whose commit failed with an unknown outcome leaves a run that nobody here executes."""

    @workflow(id="w")
    def w():
        return 1

    with Runtime(Mortal(storage, 0, after=True, error=unreachable), clock=clock) as dead:
        with pytest.raises(StorageUnavailable) as caught:
            w.start()
        with Runtime(storage, clock=clock) as rt:
            assert rt.run("w").interrupted
            assert w() == 1
        assert caught.value
        assert not is_closed(dead)


def test_the_keeper_outlives_whatever_a_storage_raises(storage, caplog):
    """The renewal of leases goes on after any error of the storage, which is logged with its traceback."""
    failures = [KeyError("a bug in a backend")]
    looked = threading.Event()

    class Faulty(Relay):
        def attention(self, run_ids):
            if failures:
                raise failures.pop()
            looked.set()
            return self.inner.attention(run_ids)

    @workflow
    def w():
        assert looked.wait(60)

    with Runtime(Faulty(storage)):
        w()
    assert "a bug in a backend" in caplog.text
