"""The laws, over generated programs that use every verb, killed at any commit and again while they recover.

The programs are those of ``grammar.VERBS``, the laws are in ``verb_laws.py``.
"""

import pytest
from grammar import ENDINGS, HOLDERS, LEAVES, VERBS, Fault, endings_of, kinds_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import EXAMPLES, examples
from verb_laws import Case, check_program

KINDS = LEAVES + HOLDERS
BODY = (("step",), ("undoable",), ("increment",))
"""What the nodes hold that hold others."""

ON_A_SERVER = [*LEAVES[LEAVES.index("received") :], "memo", "increment", "late", "chosen", "log", "started"]
both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
faults = st.lists(
    st.builds(Fault, st.integers(0, 40), st.booleans(), st.sampled_from([False, False, True])),
    min_size=1,
    max_size=3,
)


def alone(kind):
    """The smallest program with a node of *kind*."""
    return ((kind,),) if kind in LEAVES else ((kind, BODY),)


def of_its_turn(points, is_async, thinned=1):
    """Every second of *points* for sync bodies, and the others for async ones: there is one engine for both.
    With more examples, all."""
    return points if EXAMPLES > 1 else points[is_async * thinned :: 2 * thinned]


@both
@pytest.mark.parametrize("kind", KINDS)
def test_each_verb_survives_a_kill_at_every_point(kind, is_async):
    """A program with one verb survives a kill before and after each commit and in each body."""
    # where it asks, two runs take turns, which takes real time
    mine = ENDINGS[KINDS.index(kind) % len(ENDINGS)]
    for ending in ENDINGS if EXAMPLES > 1 else [mine]:
        case = Case(alone(kind), is_async=is_async, ending=ending, cancel_at=1)
        for number, fault in enumerate(of_its_turn(case.points(), is_async, 3 if kind == "asked" else 1)):
            case.check([fault], pause=(1.0, 7200.0)[number % 2])


@pytest.mark.parametrize("ending", [*ENDINGS, "timeout"])
def test_each_verb_comes_to_each_end(ending):
    """Each verb survives a kill in programs of each ending, sync or async."""
    for number, kind in enumerate(KINDS):
        every_point = ending in ENDINGS and number % len(ENDINGS) == ENDINGS.index(ending)  # the test above
        if ending in endings_of(alone(kind)) and (EXAMPLES > 1 or not every_point):
            is_async = (number + len(ending)) % 2 == 1
            case = Case(alone(kind), is_async=is_async, ending=ending, cancel_at=1)
            case.check([case.points()[len(case.points()) * 2 // 3]])


@both
@pytest.mark.parametrize("ending", ENDINGS)
def test_each_verb_survives_a_kill_on_sqlite(ending, is_async):
    """Each verb survives a kill on SQLite, sync or async."""
    turn = 2 * ENDINGS.index(ending) + is_async
    for number, kind in enumerate(KINDS):
        if number % (2 * len(ENDINGS)) == turn or EXAMPLES > 1:
            case = Case(alone(kind), is_async=is_async, kind="sqlite", ending=ending, cancel_at=1)
            case.check([case.points()[len(case.points()) // 2]])


@both
@pytest.mark.parametrize("ending", ENDINGS)
def test_each_verb_survives_a_kill_on_postgresql(ending, is_async):
    """Verbs that use more of a storage than steps survive a kill on PostgreSQL."""
    turn = 2 * ENDINGS.index(ending) + is_async
    for number, kind in enumerate(ON_A_SERVER):
        if number % (2 * len(ENDINGS)) == turn or EXAMPLES > 1:
            case = Case(alone(kind), is_async=is_async, kind="postgres", ending=ending, cancel_at=1)
            case.check([case.points()[len(case.points()) // 3]])


@both
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_with_every_verb_survives(ending, is_async):
    """A program with every verb survives kills at many places, and one more in recovery."""
    whole = (*((kind,) for kind in LEAVES), *((kind, BODY) for kind in HOLDERS))
    assert kinds_of(whole) == set(KINDS)
    case = Case(whole, is_async=is_async, ending=ending, cancel_at=30)
    assert case.commits > 30
    points = case.points()
    for number in range(ENDINGS.index(ending), len(points), max(1, int(160 / EXAMPLES))):
        case.check([points[number], Fault(number % 7, bool(number % 2))], pause=7200.0)


FOUND = [
    ("raise", (("child", (("late",), ("started", (("undoable",),)))),)),
    ("raise", (("retried", (("push",), ("branches", (("late",), ("silent",))))),)),
    ("return", (("submitted", (("in_vain",), ("started", (("sleep",),)))),)),
    ("retry", (("lost_child", (("branches", (("get",), ("step",))),)), ("silent",))),
    ("return", (("schedule",), ("step",), ("flaky",))),
    ("return", (("nested", (("mapped", (("handled",), ("doubt",), ("asked",))),)),)),
    ("raise", (("child", (("child", (("stubborn",),)),)),)),
]
"""Programs that once broke a law, or by which a planted bug was noticed."""


@both
@pytest.mark.parametrize(("ending", "program"), FOUND, ids=range(len(FOUND)))
def test_what_was_found_stays_mended(ending, program, is_async):
    """Programs that once found a bug survive a kill at every place, and one more in recovery."""
    case = Case(program, is_async=is_async, ending=ending)
    for number, fault in enumerate(of_its_turn(case.points(), is_async)):
        case.check([fault] if number % 3 else [fault, Fault(number % 5)])


@settings(max_examples=examples(20))
@given(
    program=VERBS.strategy,
    is_async=st.booleans(),
    kind=st.sampled_from(["memory", "memory", "sqlite"]),
    cancel_at=st.integers(0, 8),
    deaths=faults,
    pause=st.sampled_from([1.0, 7200.0]),
    data=st.data(),
)
def test_programs_of_all_verbs_survive_kills(program, is_async, kind, cancel_at, deaths, pause, data):
    """Any generated program survives kills anywhere, in recovery too, as if it had not been killed."""
    ending = data.draw(st.sampled_from(endings_of(program)))
    check_program(
        program, [deaths], pause=pause, is_async=is_async, kind=kind, ending=ending, cancel_at=cancel_at
    )


def test_a_seed_is_a_program():
    """A seed always makes the same program, and every kind of node occurs."""
    assert VERBS.of_seed("17") == VERBS.of_seed("17")
    assert set().union(*(kinds_of(VERBS.of_seed(seed)) for seed in range(300))) == set(KINDS)
