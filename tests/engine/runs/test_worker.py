"""Workers: enqueued runs are claimed and executed, what died is taken over, what is not finished is given back."""

import asyncio
import signal
import sqlite3
import threading
from datetime import UTC, datetime

import pytest
from support import script, spawn, sqlite_storage

from flowdsl import Queue, Runtime, Schedule, current_run, step, wait_for, workflow
from flowdsl.core.status import RunStatus
from flowdsl.errors import FlowError, RecoveryLimit
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import ClaimRun, UpdateRun


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    """A storage of each kind."""
    made = MemoryStorage() if request.param == "memory" else sqlite_storage(tmp_path / "flow.db")
    yield made
    made.close()


@pytest.fixture
def rt(storage):
    """The current runtime, on the real clock."""
    with Runtime(storage, lease=60) as made:
        yield made


class Working:
    """A worker in a thread, for the time of a block."""

    def __init__(self, storage, **options):
        self.runtime = Runtime(storage, lease=60)
        self.thread = threading.Thread(target=self.runtime.work, kwargs={"drain": 5, **options})

    def __enter__(self):
        self.thread.start()
        return self.runtime

    def __exit__(self, *exc):
        self.runtime.close()
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_an_enqueued_run_is_executed_by_a_worker(storage, rt):
    """An enqueued run is pending until a worker executes it, and without an id each enqueueing is a new
    run."""

    @workflow
    def double(n):
        return 2 * n

    first, second = double.enqueue(4), double.enqueue(4)
    assert first.id != second.id
    assert (first.status, first.queue) == ("pending", "default")
    with Working(storage):
        assert first.result(60) == second.result(60) == 8
    assert rt.workers() == []


def test_async_workflows_and_many_runs(storage, rt):
    """Two hundred sync and async runs execute once each, sixteen at a time."""
    seen = []

    @step
    def note(n):
        seen.append(n)
        return n

    @workflow
    def sync(n):
        return note(n)

    @workflow
    async def other(n):
        await asyncio.sleep(0)
        return -n

    runs = [(sync if n % 2 else other).enqueue(n) for n in range(60)]
    with Working(storage):
        assert [run.result(60) for run in runs] == [n if n % 2 else -n for n in range(60)]
    assert sorted(seen) == list(range(1, 60, 2))


def test_options_say_where_and_when(storage, rt):
    """Queue, priority, delay, tags and id are options of ``enqueue`` only."""

    @workflow
    def w(n):
        return n

    run = w.options(id="w-1", queue="slow", priority=3, delay="1 hour", tags={"a": "b"}).enqueue(1)
    record = run.record
    assert (run.id, record.queue, record.priority, run.tags) == ("w-1", "slow", 3, {"a": "b"})
    assert record.not_before > rt.storage.now() + 3000
    with pytest.raises(TypeError, match="enqueue"):
        w.options(queue="slow")(1)
    for wrong in ({"queue": ""}, {"priority": "high"}, {"debounce": "1 sec"}, {"delay": "soon"}):
        with pytest.raises((TypeError, ValueError)):
            w.options(**wrong).enqueue(1)


def test_the_same_work_is_one_run_and_gets_the_later_arguments(storage, rt):
    """``dedup`` returns the unfinished run, which gets the later arguments as a message."""

    @workflow
    def w(n):
        return n, wait_for("enqueued")

    one = w.options(dedup="d").enqueue(1)
    assert w.options(dedup="d").enqueue(2).id == one.id
    with Working(storage):
        assert one.result(60) == (1, {"args": (2,), "kwargs": {}})
    assert w.options(dedup="d").enqueue(3).id != one.id


def test_debounce_puts_the_start_off(storage, rt):
    """With ``debounce`` each further enqueueing delays the start."""

    @workflow
    def w():
        pass

    run = w.options(dedup="d", debounce="1 hour").enqueue()
    before = run.record.not_before
    w.options(dedup="d", debounce="2 hours").enqueue()
    assert rt.storage.get_run(run.id).not_before > before + 3000


def test_limits_hold_across_workers(storage, rt):
    """A concurrency of two holds for all workers together."""
    rt.queues.put(Queue("q", concurrency=2))
    lock, now, most = threading.Lock(), [0], [0]
    gate = threading.Semaphore(0)

    @workflow
    def w(n):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        gate.acquire(timeout=60)
        with lock:
            now[0] -= 1

    runs = [w.options(queue="q").enqueue(n) for n in range(6)]
    with Working(storage), Working(storage):
        for _ in runs:
            gate.release()
        for run in runs:
            run.result(60)
    assert most[0] <= 2


def test_queues_are_rows(storage, rt):
    """Queues can be listed, paused, resumed and deleted, and declaring one again changes nothing."""
    rt.queues.put(Queue("q", concurrency=2, rate="5/min"))
    rt.queues.pause("q")
    with Runtime(storage, queues=[Queue("q", concurrency=9), Queue("r")]) as other:
        assert other.queues.list() == [Queue("q", concurrency=2, rate="5/min", paused=True), Queue("r")]
    rt.queues.resume("q")
    rt.queues.delete("r")
    assert rt.queues.list() == [Queue("q", concurrency=2, rate="5/min")]


