"""The planted bugs can still be planted, and a handful of them is noticed. All: ``python -m tests.mutants``."""

import pytest

from .bugs import BUGS, Bug
from .runner import ROOT, judge, planted

HANDFUL = [
    "minus-zero",
    "jitter-after-the-cap",
    "no-epoch-sqlite",
    "neighbour-fails-too",
    "undo-oldest-first",
]


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_can_be_planted(name):
    """Its text stands in flowdsl exactly once, what is put there compiles, and its tests are there."""
    bug = BUGS[name]
    assert planted(ROOT / "flowdsl", bug)
    assert all((ROOT / test).is_file() for test in bug.tests)


def test_there_are_bugs_enough():
    """In steps, runs and storages, and at least one for each verb."""
    assert len(BUGS) >= 60
    words = (
        "store sleep wait gather schedule handler send now uuid4 rng log fork resolve forget undo child memo"
    )
    assert not [word for word in words.split() if not any(word in name for name in BUGS)]


@pytest.mark.parametrize("name", HANDFUL)
def test_a_planted_bug_is_noticed(name):
    """The tests that it names go red."""
    facts = judge(BUGS[name])
    assert facts["outcome"] == "killed", facts


def test_what_the_runner_says():
    """Of a change that nobody can notice, that it survived; of one whose text is gone, that it is lost."""
    tests = ("tests/core/test_durations.py",)
    harmless = Bug("harmless", "", (("def jitter() -> float:", "def jitter() -> float:  # the same"),), tests)
    assert judge(harmless)["outcome"] == "survived"
    gone = Bug("gone", "", (("this stands in no module", ""),), tests)
    assert judge(gone)["outcome"] == "lost"
