"""The tool that plants bugs works. What it finds: ``python -m tests.mutants``."""

from .bugs import BUGS, Bug
from .runner import ROOT, judge, planted


def test_there_are_bugs_enough():
    """The planted bugs are in steps, runs, storages and every verb, and their tests exist."""
    assert len(BUGS) >= 60
    words = (
        "store sleep wait gather schedule handler send now uuid4 rng log fork resolve forget undo child memo"
    )
    assert not [word for word in words.split() if not any(word in name for name in BUGS)]
    assert not [test for bug in BUGS.values() for test in bug.tests if not (ROOT / test).is_file()]


def test_each_bug_has_a_place():
    """The text that a planted bug replaces occurs once in flowdsl."""
    for bug in BUGS.values():
        planted(ROOT / "flowdsl", bug)


def test_what_the_runner_says():
    """The runner reports a killed bug, a survivor, and a bug whose text is gone."""
    tests = ("tests/core/test_facts.py",)
    harmless = Bug("harmless", "", (("class OpenFailures:", "class OpenFailures:  # the same"),), tests)
    facts = judge(harmless)
    assert facts["outcome"] == "survived", facts
    gone = Bug("gone", "", (("this stands in no module", ""),), tests)
    assert judge(gone)["outcome"] == "lost"
    facts = judge(BUGS["minus-zero"])
    assert facts["outcome"] == "killed", facts
