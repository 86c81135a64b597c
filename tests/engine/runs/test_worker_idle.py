"""What a worker costs that has nothing to do, and what wakes it."""

import sys
import threading
from pathlib import Path

import pytest
from support import sqlite_storage

from flowdsl import Runtime, Schedule, step, wait_for, workflow
from flowdsl.storage import MemoryStorage, open_storage
from flowdsl.storage.base import PutSchedule, UpdateRun
from flowdsl.storage.relay import RelayStorage
from flowdsl.storage.topics import QUEUES_TOPIC, SCHEDULES_TOPIC, run_topic

sys.path.insert(0, str(Path(__file__).parents[2] / "storage"))
from postgres_server import postgres_url

DEADLINE = 60.0  # seconds, for what ends at once when it has happened


def make(kind, tmp_path):
    """A storage of a kind."""
    if kind == "memory":
        return MemoryStorage()
    return sqlite_storage(tmp_path / "flow.db") if kind == "sqlite" else open_storage(postgres_url())


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request, tmp_path):
    """A storage of each kind."""
    with make(request.param, tmp_path) as made:
        yield made


class Skipping(RelayStorage):
    """Its time is that of its waits, which do not take any; after two minutes the worker is told to end."""

    def __init__(self, storage):
        super().__init__(storage)
        self.url = storage.url
        self.passed, self.asked, self.ended = 0.0, 0, threading.Event()

    def now(self):
        return self.storage.now() + self.passed

    def wait_for_change(self, seen, timeout, /, topics=()):
        self.passed += timeout
        if self.passed > 120:
            self.runtime.close()
        return seen

    def commit(self, operations, /):
        self.asked += 1
        return self.storage.commit(operations)

    def __getattribute__(self, name):
        if name.startswith(("list_", "get_", "next_")):
            self.asked += 1
        return super().__getattribute__(name)


def test_an_idle_worker_costs_next_to_nothing(storage, monkeypatch):
    """An idle worker sends less than one statement a second, with schedules and delayed runs."""
    statements = []
    if storage.url and storage.url.startswith("postgres"):
        import psycopg

        execute = psycopg.Cursor.execute
        monkeypatch.setattr(
            psycopg.Cursor, "execute", lambda self, *a, **k: statements.append(a) or execute(self, *a, **k)
        )

    @workflow
    def w():
        pass

    skipping = Skipping(storage)
    with Runtime(skipping) as rt:
        rt.schedules.put(Schedule("yearly", w, cron="0 0 1 1 *"))
        w.options(delay="1 day").enqueue()
        skipping.runtime, skipping.asked = rt, 0
        statements.clear()
        begun = skipping.now()
        rt.work()
        passed = skipping.now() - begun  # the machine's own slowness counts as time, too
    assert skipping.passed > 120
    assert skipping.asked < passed * 0.5
    assert len(statements) < passed


class Patient(RelayStorage):
    """A worker on it looks only when it is woken, or after ten minutes. ``idle``: it has looked, and waits."""

    def __init__(self, storage):
        super().__init__(storage)
        self.idle = threading.Event()

    def wait_for_change(self, seen, timeout, /, topics=()):
        if SCHEDULES_TOPIC not in topics:
            return self.storage.wait_for_change(seen, timeout, topics)
        if seen:
            self.idle.set()
        return self.storage.wait_for_change(seen, 10 * DEADLINE, topics)


class Working:
    """A worker in a thread, for the time of a block."""

    def __init__(self, storage, **options):
        self.runtime = Runtime(storage, lease=60)
        self.thread = threading.Thread(target=self.runtime.work, kwargs={"drain": 0, **options})

    def __enter__(self):
        self.thread.start()
        return self.runtime

    def __exit__(self, *exc):
        self.runtime.close()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


def test_what_is_enqueued_or_given_back_wakes_a_worker(storage):
    """A run that is enqueued or given back in any queue wakes a worker at once."""

    @workflow(id="w-{n}")
    def w(n):
        return wait_for("go")

    # what closes tells all that wait on its own storage
    elsewhere = storage if isinstance(storage, MemoryStorage) else open_storage(storage.url)
    first, second, third = Patient(storage), Patient(elsewhere), Patient(storage)
    with elsewhere, Runtime(storage) as rt:
        with Working(first, queues=["a", "b"]), Working(second) as closing:
            assert first.idle.wait(DEADLINE)
            assert second.idle.wait(DEADLINE)
            runs = [w.options(queue=queue).enqueue(queue) for queue in ("a", "undeclared")]
            for run in runs:
                while run.status != "running":
                    pass
            with Working(third):
                assert third.idle.wait(DEADLINE)
                closing.close()
                for run in runs:
                    rt.signal(run.id, "go", run.queue)
                assert [run.result(DEADLINE) for run in runs] == ["a", "undeclared"]


def test_a_body_that_does_not_stop_gives_its_run_back(storage):
    """A body that does not stop gives its run back, another worker executes it, and late writes are
    refused."""
    begun, go, bodies = threading.Semaphore(0), threading.Event(), []

    @step
    def stubborn():
        bodies.append(None)
        mine = len(bodies)
        begun.release()
        if mine == 1:
            go.wait(DEADLINE)
        return mine

    @workflow(id="w")
    def w():
        return stubborn()

    with Runtime(storage) as rt:
        run = w.enqueue()
        first = Runtime(storage, lease=60)
        thread = threading.Thread(target=first.work, kwargs={"drain": 0})
        thread.start()
        assert begun.acquire(timeout=DEADLINE)
        (worker,) = first._workers
        worker.stop()
        thread.join(DEADLINE)
        record = rt.storage.get_run("w")
        assert (record.status, record.owner, record.recoveries) == ("running", None, 0)
        with Working(storage):
            assert run.result(DEADLINE) == 2
        go.set()
        first.close()
        assert [step.result() for step in run.steps()] == [2]


