"""Claiming the next runs: priority, limits, interrupted runs, and no run taken twice, on every storage."""

import threading
from tempfile import TemporaryDirectory

import pytest
from attrs import evolve
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from postgres_server import emptied_postgres, postgres_url
from support import examples, sqlite_storage

from flowdsl.core.queues import Queue, row_of
from flowdsl.core.records import Run, ScheduleRow
from flowdsl.core.status import RunStatus
from flowdsl.storage import MemoryStorage, open_storage
from flowdsl.storage.base import Done, Missing, OpenRun, PutQueue, PutSchedule, UpdateRun
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.outcomes import Found, Opened

WORKFLOWS = (("w", "2"),)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request, tmp_path):
    """A storage of each kind."""
    if request.param == "postgres":
        made = emptied_postgres()
    else:
        made = MemoryStorage() if request.param == "memory" else sqlite_storage(tmp_path / "flow.db")
    yield made
    made.close()


def enqueue(storage, run_id, **fields):
    """Put a pending run into the storage."""
    row = Run(
        run_id, "w", "k", queue=fields.pop("queue", "q"), created_at=fields.pop("created_at", 1.0), **fields
    )
    (outcome,) = storage.commit([OpenRun(row, 0.0)])
    assert isinstance(outcome, Opened)


def claim(storage, owner="me", limit=10, **more):
    """Ids of the runs that *owner* gets."""
    (outcome,) = storage.commit(
        [ClaimNext(owner, 30.0, more.pop("workflows", WORKFLOWS), limit=limit, **more)]
    )
    return [run.id for run in outcome.runs]


def test_priority_then_age(storage):
    """Claims take larger priorities first, then older runs, each once, and the runs are then running."""
    enqueue(storage, "old", created_at=1.0)
    enqueue(storage, "older", created_at=0.5)
    enqueue(storage, "urgent", created_at=9.0, priority=5)
    assert claim(storage, limit=2) == ["urgent", "older"]
    run = storage.get_run("urgent")
    assert (run.status, run.owner, run.recoveries) == (RunStatus.RUNNING, "me", 0)
    assert run.claimed_at is not None
    assert run.lease_until > storage.now()
    assert claim(storage, "you") == ["old"]
    assert claim(storage, "you") == []


def test_when_the_next_run_is_due(storage):
    """The next due time counts delays, leases and waiting runs, and not runs that this worker does not
    know."""
    assert storage.next_due(["w"]) is None
    later = storage.now() + 600
    enqueue(storage, "delayed", not_before=later)
    assert storage.next_due(["w"]) == storage.next_due(["w"], ["q"]) == later
    assert storage.next_due(["v"]) is storage.next_due(["w"], ["p"]) is None
    enqueue(storage, "called", queue="p")
    assert storage.next_due(["w"]) == storage.next_due(["w"], ["p"]) == 0.0
    assert claim(storage, queues=("p",)) == ["called"]
    lease = storage.get_run("called").lease_until
    assert storage.next_due(["w", "v"]) == storage.next_due(["w"], ["p"]) == lease < later
    storage.commit([UpdateRun("called", {}, release=True)])
    assert storage.next_due(["w"]) == 0.0
    storage.commit([UpdateRun("called", {"parent": "delayed"})])
    assert storage.next_due(["w"]) == later


def test_a_schedule_that_has_changed_is_not_replaced(storage):
    """A schedule is replaced only if it is still as it was read, and a deleted one does not come back."""
    row = ScheduleRow("s", "{}", b"args", False, 1.5, 2.5)
    assert storage.commit([PutSchedule(row, was=row)]) == [Missing()]
    storage.commit([PutSchedule(row)])
    (read,) = storage.list_schedules()
    assert storage.commit([PutSchedule(evolve(row, last=3.5), was=read)]) == [Done()]
    assert storage.commit([PutSchedule(evolve(row, last=9.5), was=read)]) == [Missing()]
    assert [found.last for found in storage.list_schedules()] == [3.5]


def test_what_is_not_due_or_not_known_stays(storage):
    """Runs with a delay, of another workflow, a newer version or another queue are not claimed."""
    enqueue(storage, "later", not_before=storage.now() + 1000)
    enqueue(storage, "newer", version="3")
    enqueue(storage, "elsewhere", queue="other")
    enqueue(storage, "fits", version="1.5")
    (outcome,) = storage.commit([OpenRun(Run("unknown", "x", "k", queue="q"), 0.0)])
    assert claim(storage, queues=("q",)) == ["fits"]
    assert claim(storage) == ["elsewhere"]


