"""Queues: which pending runs may begin, by priority, age and limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.queues import Candidate, Queue, Rooms, Taken, choose, partition_key, window

NAMES = st.sampled_from(["a", "b", "undeclared"])
PARTITIONS = st.sampled_from([None, "p", "q"])
LIMITS = st.none() | st.integers(1, 3)
QUEUES = st.fixed_dictionaries(
    {
        name: st.builds(
            Queue,
            st.just(name),
            concurrency=LIMITS,
            per_worker=LIMITS,
            per_partition=LIMITS,
            rate=st.none() | st.sampled_from(["1/sec", "2/min", "3/hour"]),
            paused=st.booleans(),
        )
        for name in ("a", "b")
    }
)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        NAMES,
        st.integers(-2, 2),
        st.integers(0, 5).map(float),
        PARTITIONS,
        st.sampled_from([None, None, "s", "t"]),
    ),
    max_size=12,
)
TAKEN = st.builds(
    Taken,
    st.lists(
        st.tuples(NAMES, st.sampled_from(["me", "you"]), PARTITIONS, st.sampled_from([None, "s"])), max_size=4
    ),
    st.lists(st.tuples(NAMES, st.floats(0, 100)), max_size=4),
)


def counts(executing, queue):
    """How many runs of *queue* execute: in all, by worker, by partition."""
    mine = [run for run in executing if run[0] == queue]
    workers = {owner: sum(run[1] == owner for run in mine) for owner in {run[1] for run in mine}}
    parts = {part: sum(run[2] == part for run in mine) for part in {run[2] for run in mine}}
    return len(mine), max(workers.values(), default=0), max(parts.values(), default=0)


@given(CANDIDATES, TAKEN, QUEUES, st.integers(0, 5))
def test_no_limit_is_passed_by_what_is_chosen(candidates, taken, queues, limit):
    """The chosen runs exceed no limit that was not exceeded before."""
    chosen = choose(candidates, taken, queues, owner="me", now=100.0, limit=limit)
    assert len(chosen) <= limit
    after = [*taken.executing, *((run.queue, "me", run.partition, run.serial) for run in chosen)]
    for name, queue in queues.items():
        here = [run for run in chosen if run.queue == name]
        if not here:
            continue
        assert not queue.paused
        every, worker, part = counts(after, name)
        if queue.concurrency is not None:
            assert every <= queue.concurrency
        if queue.per_worker is not None:
            assert counts([run for run in after if run[1] == "me"], name)[1] <= queue.per_worker
        if queue.per_partition is not None:
            parts = {run.partition for run in here}
            assert counts([run for run in after if run[2] in parts], name)[2] <= queue.per_partition
        if queue.rate is not None:
            most, length = window(queue.rate)
            begun = [when for which, when in taken.begun if which == name and when > 100.0 - length]
            assert len(begun) + len(here) <= most
    serials = [run.serial for run in chosen if run.serial]
    assert len(serials) == len(set(serials))
    assert not set(serials) & {serial for *_, serial in taken.executing}


@given(CANDIDATES, TAKEN, QUEUES)
def test_nothing_is_passed_over_that_has_a_place(candidates, taken, queues):
    """A run that was not chosen does not fit after the chosen ones."""
    chosen = choose(candidates, taken, queues, owner="me", now=100.0, limit=100)
    more = Taken(
        [*taken.executing, *((run.queue, "me", run.partition, run.serial) for run in chosen)],
        [*taken.begun, *((run.queue, 100.0) for run in chosen)],
    )
    left = [run for run in candidates if run not in chosen]
    for run in left:
        assert choose([run], more, queues, owner="me", now=100.0, limit=1) == []


@given(CANDIDATES, TAKEN, QUEUES, st.integers(1, 4), st.integers(1, 6))
def test_reading_on_where_nothing_is_closed_finds_the_same(candidates, taken, queues, size, limit):
    """Reading candidates in parts chooses the same runs as reading all of them."""
    whole = choose(candidates, taken, queues, owner="me", now=100.0, limit=limit)
    rooms = Rooms(queues, taken, owner="me", now=100.0)
    left = sorted(candidates, key=lambda run: (-run.priority, run.created_at, run.id))
    found = []
    while left and len(found) < limit:
        closed = rooms.closed()
        left = [
            run
            for run in left
            if run.queue not in closed.queues
            and partition_key(run.queue, run.partition) not in closed.partitions
            and run.serial not in closed.serials
        ]
        page, left = left[:size], left[size:]
        chosen = rooms.take(page, limit - len(found))
        assert chosen or not page  # each look finds some, or there are no more
        found += chosen
    assert found == whole


@given(CANDIDATES)
def test_without_limits_it_is_priority_then_age(candidates):
    """Without limits, larger priorities come first, then older runs."""
    free = [run._replace(serial=None) for run in candidates]
    chosen = choose(free, Taken(), {}, owner="me", now=0.0, limit=100)
    assert chosen == sorted(free, key=lambda run: (-run.priority, run.created_at, run.id))


def test_a_full_queue_does_not_hold_up_another():
    """A full queue does not delay another queue."""
    runs = [Candidate("1", "full", priority=9), Candidate("2", "free")]
    taken = Taken([("full", "you", None, None)])
    queues = {"full": Queue("full", concurrency=1)}
    assert [run.id for run in choose(runs, taken, queues, owner="me", now=0.0, limit=9)] == ["2"]


def test_runs_without_a_partition_share_one():
    """Runs without a partition share one partition."""
    runs = [Candidate("1", "a"), Candidate("2", "a"), Candidate("3", "a", partition="p")]
    queues = {"a": Queue("a", per_partition=1)}
    assert [run.id for run in choose(runs, Taken(), queues, owner="me", now=0.0, limit=9)] == ["1", "3"]


@pytest.mark.parametrize(
    ("rate", "error"), [("0/min", ValueError), ("100", ValueError), ("1/year", ValueError), (100, ValueError)]
)
def test_a_rate_is_readable(rate, error):
    """A rate is a number per sec, min, hour or day."""
    with pytest.raises(error, match="rate="):
        Queue("a", rate=rate)


@pytest.mark.parametrize("limit", ["concurrency", "per_worker", "per_partition"])
def test_limits_are_at_least_one(limit):
    """A limit is at least 1; for 0 the message names ``pause``."""
    with pytest.raises(ValueError, match="pause it"):
        Queue("a", **{limit: 0})
    with pytest.raises(TypeError, match="whole number"):
        Queue("a", **{limit: 1.5})
    with pytest.raises(ValueError, match="must not be empty"):
        Queue(" ")