def test_a_run_enqueues_once(storage, rt):
    """A run that enqueues another does so once, and its id is the starter of that run."""

    @workflow
    def other(n):
        return n

    @workflow(id="w")
    def w():
        return [other.enqueue(1).id, other.enqueue(1).id]

    first, second = w()
    assert first != second
    assert [run.started_by for run in rt.runs(workflow=other)] == ["w", "w"]


def test_what_is_not_finished_is_given_back(storage, rt):
    """A worker that is told to stop gives a waiting run back, and another worker continues it at once."""

    @workflow(id="w")
    def w():
        return wait_for("go")

    w.enqueue()
    with Working(storage, drain=0.1):
        while rt.run("w").status != "running":
            pass
    record = rt.storage.get_run("w")
    assert (record.status, record.owner, record.recoveries) == ("running", None, 0)
    with Working(storage):
        rt.signal("w", "go", 7)
        assert rt.run("w").result(60) == 7
    assert rt.storage.get_run("w").recoveries == 0


def test_what_kills_its_workers_is_parked(storage, rt):
    """A run that was taken over five times fails with ``RecoveryLimit``, and can be retried by hand."""

    @workflow(id="w")
    def w():
        return "lived"

    w.enqueue()
    changes = {"status": RunStatus.RUNNING, "owner": "ghost", "recoveries": 5}
    rt.storage.commit([UpdateRun("w", changes)])
    with Working(storage):
        assert isinstance(rt.run("w").exception(60), RecoveryLimit)
    assert rt.retry("w").result(60) == "lived"


def test_unknown_and_newer_runs_are_left_alone(storage, rt):
    """A worker leaves runs that it does not know, and runs of newer versions, alone."""

    @workflow(version="2")
    def w():
        pass

    newer, unknown = w.enqueue(), w.enqueue()
    rt.storage.commit(
        [UpdateRun(newer.id, {"version": "3"}), UpdateRun(unknown.id, {"workflow": "elsewhere"})]
    )

    @workflow
    def last():
        return "done"

    with Working(storage):
        assert last.enqueue().result(60) == "done"
    assert newer.status == unknown.status == "pending"


class Unloadable:
    """Can be stored, and loaded where the flag is not set."""

    broken = False

    def __setstate__(self, state):
        if self.broken:
            raise RuntimeError("its module has changed")

    def __getstate__(self):
        return {"x": 1}

    def __flow_key__(self):
        return "unloadable"


def test_a_run_that_cannot_be_loaded_holds_up_no_other(storage, rt, monkeypatch, caplog):
    """A run that cannot be loaded is reported once, and delays no other run."""

    @workflow
    def w(given):
        return "done"

    lost, pending = w.enqueue(Unloadable()), w.enqueue(Unloadable())
    rt.storage.commit([ClaimRun(lost.id, 1, "gone", 0.0, changes={"status": RunStatus.RUNNING})])
    monkeypatch.setattr(Unloadable, "broken", True)
    with Working(storage, concurrency=1):
        assert [w.enqueue(n).result(60) for n in range(3)] == ["done"] * 3
    said = [record.getMessage() for record in caplog.records if "cannot be executed" in record.getMessage()]
    assert sorted(text.split()[1] for text in said) == sorted([lost.id, pending.id])
    assert (lost.status, pending.status) == ("running", "pending")
    monkeypatch.setattr(Unloadable, "broken", False)
    with Working(storage, concurrency=1):
        assert lost.result(60) == pending.result(60) == "done"


def test_work_can_be_awaited_and_cancelled(storage):
    """``await rt.aio.work()`` ends when its task is cancelled."""

    @workflow
    def w():
        return "done"

    async def main():
        async with Runtime(storage) as rt:
            working = asyncio.create_task(rt.aio.work())
            found = await w.enqueue()
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            return found

    assert asyncio.run(main()) == "done"


def test_enqueueing_in_the_users_own_transaction(tmp_path):
    """A run enqueued in the user's transaction exists only after the commit."""

    @workflow
    def w():
        pass

    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        mine = sqlite3.connect(tmp_path / "flow.db")
        run = rt.enqueue(w.options(id="kept"), connection=mine)
        assert rt.run("kept") is None
        mine.commit()
        assert run.status == "pending"
        rt.enqueue(w.options(id="gone"), connection=mine)
        mine.rollback()
        mine.close()
        assert rt.run("gone") is None
        with pytest.raises(TypeError, match="connection="):
            rt.enqueue(w, connection=object())


