"""The law of undo, over generated programs that are stopped anywhere; see ``stopped.py``."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from grammar import STOPPED, nodes_of, sequential
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from processes import fresh
from stopped import Stop, live, standing
from support import examples


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("flowdsl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # undone runs and refused strays have much to say
    yield
    logger.setLevel(before)


def stops(*hows: str) -> st.SearchStrategy[Stop]:
    """When and how a run is told to stop."""
    return st.builds(
        Stop, st.integers(0, 20), st.sampled_from(hows), st.booleans(), st.booleans(), st.booleans()
    )


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(15), deadline=None)
@given(program=STOPPED.strategy)
def test_a_run_that_fails_at_its_end_takes_back_all_that_it_did(is_async, program):
    """If only the end of a program fails, each of its steps has acted, and each is undone that may be."""
    nodes = list(nodes_of(program))
    assume(all(kind != "at_once" and (kind, *more) != ("fail", False) for kind, *more in nodes))
    acts = [more for kind, *more in nodes if kind in ("act", "nested") and more[-1] != "none"]
    with fresh("memory") as storage:
        world = live((*program, ("fail", False)), is_async, storage)
        tokens = [token for _, token in world.did if not str(token).startswith("k")]
        assert len(tokens) == len(acts)
        assert world.undid == Counter(tokens)


@settings(max_examples=examples(15), deadline=None)
@given(
    program=STOPPED.strategy,
    stops=st.lists(stops("cancel", "cancel", "task", "time"), min_size=1, max_size=2),
    slow=st.sampled_from([0, 2, 5]),
    seed=st.integers(0, 99),
)
def test_what_an_async_run_has_completed_is_undone_once(program, stops, slow, seed):
    """Completed steps of an async run are undone once, after cancels, timeouts and failures at any commit or
    body."""
    with fresh("memory") as storage:
        world = live(program, True, storage, stops, slow=slow, seed=seed)
        assert standing(storage, world, ordered=sequential(program)) == []


@settings(max_examples=examples(15), deadline=None)
@given(program=STOPPED.strategy, stops=st.lists(stops("cancel", "time", "interrupt"), min_size=1, max_size=2))
def test_what_a_sync_run_has_completed_is_undone_once(program, stops):
    """Completed steps of a sync run with threads are undone once, after any stop at any commit or body."""
    with fresh("memory") as storage:
        world = live(program, False, storage, stops)
        assert standing(storage, world, ordered=sequential(program)) == []


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(2), deadline=None)
@given(program=STOPPED.strategy, stops=st.lists(stops("cancel"), min_size=1, max_size=2))
def test_what_a_run_on_postgresql_has_completed_is_undone_once(is_async, program, stops):
    """Completed steps of a run on PostgreSQL are undone once, after any stop."""
    with fresh("postgres") as storage:
        world = live(program, is_async, storage, stops)
        assert standing(storage, world, ordered=sequential(program)) == []