class Wakes(RelayStorage):
    """Counts how often somebody who waits for run ``w`` is told of a change."""

    woken = 0

    def __init__(self, storage):
        super().__init__(storage)
        self.slept = threading.Event()

    def wait_for_change(self, seen, timeout, /, topics=()):
        found = self.storage.wait_for_change(seen, timeout, topics)
        self.woken += "run:w" in topics and found != seen
        if "run:w" in topics and found == seen:
            self.slept.set()
        return found


def test_a_waiting_run_is_not_woken_by_others(storage):
    """A waiting run is not woken by thirty other runs of the same worker."""
    wakes = Wakes(storage)

    @step
    def one(n):
        return n

    @workflow(id="w")
    def w():
        return wait_for("go")

    @workflow
    def other(n):
        return one(n)

    with Runtime(storage) as rt, Working(wakes):
        w.enqueue()
        while not any(step.kind == "wait" for step in rt.storage.list_steps("w")):
            pass
        assert other.enqueue(0).result(DEADLINE) == 0
        assert wakes.slept.wait(DEADLINE)
        before = wakes.woken
        runs = [other.enqueue(n) for n in range(30)]
        assert [run.result(DEADLINE) for run in runs] == list(range(30))
        assert wakes.woken - before <= 1
        rt.signal("w", "go", 7)
        assert rt.run("w").result(DEADLINE) == 7


def test_what_nobody_here_can_execute_is_reported_once(caplog):
    """Each unknown workflow and each newer version is reported once, with one of its runs."""

    @workflow(version="2")
    def w():
        pass

    storage = MemoryStorage()
    skipping = Skipping(storage)
    with Runtime(storage) as rt:
        for n, changes in enumerate([{"version": "3"}, {"version": "3"}, {"workflow": "elsewhere"}]):
            run = w.options(id=f"w-{n}").enqueue()
            rt.storage.commit([UpdateRun(run.id, changes)])
    with Runtime(skipping) as rt:
        skipping.runtime = rt
        rt.work()
    found = [record.message for record in caplog.records if "waits for a worker" in record.message]
    assert len(found) == 2
    assert "in version 3" in found[0]
    assert "elsewhere" in found[1]


def test_a_pause_is_not_lost_to_a_worker_that_fires(storage):
    """A worker that fires a schedule does not overwrite a pause that was set meanwhile."""

    @workflow
    def w():
        pass

    with Runtime(storage) as rt:
        rt.schedules.put(Schedule("often", w, cron="* * * * * *"))
        (row,) = rt.storage.list_schedules()
        rt.schedules.pause("often")
        rt.storage.commit([PutSchedule(row, was=row)])
        (paused,) = rt.schedules.list()
        assert paused.paused


def settled(storage, topics):
    """The version of a storage that has ears by now: those of PostgreSQL say once that they hear."""
    seen = storage.wait_for_change(0, 0, topics)
    while (now := storage.wait_for_change(seen, 1, topics)) != seen:
        seen = now
    return seen


def test_a_wait_that_another_one_entered_first_misses_nothing(storage):
    """What happens after a look is seen by its wait, even if another thread entered the same wait in between."""

    @workflow(id="w")
    def w():
        return wait_for("go")

    elsewhere = storage if isinstance(storage, MemoryStorage) else open_storage(storage.url)
    with elsewhere, Runtime(elsewhere) as other, Runtime(storage):
        run = w.enqueue()
        topics = [run_topic(run.id)]
        before = settled(storage, [run_topic("another")])
        other.signal(run.id, "go", 1)
        storage.wait_for_change(before, 0, topics)  # the other thread
        assert storage.wait_for_change(before, DEADLINE, topics) != before


@pytest.mark.parametrize("what", ["run", "queue"])
def test_a_wait_that_begins_late_misses_nothing(storage, what):
    """What happens between a look and its wait is seen by that wait, even if somebody who waits for something
    else has heard of it first."""

    @workflow(id="w-{n}")
    def w(n):
        return wait_for("go")

    elsewhere = storage if isinstance(storage, MemoryStorage) else open_storage(storage.url)
    with elsewhere, Runtime(storage), Runtime(elsewhere) as other:
        run = w.enqueue(1)
        topics = [run_topic(run.id) if what == "run" else QUEUES_TOPIC]
        before = settled(storage, topics)
        anything = storage.wait_for_change(0, 0)
        other.signal(run.id, "go", 1) if what == "run" else w.enqueue(2)
        assert storage.wait_for_change(anything, DEADLINE) != anything  # somebody else hears of it first
        assert storage.wait_for_change(before, DEADLINE, topics) != before


def test_a_worker_hears_of_a_commit_that_overlooked_it():
    """On PostgreSQL, a run starts at once although its commit looked for waiting workers before this one
    waited, and was visible after."""
    psycopg = pytest.importorskip("psycopg")

    @workflow(id="w")
    def w():
        return 1

    with make("postgres", None) as storage, Runtime(storage) as rt:
        settled(storage, [run_topic("another")])
        worker = Patient(storage)
        with psycopg.connect(storage._address.dsn) as connection:
            run = rt.enqueue(w, connection=connection)
            with Working(worker):
                assert worker.idle.wait(DEADLINE)
                connection.commit()
                assert run.result(DEADLINE) == 1
