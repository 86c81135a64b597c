"""Laws of replay and recovery, over generated programs; see ``programs.py``."""

import random

import pytest
from grammar import FLAT, REPLAYED, SEQUENTIAL, Fault
from hypothesis import given, note, settings
from hypothesis import strategies as st
from processes import fresh
from programs import DIED, World, bodies_in, execute
from support import examples

from flowdsl.core.records import RunFilter
from flowdsl.errors import NondeterminismError
from flowdsl.storage import Storage

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
kinds = pytest.mark.parametrize("kind", ["memory", "sqlite"])


def undisturbed(program, is_async: bool):
    """Result, number of commits and of bodies of an execution without faults."""
    world = World()
    with fresh("memory") as storage:
        result, process = execute(program, world, storage, is_async)
    assert world.wrong == []
    assert len(world.executed) == bodies_in(program)
    return result, process.commits, process.bodies


def records(storage: Storage):
    """Everything that is recorded of steps, but when."""
    return [
        (
            s.key,
            s.path,
            s.scope,
            s.occurrence,
            s.ordinal,
            s.status,
            s.attempts,
            s.args,
            s.preview,
            s.concurrent,
            s.kind,
        )
        for run in storage.list_runs(RunFilter(newest_first=False))
        for s in storage.list_steps(run.id)
        if s.kind != "audit"  # who continued a run is noted, and is no part of its work
    ]


def top(storage: Storage):
    """The runs that no other run called."""
    return [run for run in storage.list_runs() if run.parent is None]


AT_THE_END = Fault(end=True)
"""The death just before the run's outcome is stored: everything is recorded, and nothing has ended."""


@both
@kinds
@settings(max_examples=examples(8))
@given(program=REPLAYED.strategy, seed=st.integers(0, 1000))
def test_replay_executes_nothing_and_gives_the_same(is_async, kind, program, seed):
    """A replay of a completed run executes no body, changes no record of work, and gives the same result."""
    expected, _, _ = undisturbed(program, is_async)
    world = World(seed)
    with fresh(kind) as storage:
        died, _ = execute(program, world, storage, is_async, AT_THE_END)
        assert died is DIED
        before, executed = records(storage), list(world.executed)
        result, _ = execute(program, world, storage, is_async)
        assert (result, world.wrong) == (expected, [])
        assert world.executed == executed
        assert records(storage) == before


@both
@kinds
@settings(max_examples=examples(12))
@given(program=REPLAYED.strategy, data=st.data())
def test_crash_anywhere_and_continue(is_async, kind, program, data):
    """After a death at any commit or body, and again in recovery, the result is that without faults."""
    survives(is_async, kind, program, data)


@both
@settings(max_examples=examples(2))
@given(program=REPLAYED.strategy, data=st.data())
def test_crash_anywhere_and_continue_on_postgresql(is_async, program, data):
    """On PostgreSQL, after a death at any commit, even an unacknowledged one, the result is that without
    faults."""
    survives(is_async, "postgres", program, data)


def survives(is_async: bool, kind: str, program, data):
    """Whether *program* has the result that it has without faults."""
    expected, commits, bodies = undisturbed(program, is_async)
    world = World(data.draw(st.integers(0, 1000)))
    faults = st.one_of(
        st.builds(Fault, st.integers(0, commits - 1), after=st.booleans()),
        st.builds(Fault, st.integers(0, max(bodies - 1, 0)), body=st.just(True)),
    )
    run_id = data.draw(st.sampled_from([None, "the-run"]))
    with fresh(kind) as storage:
        for fault in data.draw(st.lists(faults, min_size=1, max_size=3)):
            result, _ = execute(program, world, storage, is_async, fault, run_id=run_id)
            note(f"{fault}: {result}, executed {world.executed}")
            assert world.wrong == []
            if result is not DIED:
                assert result == expected
            if run_id is None and any(run.status == "completed" for run in top(storage)):
                return  # calling it again would be the next number
        result, _ = execute(program, world, storage, is_async, run_id=run_id)
        assert (result, world.wrong) == (expected, [])
        assert len(top(storage)) == 1


@settings(max_examples=examples(2))
@given(program=SEQUENTIAL.strategy)
@both
def test_crash_at_every_single_point(is_async, program):
    """A death before and after each commit of a sequential program leaves the result unchanged."""
    expected, commits, _ = undisturbed(program, is_async)
    for commit in range(commits):
        for after in (False, True):
            world = World()
            with fresh("memory") as storage:
                died, _ = execute(program, world, storage, is_async, Fault(commit, after))
                executed = len(world.executed)
                assert died is DIED
                result, _ = execute(program, world, storage, is_async)
                if commit == commits - 1 and after:  # it was complete: calling it again is the next run
                    assert len(top(storage)) == 2
                    continue
                assert (result, world.wrong) == (expected, [])
                if commit == commits - 1:
                    assert len(world.executed) == executed


