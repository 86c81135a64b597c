"""Planted bugs: for each, the tests must go red. A mutant that survives is a test that is missing.

A mutant is a small replacement in the text of ``flowdsl`` (:mod:`.bugs`), applied to a copy of the sources in
a folder of its own; the tests that should notice are executed there. Why text, and not monkeypatches: most of
these bugs sit in the middle of a generator, where a patch would have to bring a copy of the whole function,
and would go on testing that copy when the original has changed. And a copied folder reaches the processes
that tests start.

What keeps it alive through refactoring: a mutant does not say in which module its text stands, white space
and the commas that a formatter adds do not count, and :mod:`.test_mutants` fails as soon as a text is not
found exactly once. Then look at what became of the place and plant the bug there again, or drop it if there
is no such place any more.

    python -m tests.mutants               all of them: one line of JSON each, and a summary
    python -m tests.mutants NAME …        some of them
    python -m tests.mutants --whole       with the whole quick suite instead of the tests that each names
    python -m tests.mutants --jobs 2      so many at a time
"""
