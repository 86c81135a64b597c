"""Closing a runtime: it ends in time, for any caller, and each run can be continued."""

import asyncio
import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import flowdsl
from flowdsl import Hooks, Runtime, aio, current_runtime, step, store, wait_for, workflow
from flowdsl.errors import FlowError
from flowdsl.storage import MemoryStorage, Storage, open_storage
from flowdsl.storage.base import Operation, Outcome
from flowdsl.storage.relay import RelayStorage

go_on = threading.Event()


@step
def note(text: str) -> str:
    return text


@workflow(id="waiting")
def waiting() -> Any:
    note("begun")
    return wait_for("letter")


@workflow(id="waiting-async")
async def waiting_async() -> Any:
    return await aio.wait_for("letter")


@workflow(id="closes-{where}")
def closes(where: str) -> None:
    if where == "step":
        close_it()
    elif where == "body":
        current_runtime().close()
    note("not any more" if where != "hook" else "ended")


@step
def close_it() -> None:
    current_runtime().close()


@step
def hold() -> None:
    go_on.wait(60)


@workflow(id="holding")
def holding() -> None:
    hold()


def _let_go(storage: Storage | str) -> list[str]:
    """The runs that can be taken up by a new runtime, now."""
    opened = open_storage(storage)
    runs = [run for run in opened.list_runs() if run.status in ("pending", "running")]
    assert [run.id for run in runs if run.owner is not None] == []
    return sorted(run.id for run in runs)


def _steps_of(runtime: Runtime, run_id: str, kind: str) -> None:
    """Wait until a run has a step of this kind."""
    seen = 0
    while not any(one.kind == kind for one in runtime.run(run_id).steps()):  # type: ignore[union-attr]
        seen = runtime.storage.wait_for_change(seen, 60.0)


def test_a_runtime_that_is_left_on_an_event_loop_gives_its_runs_back(tmp_path: Path) -> None:
    """Leaving a runtime on its event loop blocks the loop, and gives its runs back."""
    url = f"sqlite:///{tmp_path}/flow.db"

    async def main() -> None:
        with Runtime(url):
            run = waiting_async.start()
            with pytest.raises(FlowError, match="closed"):
                await asyncio.gather(run, asyncio.to_thread(lambda: None), _leave())

    async def _leave() -> None:
        await asyncio.sleep(0)
        current_runtime().close()

    asyncio.run(main())
    assert _let_go(url) == ["waiting-async"]


@pytest.mark.parametrize("closed", [False, True])
def test_runs_of_an_event_loop_that_has_stopped_hold_nobody_up(closed: bool) -> None:
    """Runs on a stopped event loop cannot end, and are given back at once."""
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        return waiting_async.start()

    with MemoryStorage() as storage:
        with Runtime(storage):
            loop.run_until_complete(begin())
            if closed:
                task = asyncio.all_tasks(loop)
                for one in task:
                    one.cancel()
                loop.run_until_complete(asyncio.gather(*task, return_exceptions=True))
                loop.close()
        assert _let_go(storage) == ["waiting-async"]
    if not closed:
        task = asyncio.all_tasks(loop)
        loop.run_until_complete(asyncio.gather(*task, return_exceptions=True))
        loop.close()


@pytest.mark.parametrize("where", ["body", "step"])
@pytest.mark.parametrize("started", [False, True])
def test_a_body_may_close_its_runtime(where: str, started: bool) -> None:
    """A body that closes its runtime does not wait for itself, and its next step does not begin."""
    with MemoryStorage() as storage:
        with Runtime(storage):
            with pytest.raises(FlowError, match="its runtime was closed"):
                closes.start(where).result(60) if started else closes(where)
        assert _let_go(storage) == [f"closes-{where}"]
        assert not any(one.path.endswith("note") for one in storage.list_steps(f"closes-{where}"))


def test_a_hook_may_close_the_runtime() -> None:
    """A hook in a thread of the runtime can close the runtime."""

    class Closes(Hooks):
        def on_run_complete(self, run: Any, result: Any) -> None:
            current_runtime().close()

    with MemoryStorage() as storage:
        with Runtime(storage, hooks=[Closes()]):
            closes.start("hook").result(60)
        assert _let_go(storage) == []


