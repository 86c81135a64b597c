"""Group commit: sharing, isolation of failures, interrupts, async callers."""

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from committing import Slow, keys, put, waiting

from flowdsl import Runtime, step, workflow
from flowdsl.core.records import Run, Step
from flowdsl.engine.batch import Request, Written
from flowdsl.engine.commit import Committer
from flowdsl.errors import StorageFull, StorageUnavailable
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.base import Done, Opened, OpenRun, PutStep
from flowdsl.storage.relay import RelayStorage


@pytest.fixture
def storage():
    """With one run."""
    made = Slow()
    MemoryStorage.commit(made, [OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    return made


@pytest.fixture
def committer(storage):
    """On that storage."""
    made = Committer(storage)
    yield made
    made.close()


def test_a_lone_caller_commits_at_once(committer, storage):
    """A lone caller commits at once, without another thread."""
    (outcome,) = committer.commit([put("a")])
    assert isinstance(outcome, Done)
    assert storage.batches == [1]
    assert committer._thread is None


def test_callers_that_come_meanwhile_share_the_next_commit(committer, storage):
    """Ten concurrent callers need two transactions."""
    storage.gate.clear()
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(committer.commit, [put("first")])
        storage.entered.acquire()
        others = [pool.submit(committer.commit, [put(f"k{n}"), put(f"m{n}")]) for n in range(9)]
        waiting(committer, 9)
        storage.gate.set()
        assert len(first.result()) == 1
        outcomes = [other.result() for other in others]
    assert storage.batches == [1, 18]
    assert all(len(two) == 2 and all(isinstance(one, Done) for one in two) for two in outcomes)
    assert len({one.seq for two in outcomes for one in two}) == 18
    assert len(keys(storage)) == 19


def test_each_gets_its_own_outcomes(committer, storage):
    """Each caller of a shared commit gets the outcomes of its own operations, in order."""
    storage.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(committer.commit, [])
        storage.entered.acquire()
        missing = PutStep(Step(run_id="nowhere", key="x", path="p"))
        mixed = pool.submit(committer.commit, [put("a"), missing, put("b")])
        plain = pool.submit(committer.commit, [missing])
        waiting(committer, 2)
        storage.gate.set()
        assert first.result() == []
        assert [type(one).__name__ for one in mixed.result()] == ["Done", "Missing", "Done"]
        assert [type(one).__name__ for one in plain.result()] == ["Missing"]


def test_what_one_writes_cannot_fail_another(committer, storage):
    """If a shared transaction fails, each caller is tried alone, and only the one at fault gets the error."""
    storage.gate.clear()
    storage.poison = {"bad"}
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(committer.commit, [put("first")])
        storage.entered.acquire()
        good = [pool.submit(committer.commit, [put(f"g{n}")]) for n in range(3)]
        bad = pool.submit(committer.commit, [put("also"), put("bad")])
        waiting(committer, 4)
        storage.gate.set()
        first.result()
        for one in good:
            assert isinstance(one.result()[0], Done)
        with pytest.raises(StorageFull):
            bad.result()
    assert keys(storage) == {"first", "g0", "g1", "g2"}


def test_async_callers_share_commits(committer, storage):
    """A thousand tasks share a few transactions, and the loop is never blocked."""

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        outcomes = await asyncio.gather(*(committer.commit_async([put(f"k{n}")]) for n in range(1000)))
        ticker.cancel()
        return outcomes, ticks

    outcomes, ticks = asyncio.run(main())
    assert len({one.seq for (one,) in outcomes}) == 1000
    assert len(storage.batches) < 100
    assert ticks > 0
    assert len(keys(storage)) == 1000


def test_an_inline_storage_is_called_on_the_loop():
    """A storage that answers at once is called on the loop, without a thread."""
    storage = MemoryStorage()
    storage.commit([OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    committer = Committer(storage)
    threads = []
    commit = storage.commit
    storage.commit = lambda operations: (threads.append(threading.current_thread()), commit(operations))[1]

    async def main():
        await asyncio.gather(*(committer.commit_async([put(f"k{n}")]) for n in range(10)))

    asyncio.run(main())
    assert set(threads) == {threading.main_thread()}
    assert committer._thread is None
    committer.close()


def test_sync_and_async_callers_share(committer, storage):
    """Threads and tasks share one batch."""
    storage.gate.clear()

    async def main(pool):
        first = pool.submit(committer.commit, [put("first")])
        await asyncio.to_thread(storage.entered.acquire)
        sync = [pool.submit(committer.commit, [put(f"s{n}")]) for n in range(3)]
        tasks = [asyncio.ensure_future(committer.commit_async([put(f"a{n}")])) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting, committer, 6)
        storage.gate.set()
        await asyncio.gather(*tasks, *map(asyncio.wrap_future, [first, *sync]))

    with ThreadPoolExecutor(5) as pool:
        asyncio.run(main(pool))
    assert storage.batches == [1, 6]
    assert len(keys(storage)) == 7


def test_the_error_of_an_async_caller_is_its_own(committer, storage):
    """An error of one async caller does not reach the others of its batch."""
    storage.poison = {"bad"}

    async def main():
        return await asyncio.gather(
            *(committer.commit_async([put(key)]) for key in ("a", "bad", "b")), return_exceptions=True
        )

    a, bad, b = asyncio.run(main())
    assert isinstance(bad, StorageFull)
    assert isinstance(a[0], Done)
    assert isinstance(b[0], Done)


def test_a_cancelled_async_caller_loses_nothing_of_others(committer, storage):
    """A cancelled caller whose operations were written learns that, and the others get their outcomes."""
    storage.gate.clear()

    async def main():
        first = asyncio.ensure_future(committer.commit_async([put("first")]))
        await asyncio.to_thread(storage.entered.acquire)
        gone = asyncio.ensure_future(committer.commit_async([put("gone")]))
        kept = asyncio.ensure_future(committer.commit_async([put("kept")]))
        await asyncio.sleep(0)
        for _ in range(3):  # however often, it waits for its outcomes
            gone.cancel()
            await asyncio.sleep(0)
        assert not gone.done()
        storage.gate.set()
        with pytest.raises(Written):
            await gone
        return await first, await kept

    first, kept = asyncio.run(main())
    assert isinstance(first[0], Done)
    assert isinstance(kept[0], Done)
    assert keys(storage) == {"first", "gone", "kept"}


def test_a_cancelled_async_caller_learns_what_was_written(committer, storage):
    """A caller that is cancelled while its operations are being written gets their outcomes."""
    storage.gate.clear()

    async def main():
        task = asyncio.ensure_future(committer.commit_async([put("mine")]))
        await asyncio.to_thread(storage.entered.acquire)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        storage.gate.set()
        with pytest.raises(Written) as caught:
            await task
        return caught.value.outcomes

    (outcome,) = asyncio.run(main())
    assert isinstance(outcome, Done)
    assert keys(storage) == {"mine"}


def test_a_loop_that_is_gone_does_not_stop_the_others(committer, storage):
    """Callers of a closed loop do not stop the committing thread."""
    storage.gate.clear()

    async def leave():
        task = asyncio.ensure_future(committer.commit_async([put("left")]))
        await asyncio.to_thread(storage.entered.acquire)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(leave())
    loop.close()
    storage.gate.set()

    async def stay():
        return await committer.commit_async([put("stay")])

    assert isinstance(asyncio.run(stay())[0], Done)
    assert keys(storage) == {"left", "stay"}
    assert not task.done()


class Interrupting(Slow):
    """Raises ``KeyboardInterrupt`` once, in the leader of a batch."""

    def __init__(self):
        super().__init__()
        self.interrupt = False
        self.after = False

    def commit(self, operations):
        if len(operations) > 1 and self.interrupt:
            self.interrupt = False
            if self.after:
                MemoryStorage.commit(self, operations)
            raise KeyboardInterrupt
        return super().commit(operations)


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_of_the_leader_loses_no_follower(after):
    """If the leading caller is interrupted, the requests of the others are sent, perhaps twice."""
    storage = Interrupting()
    MemoryStorage.commit(storage, [OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    committer = Committer(storage)

    def no_more_threads():
        raise RuntimeError("can't start new thread at interpreter shutdown")

    committer._nudge = no_more_threads  # so that a caller leads, not the thread, which nothing interrupts
    storage.gate.clear()
    storage.after = after

    def caller(key):
        try:
            return committer.commit([put(key)])
        except KeyboardInterrupt:
            return "interrupted"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(caller, "first")
        storage.entered.acquire()
        others = [pool.submit(caller, f"k{n}") for n in range(6)]
        waiting(committer, 6)
        storage.interrupt = True
        storage.gate.set()
        first.result(60)
        results = [other.result(60) for other in others]
    assert results.count("interrupted") == 1
    assert keys(storage) == {"first"} | {f"k{n}" for n in range(6)}
    committer.close()


def test_closing_waits_for_a_thread_that_is_being_started(committer, monkeypatch):
    """Closing waits for a committing thread that is just being started."""
    starting, go_on = threading.Event(), threading.Event()

    class SlowlyStarted(threading.Thread):
        def start(self):
            starting.set()
            go_on.wait()
            super().start()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(lambda: None).result()
        monkeypatch.setattr("flowdsl.engine.commit.threading.Thread", SlowlyStarted)
        wanted = pool.submit(committer._nudge)
        starting.wait()
        monkeypatch.undo()
        closed = pool.submit(committer.close)
        wait([closed], timeout=0.05)
        go_on.set()
        wanted.result(60)
        closed.result(60)


def test_nothing_ends_the_thread_that_commits(committer, storage):
    """No exception of a storage ends the committing thread; it reaches its caller."""

    class Odd(BaseException):
        pass

    storage.poison, storage.error = {"bad"}, Odd()

    async def main():
        with pytest.raises(Odd):
            await committer.commit_async([put("bad")])
        return await committer.commit_async([put("good")])

    assert isinstance(asyncio.run(main())[0], Done)


def test_many_threads_lose_nothing(committer, storage):
    """Eight threads with a hundred commits each lose nothing."""

    def work(n):
        for m in range(100):
            (outcome,) = committer.commit([put(f"{n}.{m}")])
            assert isinstance(outcome, Done)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(keys(storage)) == 800


def test_close_commits_what_is_queued(storage):
    """``close`` commits what is queued, and can be called twice."""
    committer = Committer(storage)

    async def main():
        return await committer.commit_async([put("last")])

    asyncio.run(main())
    committer.close()
    committer.close()
    assert keys(storage) == {"last"}


class Away(Slow):
    """A storage whose server is gone for the first commits, except the very first."""

    patience = 30.0
    away = 0

    def commit(self, operations):
        outcomes = super().commit(operations) if not self.away or len(self.batches) < 1 else None
        if outcomes is None:
            self.batches.append(len(operations))
            self.away -= 1
            raise StorageUnavailable("gone")
        return outcomes


def together(storage, names):
    """Commit one record for each of *names* in one batch, from async callers; what each gets."""
    committer = Committer(storage)
    storage.gate.clear()

    async def main():
        first = asyncio.ensure_future(committer.commit_async([put("first")]))
        await asyncio.to_thread(storage.entered.acquire)
        others = [asyncio.ensure_future(committer.commit_async([put(name)])) for name in names]
        await asyncio.sleep(0)
        storage.gate.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    try:
        return asyncio.run(main())
    finally:
        committer.close()


@pytest.fixture
def away():
    """A storage that is away for a while, with one run."""
    made = Away()
    MemoryStorage.commit(made, [OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    return made


def test_a_batch_is_sent_again_as_one_while_the_storage_is_away(away):
    """While the storage is away a batch is sent again as a whole, and all callers go on when it is back."""
    away.away = 3
    outcomes = together(away, "abc")
    assert all(isinstance(one[0], Done) for one in outcomes)
    assert away.batches == [1, 3, 3, 3, 3]
    assert keys(away) == {"first", "a", "b", "c"}


def test_an_outage_has_one_deadline_for_everybody(away):
    """After the patience all callers of the batch get the typed error, and the next caller at once."""
    away.away, away.patience = 1000, 0.1
    first, *others = together(away, "abc")
    assert isinstance(first[0], Done)
    assert [type(one) for one in others] == [StorageUnavailable] * 3
    assert set(away.batches[1:]) == {3}
    assert len({id(one) for one in others}) == 3


def test_what_lasts_is_not_tried_again(committer, storage):
    """A closed storage, or a file that is no database, fails at once."""
    storage.poison, storage.error = {"a"}, StorageUnavailable("closed", lasting=True)
    with pytest.raises(StorageUnavailable):
        committer.commit([put("a")])
    assert storage.batches == [1]


def test_who_comes_during_an_outage_shares_its_deadline(committer, storage):
    """A caller during an outage shares the deadline of the others."""
    storage.poison, storage.error = {"a"}, StorageUnavailable("gone", lasting=True)
    storage.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(committer.commit, [put("a")])]
        storage.entered.acquire()
        calls += [pool.submit(committer.commit, [put(name)]) for name in "bcd"]
        waiting(committer, 3)
        storage.gate.set()
        assert [type(call.exception()) for call in calls] == [StorageUnavailable] * 4
    assert storage.batches == [1]


def test_those_that_come_during_an_outage_join_the_next_try():
    """A lone caller that meets an outage waits with the others, and one batch is tried."""
    sizes: list[int] = []
    back = threading.Event()

    class Away(RelayStorage):
        inline = False

        def commit(self, operations):
            sizes.append(len(operations))
            if not back.is_set():
                raise StorageUnavailable("away")
            return super().commit(operations)

    inner = MemoryStorage()
    storage = Away(inner)
    storage.inline = False
    committer = Committer(storage)
    threads = [
        threading.Thread(target=committer.commit, args=([OpenRun(Run(f"r{n}", "w", "k"), 0.0)],))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    while max(sizes, default=0) < 10:
        pass
    back.set()
    for thread in threads:
        thread.join(60)
    committer.close()
    assert len(inner.list_runs()) == 20


def test_a_blocking_write_beside_a_transaction_on_the_same_event_loop_is_refused(tmp_path: Path):
    """A blocking write raises while a transaction on the same event loop is under way, and waits for nothing."""

    async def main(runtime: Runtime) -> None:
        begun, refused = asyncio.Event(), asyncio.Event()

        @step(transaction=True)
        async def books(*, connection: Any) -> str:
            begun.set()
            await refused.wait()
            return "booked"

        @workflow(id="trip")
        async def trip() -> str:
            return await books()

        booking = asyncio.create_task(trip())
        await begun.wait()
        with pytest.raises(StorageUnavailable, match="on this event loop"):
            runtime.signal("trip", "news", 1)
        refused.set()
        assert await booking == "booked"

    with Runtime(f"sqlite:///{tmp_path}/flow.db") as runtime:
        asyncio.run(main(runtime))


def test_a_blocking_write_beside_a_transaction_that_has_not_begun_is_stored(tmp_path: Path):
    """While a transaction waits for another writer, a blocking write on its event loop does not need its end. It
    is stored before the transaction begins."""
    writes, goes_on = threading.Event(), threading.Event()

    class Held(SQLiteStorage):
        def commit(self, operations):
            writes.set()
            assert goes_on.wait(60)
            return super().commit(operations)

    async def main(committer: Committer) -> None:
        began = asyncio.Event()

        async def books() -> None:
            async with committer.transaction_async():
                began.set()

        booking = asyncio.create_task(books())
        await asyncio.sleep(0)  # now it waits for its turn, in a thread
        threading.Thread(target=lambda: (waiting(committer, 1), goes_on.set()), daemon=True).start()
        (outcome,) = committer.commit([OpenRun(Run("b", "w", "k"), 0.0)])
        assert isinstance(outcome, Opened)
        assert not began.is_set()
        await booking

    with Held(tmp_path / "flow.db") as storage:
        committer = Committer(storage)
        other = threading.Thread(target=committer.commit, args=([OpenRun(Run("a", "w", "k"), 0.0)],))
        other.start()
        assert writes.wait(60)
        asyncio.run(main(committer))
        other.join(60)
        committer.close()
        assert {run.id for run in storage.list_runs()} == {"a", "b"}


def test_a_blocking_write_that_a_transaction_takes_up_meanwhile_waits_for_it(tmp_path: Path):
    """A blocking write is looked at for the last time just when a beginning transaction takes it up. It is
    stored, and raises nothing."""

    class TakenUp(deque[Request]):
        def remove(self, request: Request) -> None:
            super().remove(request)
            request.succeed([])
            request.open_gate()
            super().remove(request)

    async def main(committer: Committer) -> None:
        async with committer.transaction_async():
            committer._pending = TakenUp()
            assert committer.commit([OpenRun(Run("b", "w", "k"), 0.0)]) == []

    with SQLiteStorage(tmp_path / "flow.db") as storage:
        committer = Committer(storage)
        asyncio.run(main(committer))
        committer.close()


def test_a_blocking_transaction_beside_one_on_the_same_event_loop_is_refused(tmp_path: Path):
    """A sync transaction raises on an event loop that another transaction needs for its end. It would wait for
    ever."""

    async def main(committer: Committer) -> None:
        async with committer.transaction_async():
            with pytest.raises(StorageUnavailable, match="on this event loop"), committer.transaction():
                raise AssertionError
        with committer.transaction():
            pass

    with SQLiteStorage(tmp_path / "flow.db") as storage:
        committer = Committer(storage)
        asyncio.run(main(committer))
        committer.close()