def test_limits_of_queues_hold(storage):
    """Limits of a queue hold for all workers, per worker and per partition, and a paused queue gives
    nothing."""
    storage.commit([PutQueue(row_of(Queue("q", concurrency=3, per_worker=2, per_partition=1)))])
    for n in range(6):
        enqueue(storage, f"r{n}", created_at=float(n), partition=f"p{n // 2}")
    assert claim(storage, "me") == ["r0", "r2"]
    assert claim(storage, "you") == ["r4"]
    assert claim(storage, "them") == []
    storage.commit([UpdateRun("r0", {"status": RunStatus.COMPLETED}, release=True)])
    assert claim(storage, "them") == ["r1"]
    storage.commit([UpdateRun("r1", {"status": RunStatus.COMPLETED}, release=True)])
    storage.commit([PutQueue(row_of(Queue("q", paused=True)))])
    assert claim(storage, "them") == []


def test_what_is_full_hides_nothing_behind_it(storage):
    """Runs of a full partition, a full queue or a busy serial key hide no run behind them."""
    storage.commit(
        [PutQueue(row_of(Queue("q", per_partition=1))), PutQueue(row_of(Queue("f", concurrency=1)))]
    )
    rows = [
        Run(f"{name}{n:03}", "w", "k", created_at=float(n), **fields)
        for name, fields in (
            ("part", {"queue": "q", "partition": "a"}),
            ("full", {"queue": "f"}),
            ("serial", {"queue": "s", "serial": "one"}),
        )
        for n in range(120)
    ]
    storage.commit([OpenRun(row, 0.0) for row in rows])
    assert claim(storage, limit=20) == ["full000", "part000", "serial000"]
    enqueue(storage, "behind", partition="b", created_at=999.0)
    assert claim(storage, limit=20) == ["behind"]
    assert claim(storage, limit=20) == []


def test_a_rate_counts_what_began_lately(storage):
    """A rate of two a minute gives two, whoever takes them and however quickly they end."""
    storage.commit([PutQueue(row_of(Queue("q", rate="2/min")))])
    for n in range(4):
        enqueue(storage, f"r{n}", created_at=float(n))
    assert claim(storage, limit=1) == ["r0"]
    storage.commit([UpdateRun("r0", {"status": RunStatus.COMPLETED}, release=True)])
    assert claim(storage, "you") == ["r1"]
    assert claim(storage, "you") == []


def test_runs_of_one_serial_key_execute_one_by_one(storage):
    """Runs of one serial key execute one after the other, in any queues."""
    for n, queue in enumerate(["a", "b"]):
        enqueue(storage, f"r{n}", created_at=float(n), queue=queue, serial="s")
    assert claim(storage) == ["r0"]
    assert claim(storage) == []
    storage.commit([UpdateRun("r0", {"status": RunStatus.FAILED}, release=True)])
    assert claim(storage) == ["r1"]


def test_interrupted_runs_are_taken_over(storage):
    """An interrupted run is taken over; only a dead owner counts as a recovery, and children are left to
    their parents."""
    storage.commit([OpenRun(Run("given", "w", "k", status=RunStatus.RUNNING, owner=None), 0.0)])
    storage.commit([OpenRun(Run("dead", "w", "k", status=RunStatus.RUNNING, owner="ghost"), -1.0)])
    storage.commit([OpenRun(Run("alive", "w", "k", status=RunStatus.RUNNING, owner="ghost"), 1000.0)])
    storage.commit([OpenRun(Run("child", "w", "k", status=RunStatus.RUNNING, parent="given"), 0.0)])
    assert sorted(claim(storage)) == ["dead", "given"]
    assert storage.get_run("given").recoveries == 0
    assert storage.get_run("dead").recoveries == 1


def test_sent_again_it_is_the_same(storage):
    """After an unknown outcome, a claim with the same nonce gives the same runs."""
    for n in range(3):
        enqueue(storage, f"r{n}", created_at=float(n))
    assert claim(storage, limit=2, nonce="n1") == claim(storage, limit=2, nonce="n1") == ["r0", "r1"]
    assert claim(storage, limit=2, nonce="n2") == ["r2"]