def test_who_waits_for_a_run_hears_of_the_closing() -> None:
    """Each waiting reader of a channel, an item, a reply or a result gets an error when the runtime
    closes."""
    ended: list[str] = []

    def wait(read: Callable[[], Any]) -> threading.Thread:
        def work() -> None:
            try:
                read()
            except FlowError as error:
                ended.append(str(error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    with MemoryStorage() as storage, Runtime(storage) as other, Runtime(storage) as runtime:
        run = waiting.start()
        _steps_of(other, "waiting", "wait")
        reads: list[Callable[[], Any]] = [
            lambda: list(run.stream("news", follow=True)),
            lambda: run.latest("news", timeout=1000),
            lambda: run.ask("question", 1),
            run.result,
        ]
        threads = [wait(read) for read in reads]
        iterator = iter(run.stream("news", follow=True))
        runtime.close()
        with pytest.raises(FlowError, match="closed"):
            next(iterator)
        for thread in threads:
            thread.join(60)
    assert len(ended) == len(reads)
    assert all("closed" in text for text in ended)


class Interrupted(RelayStorage):
    """Calls ``interrupt`` in the middle of a commit, once, as a handler of a signal does."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.inline = False  # so that commits of one process wait for each other
        self.interrupt: Callable[[], object] | None = None

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        interrupt = self.interrupt
        if interrupt is not None and threading.current_thread() is threading.main_thread():
            self.interrupt = None
            interrupt()
        return self.storage.commit(operations)


@workflow(id="busy")
def busy(storage: Any = None) -> None:
    while True:
        store.increment("n")


def test_a_handler_of_a_signal_may_close_the_runtime() -> None:
    """A signal handler that interrupts a commit can close the runtime without waiting for its locks."""
    with MemoryStorage() as inner:
        storage = Interrupted(inner)
        with Runtime(storage) as runtime:
            waiting.start()
            _steps_of(runtime, "waiting", "wait")
            storage.interrupt = runtime.close
            with pytest.raises(FlowError, match="its runtime was closed"):
                busy()
        assert _let_go(inner) == ["busy", "waiting"]


def test_whoever_closes_at_the_same_time_waits_for_the_end() -> None:
    """All concurrent callers of ``close`` return when it is closed."""
    with MemoryStorage() as storage:
        runtime = Runtime(storage)
        with runtime:
            waiting.start()
            owners: list[Any] = []

            def close() -> None:
                runtime.close()
                owners.extend(run.owner for run in storage.list_runs())

            threads = [threading.Thread(target=close) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert owners == [None] * 4


def test_a_body_that_does_not_stop_is_left_behind_and_its_run_is_given_back(
    monkeypatch: Any, caplog: Any
) -> None:
    """A body that does not stop is left behind, and another runtime continues its run at once."""
    monkeypatch.setattr("flowdsl.engine.runs.closing._PATIENCE", 0.05)
    go_on.clear()
    with MemoryStorage() as storage:
        with Runtime(storage) as runtime:
            run = holding.start()
            _steps_of(runtime, run.id, "step")
        assert "cannot be stopped" in caplog.text
        assert _let_go(storage) == ["holding"]
        go_on.set()
        with Runtime(storage):
            holding()


def test_a_storage_that_hangs_holds_nobody_up(monkeypatch: Any, caplog: Any) -> None:
    """A storage that hangs is left behind, and its leases end by themselves."""
    monkeypatch.setattr("flowdsl.engine.runs.closing._PATIENCE", 0.05)
    monkeypatch.setattr("flowdsl.engine.runs.closing._AT_MOST", 0.1)
    hang, back = threading.Event(), threading.Event()

    class Hangs(RelayStorage):
        def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
            if hang.is_set():
                back.wait(60)
            return self.storage.commit(operations)

    with MemoryStorage() as inner:
        storage = Hangs(inner)
        storage.inline = False
        with Runtime(storage) as runtime:
            waiting.start()
            _steps_of(runtime, "waiting", "wait")
            hang.set()
        assert "closing has not ended" in caplog.text
        back.set()
        for thread in threading.enumerate():
            if thread.name == "flowdsl-close":
                thread.join(60)


def test_a_transaction_that_hangs_holds_nobody_up(monkeypatch: Any, caplog: Any, tmp_path: Path) -> None:
    """A hanging transaction with the only writer is left behind and reported once."""
    monkeypatch.setattr("flowdsl.engine.runs.closing._PATIENCE", 0.05)
    monkeypatch.setattr("flowdsl.engine.runs.closing._GIVING_BACK", 0.05)
    monkeypatch.setattr("flowdsl.engine.runs.closing._REST", 1000.0)
    go_on.clear()
    begun = threading.Event()

    @step(transaction=True)
    def holds(*, connection: Any) -> None:
        begun.set()
        go_on.wait(60)

    @workflow(id="transaction")
    def transaction() -> None:
        holds()

    runtime = Runtime(f"sqlite:///{tmp_path / 'flow.db'}")
    with runtime:
        transaction.start()
        assert begun.wait(60)
    runtime.close()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["cannot be stopped" in text for text in said] == [True, False]
    assert "could not be given back" in said[1]
    go_on.set()
    with Runtime(f"sqlite:///{tmp_path / 'flow.db'}"):
        transaction()


def test_an_error_of_the_storage_is_raised_where_the_runtime_was_closed() -> None:
    """An error of the storage is raised to the first caller of ``close``."""

    class Fails(MemoryStorage):
        def close(self) -> None:
            raise OSError("the disk is gone")

    storage = Fails()
    runtime = Runtime(storage)
    runtime._owns_storage = True
    with pytest.raises(OSError, match="the disk is gone"):
        runtime.close()
    with contextlib.suppress(OSError):
        runtime.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_wait_for_a_closing_of_its_parent(monkeypatch: Any) -> None:
    """A forked child does not wait for the thread of its parent that closes the runtime."""
    monkeypatch.setattr("flowdsl.engine.runs.closing._PATIENCE", 0.05)
    hangs, back = threading.Event(), threading.Event()

    class Hangs(RelayStorage):
        def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
            if runtime._closing.begun:
                hangs.set()
                back.wait(60)
            return self.storage.commit(operations)

    with MemoryStorage() as inner:
        runtime = Runtime(Hangs(inner))
        with runtime:
            waiting.start()
            _steps_of(runtime, "waiting", "wait")
            closer = threading.Thread(target=runtime.close)
            closer.start()
            assert hangs.wait(60)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of threads beside a fork
                child = os.fork()
            if not child:
                signal.alarm(20)
                runtime.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            back.set()
            closer.join(60)


def test_a_run_that_begins_while_its_runtime_closes_stays_resumable(storage, clock):
    """A run that begins while its runtime closes ends at once, and goes on in the next runtime."""

    @workflow(id="w")
    def w():
        return flowdsl.wait_for("go")

    for _ in range(3):
        with Runtime(storage, clock=clock):
            w.start()
    with Runtime(storage, clock=clock):
        run = w.start()
        run.signal("go", 7)
        assert run.result(60) == 7
