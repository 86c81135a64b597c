"""Planted bugs: for each, a test must go red. A bug that survives is a test that is missing.

A bug is a small replacement in the text of ``flowdsl`` (:mod:`.bugs`). It is planted in a copy of the sources. The
tests that should notice it are executed there. Each bug names the fewest tests that do.

Why text, and not monkeypatches? Most of these bugs sit in the middle of a generator. A patch would bring a copy of
the whole function, and would test that copy when the original has changed. A copied folder also reaches the
processes that tests start.

A bug does not say in which module its text stands. White space and the commas of a formatter do not count. So most
bugs survive a refactoring. :mod:`.test_mutants` fails as soon as a text is not found exactly once. Then look at what
became of the place, and plant the bug there again. If there is no such place any more, drop it.

    python -m tests.mutants               all of them: one line of JSON each, and a summary
    python -m tests.mutants NAME …        some of them
    python -m tests.mutants --whole       with the whole quick suite instead of the tests that each names
    python -m tests.mutants --jobs 2      so many at a time
    python -m tests.mutants --trust       without executing the tests first on sources that have no bug
"""