def test_the_same_work_is_enqueued_once(storage):
    """While a run with the same ``dedup`` is unfinished, enqueueing returns it."""
    enqueue(storage, "first", dedup="d")
    (outcome,) = storage.commit([OpenRun(Run("second", "w", "k", queue="q", dedup="d"), 0.0)])
    assert isinstance(outcome, Found)
    assert outcome.runs[0].id == "first"
    storage.commit([UpdateRun("first", {"status": RunStatus.COMPLETED})])
    enqueue(storage, "second", dedup="d")


@pytest.mark.parametrize("limit", [1, 7])
def test_many_workers_take_each_run_once(storage, limit):
    """Eight threads that claim 200 runs take each once."""
    for n in range(200):
        enqueue(storage, f"r{n:03}", created_at=float(n))
    taken: list[str] = []

    def work(name):
        while found := claim(storage, name, limit=limit):
            taken.extend(found)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == len(set(taken)) == 200


crowds = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.sampled_from([1, 2, 60, 150]),
            "workflow": st.sampled_from("wwwv"),
            "version": st.sampled_from(["1", "2", "9"]),
            "queue": st.sampled_from([None, "q", "narrow", "parted", "slow", "paused"]),
            "partition": st.sampled_from([None, "a", "b"]),
            "serial": st.sampled_from([None, None, "s", "t"]),
            "priority": st.integers(0, 2),
            "not_before": st.sampled_from([None, None, 1.0, 4e9]),
        }
    ),
    min_size=3,
    max_size=9,
)
claimers = st.lists(
    st.tuples(
        st.sampled_from(["me", "you"]),
        st.sampled_from([1, 3, 40]),
        st.sampled_from([None, None, ("q", "parted"), ("default",)]),
        st.booleans(),
    ),
    min_size=2,
    max_size=8,
)


def crowd(count, queue=None, **fields):
    """Some runs of a kind."""
    given = {
        "workflow": "w",
        "version": "1",
        "partition": None,
        "serial": None,
        "priority": 0,
        "not_before": None,
    }
    return given | {"count": count, "queue": queue} | fields


MIXED = [
    crowd(2, "q"),
    crowd(150, "paused"),
    crowd(3, not_before=1.0, priority=1),
    crowd(3, not_before=1.0),
    crowd(60, "parted", partition="a"),
    crowd(60, version="9"),
    crowd(2, "parted", partition="b", serial="s"),
    crowd(2, "parted", partition="c"),
]
"""Runs that can begin before and behind many that cannot."""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@example(crowds=MIXED, claimers=[("me", 40, None, False)] * 2)
@example(
    crowds=MIXED, claimers=[("me", 3, None, True), ("you", 3, None, False), ("you", 40, ("default",), True)]
)
@settings(max_examples=examples(6), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(crowds=crowds, claimers=claimers)
def test_a_claim_among_many_takes_what_the_rules_choose(kind, crowds, claimers):
    """A claim takes the same runs as one that reads all of them, however many wait."""
    queues = (
        Queue("narrow", concurrency=3),
        Queue("parted", per_partition=1, per_worker=3),
        Queue("slow", rate="4/day"),
        Queue("paused", paused=True),
    )
    runs = []
    for crowd in crowds:
        fields = {name: value for name, value in crowd.items() if name != "count"}
        runs += [
            Run(f"r{len(runs) + n:04}", key="k", created_at=float(len(runs) + n), **fields)
            for n in range(crowd["count"])
        ]
    plan = [PutQueue(row_of(queue)) for queue in queues] + [OpenRun(run, 0.0) for run in runs]
    with (
        TemporaryDirectory() as folder,
        MemoryStorage() as plain,
        open_storage(postgres_url() if kind == "postgres" else f"sqlite:///{folder}/flow.db") as storage,
    ):
        for each in (plain, storage):
            each.commit(plan)
        for owner, limit, names, ended in claimers:
            expected = claim(plain, owner, limit, queues=names)
            assert claim(storage, owner, limit, queues=names) == expected
            if ended:
                for each in (plain, storage):
                    each.commit(
                        [
                            UpdateRun(run_id, {"status": RunStatus.COMPLETED}, release=True)
                            for run_id in expected
                        ]
                    )
