"""The tool that plants bugs works. What it finds: ``python -m tests.mutants``."""

import re

from .bugs import BUGS, Bug
from .runner import ROOT, Workshop, judge, planted


def test_there_are_bugs_enough():
    """The planted bugs are in steps, runs, storages and every verb."""
    assert len(BUGS) >= 100
    words = (
        "store sleep wait gather schedule handler send now uuid4 rng log fork resolve forget undo child memo"
    )
    assert not [word for word in words.split() if not any(word in name for name in BUGS)]


def test_the_tests_that_have_to_notice_are_there():
    """The file of each test that has to notice a bug exists, and the function in it."""
    for test in {test for bug in BUGS.values() for test in bug.tests}:
        path, *names = test.split("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        name = names[0].partition("[")[0] if names else ""
        assert re.search(rf"^(?:async )?(?:def|class) {name}", text, re.MULTILINE), test


def test_each_bug_has_a_place():
    """The text that a planted bug replaces occurs once in flowdsl."""
    for bug in BUGS.values():
        planted(ROOT / "flowdsl", bug)


def test_what_the_runner_says():
    """The runner reports a killed bug, a survivor, and a bug whose text is gone."""
    tests = ("--noconftest", "tests/mutants/sample.py")
    harmless = Bug("harmless", "", (("class OpenFailures:", "class OpenFailures:  # the same"),), tests)
    gone = Bug("gone", "", (("this stands in no module", ""),), tests)
    workshop = Workshop()
    facts = judge(workshop, harmless)
    assert facts["outcome"] == "survived", facts
    assert judge(workshop, gone)["outcome"] == "lost"
    facts = judge(workshop, BUGS["minus-zero"], tests)
    assert facts["outcome"] == "killed", facts
    assert judge(workshop, harmless)["outcome"] == "survived"  # the bug was taken out again
    workshop.close()
