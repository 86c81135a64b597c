"""Group commit on an event loop: what is written in one turn of it is one commit."""

import asyncio
import threading

import pytest
from committing import Slow, put, waiting

from flowdsl.core.records import Run
from flowdsl.engine.commit import Committer
from flowdsl.errors import StorageFull
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.base import Done, Opened, OpenRun


@pytest.fixture
def storage():
    """With one run."""
    made = Slow()
    MemoryStorage.commit(made, [OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    return made


class Quick(Slow):
    """An inline storage for which sharing pays."""

    inline = True
    shares = True


@pytest.fixture
def quick():
    storage = Quick()
    storage.commit([OpenRun(Run(id="r", workflow="w", key="k", owner="o"), 30.0)])
    storage.batches.clear()
    return storage


def test_what_is_written_in_one_turn_of_a_loop_is_one_commit(quick):
    """Ten tasks that write in one turn of the loop share a commit, and each gets its own outcome."""
    committer = Committer(quick)

    async def main():
        return await asyncio.gather(*(committer.commit_async([put(f"k{n}")]) for n in range(10)))

    outcomes = asyncio.run(main())
    assert quick.batches == [10]
    assert [type(one) for (one,) in outcomes] == [Done] * 10
    assert [one.seq for (one,) in outcomes] == sorted(one.seq for (one,) in outcomes)


def test_a_lone_task_commits_at_once(quick):
    """A lone task commits at once, and waits for no turn of the loop."""
    committer = Committer(quick)

    async def main():
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        await asyncio.sleep(0)
        assert turns == [1]
        await committer.commit_async([put("k1")])
        return len(quick.batches)

    assert asyncio.run(main()) == 1


def test_in_a_turn_one_callers_fault_is_not_anothers(quick):
    """If a batch of a turn fails, each caller is tried alone, and only the one at fault gets the error."""
    committer = Committer(quick)
    quick.poison.add("k3")

    async def main():
        calls = [committer.commit_async([put(f"k{n}")]) for n in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(main())
    assert [isinstance(one, StorageFull) for one in found] == [n == 3 for n in range(5)]


def test_whatever_a_turn_meets_reaches_those_who_wait(quick):
    """Any exception in a turn, even one that is no ``Exception``, reaches the waiting callers."""
    committer = Committer(quick)

    class Crash(BaseException):
        pass

    quick.error = Crash()
    quick.poison.update({"k0", "k1"})

    async def main():
        calls = [asyncio.ensure_future(committer.commit_async([put(f"k{n}")])) for n in range(2)]
        await asyncio.wait(calls)
        return [type(call.exception()).__name__ for call in calls]

    assert asyncio.run(main()) == ["Crash", "Crash"]


def test_a_lone_commit_of_a_quick_disk_needs_no_other_thread(storage):
    """After quick commits a lone commit happens on the loop."""
    committer = Committer(storage)
    threads = []
    plain = storage.commit

    def noting(operations):
        threads.append(threading.get_ident())
        return plain(operations)

    storage.commit = noting

    async def main():
        for n in range(20_000):  # on a busy machine even memory is slow at times
            await committer.commit_async([put(f"k{n}")])
            if threads[-1] == threading.get_ident():
                return

    try:
        asyncio.run(main())
        assert threads[0] != threading.get_ident()
        assert threads[-1] == threading.get_ident()
    finally:
        committer.close()


def test_a_blocking_write_after_a_body_waits_for_the_end_of_its_transaction(tmp_path):
    """When the body of a transaction has ended, the end of the transaction needs its event loop no more. A blocking
    write on that loop is stored after it."""
    goes_on = threading.Event()

    async def main(committer):
        block = committer.transaction_async()
        transaction = await block.__aenter__()
        transaction.thread.submit(goes_on.wait, 60)  # so the end of the transaction is still to come
        ending = asyncio.create_task(block.__aexit__(None, None, None))
        await asyncio.sleep(0)
        threading.Thread(target=lambda: (waiting(committer, 1), goes_on.set()), daemon=True).start()
        try:
            (outcome,) = committer.commit([OpenRun(Run("r", "w", "k"), 0.0)])
        finally:
            goes_on.set()
            await ending
        assert isinstance(outcome, Opened)

    with SQLiteStorage(tmp_path / "flow.db") as storage:
        committer = Committer(storage)
        asyncio.run(main(committer))
        committer.close()