def test_a_killed_worker_repeats_no_completed_step(tmp_path):
    """After SIGKILL in the second step the next worker executes only that step."""
    code = script(
        tmp_path / "works.py",
        """
        import sys
        from flowdsl import Runtime, step, workflow
        @step
        def one(): print("one", flush=True)
        @step
        def two():
            print("two", flush=True)
            if sys.argv[1] == "first": sys.stdin.read()
        @workflow(id="w")
        def w():
            one()
            two()
        with Runtime("sqlite:///flow.db", lease=1 if sys.argv[1] == "first" else 60) as rt:
            if sys.argv[1] == "first": w.enqueue()
            rt.work(drain=1)
        """,
    )
    first = spawn(code, "first")
    assert [first.stdout.readline(), first.stdout.readline()] == ["one\n", "two\n"]
    first.kill()
    first.communicate()
    second = spawn(code, "second")
    assert second.stdout.readline() == "two\n"
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        rt.run("w").result(60)
    second.send_signal(signal.SIGTERM)
    assert second.communicate(timeout=60) == ("", "")
    assert second.returncode == 0


def test_schedules_fire_each_tick_once(storage, rt):
    """A due tick fires once, whoever fires it, and late ticks within ``catch_up``."""
    seen, three = [], threading.Event()

    @workflow
    def tick(word):
        seen.append((word, current_run().id))
        if len(seen) >= 3:
            three.set()

    rt.schedules.put(Schedule("often", tick, cron="* * * * * *", args=("hi",), overlap="allow"))
    with Working(storage), Working(storage):
        assert three.wait(60)
    assert len(seen) == len(set(seen))
    assert all(word == "hi" and run_id.startswith("often@") and run_id.endswith("Z") for word, run_id in seen)


def test_schedules_are_rows(storage, rt):
    """Schedules can be put, paused, resumed, triggered, backfilled and deleted."""

    @workflow
    def report():
        return "printed"

    daily = Schedule("daily", report, cron="0 9 * * *", timezone="Europe/Berlin")
    rt.schedules.put(daily)
    rt.schedules.pause("daily")
    (found,) = rt.schedules.list()
    assert (found.name, found.workflow, found.cron, found.paused) == (
        *[daily.name, daily.workflow, daily.cron],
        True,
    )
    rt.schedules.resume("daily")
    by_hand = rt.schedules.trigger("daily")
    days = rt.schedules.backfill(
        "daily", datetime(2027, 3, 27, tzinfo=UTC), datetime(2027, 3, 30, tzinfo=UTC)
    )
    assert [run.id for run in days] == [
        "daily@2027-03-27T08:00:00Z",
        "daily@2027-03-28T07:00:00Z",
        "daily@2027-03-29T07:00:00Z",
    ]
    assert (
        list(
            rt.schedules.backfill(
                "daily", datetime(2027, 3, 27, tzinfo=UTC), datetime(2027, 3, 28, tzinfo=UTC)
            )
        )
        == []
    )
    with Working(storage):
        assert {run.result(60) for run in (by_hand, *days)} == {"printed"}
    rt.schedules.delete("daily")
    assert rt.schedules.list() == []
    with pytest.raises(LookupError, match="no schedule"):
        rt.schedules.pause("daily")


def test_a_run_whose_arguments_do_not_fit_is_left_alone(storage, rt, caplog):
    """A run that the code here cannot call, because its function has other parameters now or is a method, is
    reported and left alone, by a worker and by ``recover``. Others go on."""

    class Shop:
        @workflow(name="sell")
        def sell(self):
            raise KeyboardInterrupt

    @workflow(name="misfit")
    def before(n):
        raise KeyboardInterrupt

    @workflow(name="fits")
    def fits():
        raise KeyboardInterrupt

    for call, args in (
        (Shop().sell.options(id="a"), ()),
        (before.options(id="b"), (1,)),
        (fits.options(id="c"), ()),
    ):
        with pytest.raises(KeyboardInterrupt):
            call(*args)

    @workflow(name="misfit")
    def after(n, more):
        return n

    @workflow(name="fits")
    def now_fits():
        return "done"

    with pytest.raises(TypeError, match="no value for 'more'"):
        rt.resume("b")
    with pytest.raises(FlowError, match="run a: .*'self'"):
        rt.recover()
    assert rt.run("c").result(60) == "done"
    late = now_fits.enqueue()
    with Working(storage):
        assert late.result(60) == "done"
    assert [rt.run(run_id).status for run_id in "ab"] == ["running", "running"]
    assert "run b cannot be executed: run b: after() cannot be called from its record" in caplog.text


def test_a_schedule_whose_arguments_do_not_fit_stops_no_worker(storage, rt, caplog):
    """A schedule whose arguments the workflow does not take is reported once. The worker goes on."""

    @workflow
    def tick(word):
        return word

    fired = threading.Event()

    @workflow
    def works():
        fired.set()

    rt.schedules.put(Schedule("broken", tick, cron="* * * * * *"))
    rt.schedules.put(Schedule("works", works, cron="* * * * * *"))
    with Working(storage):
        assert fired.wait(60)
        assert tick.enqueue("hi").result(60) == "hi"
    assert len(rt.runs(workflow=tick.path)) == 1
    assert caplog.text.count("schedule broken starts no run here: tick() missing") == 1