@settings(max_examples=examples(12))
@given(program=SEQUENTIAL.strategy)
def test_memory_and_sqlite_agree(program):
    """A program has the same journal on memory and SQLite, with and without a fault."""
    _, commits, _ = undisturbed(program, False)
    found = []
    for kind in ("memory", "sqlite"):
        world = World()
        with fresh(kind) as storage:
            execute(program, world, storage, False, Fault(commits // 2))
            half = records(storage)
            execute(program, world, storage, False)
            found.append((half, records(storage), world.executed))
    assert found[0] == found[1]


@settings(max_examples=examples(12))
@given(program=SEQUENTIAL.strategy)
def test_sync_and_async_agree(program):
    """A program has the same journal in sync and async form, except for names."""
    found = []
    for is_async in (False, True):
        world = World()
        with fresh("memory") as storage:
            result, process = execute(program, world, storage, is_async)
            rows = [
                (
                    s.path.rpartition(".")[2],
                    s.occurrence,
                    s.ordinal,
                    s.status,
                    s.attempts,
                    s.args,
                    s.preview,
                    s.concurrent,
                )
                for run in storage.list_runs(RunFilter(newest_first=False))
                for s in storage.list_steps(run.id)
            ]
            found.append((result, process.commits, sorted(map(repr, rows)), world.executed))
    assert found[0] == found[1]


def given_by(program):
    """What the calls of *program* give."""
    return [[kind, *(number or [0])] for kind, *number in program]


def recorded(program, is_async: bool, storage: Storage) -> World:
    """The world after *program* has been recorded as a whole without ending."""
    world = World()
    died, _ = execute(program, world, storage, is_async, AT_THE_END)
    assert died is DIED
    world.seen.clear()  # places change now: only counts are compared
    return world


@both
@settings(max_examples=examples(20))
@given(program=FLAT.strategy, data=st.data())
def test_removing_and_reordering_keeps_the_recorded_ones(is_async, program, data):
    """Any subset of recorded calls, in any order, executes no body."""
    kept = tuple(data.draw(st.permutations(program)))[: data.draw(st.integers(0, len(program)))]
    with fresh("memory") as storage:
        world = recorded(program, is_async, storage)
        before = len(world.executed)
        result, _ = execute(kept, world, storage, is_async)
        assert result == given_by(kept)
        assert len(world.executed) == before


@both
@settings(max_examples=examples(20))
@given(program=FLAT.strategy, more=st.lists(st.integers(10, 13), max_size=3), data=st.data())
def test_adding_behind_the_recorded_ones_keeps_them(is_async, program, more, data):
    """If calls are added after the recorded ones, and of other paths anywhere, only these execute."""
    longer = [*program, *(("plain", arg) for arg in more)]
    for _ in range(data.draw(st.integers(0, 3))):
        longer.insert(data.draw(st.integers(0, len(longer))), ("failing", 0))
    with fresh("memory") as storage:
        world = recorded(program, is_async, storage)
        before = len(world.executed)
        result, _ = execute(tuple(longer), world, storage, is_async)
        assert result == given_by(longer)
        assert len(world.executed) == before + len(longer) - len(program)


@both
@settings(max_examples=examples(20))
@given(program=FLAT.strategy, more=st.lists(st.integers(10, 13), max_size=3), data=st.data())
def test_with_rerun_calls_may_be_added_anywhere(is_async, program, more, data):
    """With ``on_divergence="rerun"`` only new calls execute, in any order."""
    changed = list(data.draw(st.permutations(program)))[: data.draw(st.integers(0, len(program)))]
    kept = len(changed)
    for arg in more:
        changed.insert(data.draw(st.integers(0, len(changed))), ("plain", arg))
    with fresh("memory") as storage:
        world = recorded(program, is_async, storage)
        before = len(world.executed)
        result, _ = execute(tuple(changed), world, storage, is_async, on_divergence="rerun")
        assert result == given_by(changed)
        assert len(world.executed) == before + len(changed) - kept


@both
@settings(max_examples=examples(20))
@given(program=FLAT.strategy, data=st.data())
def test_a_changed_argument_is_caught_before_the_body(is_async, program, data):
    """A changed argument of any call is a typed error, and nothing executes."""
    places = [n for n, call in enumerate(program) if call[0] == "plain"]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    changed = (*program[:place], ("plain", 99), *program[place + 1 :])
    with fresh("memory") as storage:
        world = recorded(program, is_async, storage)
        before = len(world.executed)
        with pytest.raises(NondeterminismError):
            execute(changed, world, storage, is_async)
        assert len(world.executed) == before
        result, _ = execute(program, world, storage, is_async)
        assert result == given_by(program)
        assert len(world.executed) == before


@settings(max_examples=examples(20))
@given(
    program=REPLAYED.strategy, seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=5), data=st.data()
)
def test_concurrent_branches_never_diverge(program, seeds, data):
    """Concurrent branches with other timing in each execution, killed in all but the last, never diverge."""
    expected, commits, _ = undisturbed(program, True)
    world = World(random.Random(repr(seeds)).random())
    with fresh("memory") as storage:
        for _ in seeds[1:]:
            fault = Fault(data.draw(st.integers(0, commits - 1)), data.draw(st.booleans()))
            result, _ = execute(program, world, storage, True, fault)
            if result is not DIED or any(run.status == "completed" for run in top(storage)):
                return
        result, _ = execute(program, world, storage, True)
        assert (result, world.wrong) == (expected, [])
