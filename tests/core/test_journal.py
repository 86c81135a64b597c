"""Laws of the journal: recorded, execute or diverged."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.journal import Journal, Verdict
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus

RECORDED, EXECUTE, DIVERGED = Verdict.RECORDED, Verdict.EXECUTE, Verdict.DIVERGED


class Caller:
    """Counts the calls of one execution as the engine does."""

    def __init__(self, journal):
        self.journal = journal
        self.occurrences = {}
        self.ordinals = {}

    def identify(self, path, arg, scope=""):
        """Key and ordinal of the next call."""
        n = self.occurrences.setdefault((scope, path, arg), itertools.count())
        m = self.ordinals.setdefault((scope, path), itertools.count())
        return f"{scope}:{path}:{arg}:{next(n)}", next(m)

    def call(self, path, arg, scope="", **more):
        """Decide one call; the decision, and the record that executing it would make."""
        key, ordinal = self.identify(path, arg, scope)
        made = record(key, path, ordinal, scope=scope, args=str(arg))
        return self.journal.decide(key, scope, path, ordinal, **more), made


def record(key, path="p", ordinal=0, seq=1, **more):
    """A completed record."""
    return Step(run_id="r", key=key, path=path, ordinal=ordinal, seq=seq, **more)


calls = st.lists(st.tuples(st.sampled_from("fgh"), st.integers(0, 2)), max_size=8)


def executed(program):
    """The records of an execution of *program*, in order."""
    caller, made = Caller(Journal()), []
    for seq, (path, arg) in enumerate(program, 1):
        decision, step = caller.call(path, arg)
        assert decision.verdict is EXECUTE

        made.append(step._replace(seq=seq))
    return made


@given(calls)
def test_an_empty_journal_executes_everything(program):
    """With an empty journal each call executes, and none diverges."""
    assert len(executed(program)) == len(program)


@given(calls)
def test_a_full_journal_answers_everything(program):
    """With a full journal each call gets its own record, and none is left."""
    steps = executed(program)
    journal = Journal(steps)
    caller = Caller(journal)
    for (path, arg), step in zip(program, steps, strict=True):
        decision, _ = caller.call(path, arg)
        assert (decision.verdict, decision.record) == (RECORDED, step)
    assert journal.unused() == []


@given(calls, st.data())
def test_replay_only_advances(program, data):
    """After a recorded prefix the other calls execute, and none diverges."""
    steps = executed(program)
    cut = data.draw(st.integers(0, len(program)))
    journal = Journal(steps[:cut])
    caller = Caller(journal)
    for n, (path, arg) in enumerate(program):
        decision, made = caller.call(path, arg)
        assert decision.verdict is (RECORDED if n < cut else EXECUTE)
        if n >= cut:
            journal.add(made)
    assert journal.unused() == []


@given(calls, st.data())
def test_any_subset_in_any_order_is_recorded(program, data):
    """Any subset of recorded calls, in any order, gets its records; the others are reported as unused."""
    steps = executed(program)
    journal = Journal(steps)
    caller = Caller(journal)
    kept = data.draw(st.permutations(program))[: data.draw(st.integers(0, len(program)))]
    for path, arg in kept:
        assert caller.call(path, arg)[0].verdict is RECORDED
    assert len(journal.unused()) == len(program) - len(kept)


@given(calls, st.data())
def test_one_changed_argument_diverges(program, data):
    """A call with a changed argument diverges from the record at its place."""
    if not program:
        return
    steps = executed(program)
    place = data.draw(st.integers(0, len(program) - 1))
    caller = Caller(Journal(steps))
    for n, (path, arg) in enumerate(program[: place + 1]):
        decision, _ = caller.call(path, 99 if n == place else arg)
        if n == place:
            assert decision.verdict is DIVERGED
            assert (decision.record.path, decision.record.ordinal) == (path, steps[place].ordinal)
        else:
            assert decision.verdict is RECORDED


@given(calls, st.lists(st.tuples(st.sampled_from("fghi"), st.integers(10, 12)), max_size=4))
def test_calls_added_behind_execute(program, more):
    """Calls after all recorded ones execute."""
    caller = Caller(Journal(executed(program)))
    for path, arg in program:
        assert caller.call(path, arg)[0].verdict is RECORDED
    for path, arg in more:
        assert caller.call(path, arg)[0].verdict is EXECUTE


@given(calls, calls)
def test_calls_that_are_not_sequential_never_diverge(program, other):
    """Calls that are not sequential match by content or execute, and never diverge."""
    caller = Caller(Journal(executed(program)))
    for path, arg in other:
        assert caller.call(path, arg, sequential=False)[0].verdict in (RECORDED, EXECUTE)


@given(calls, calls)
def test_concurrent_records_are_no_evidence(program, other):
    """A record of an overlapping call is no evidence of a divergence."""

    caller = Caller(Journal([step._replace(concurrent=True) for step in executed(program)]))
    for path, arg in other:
        assert caller.call(path, arg)[0].verdict in (RECORDED, EXECUTE)


@given(calls, calls)
def test_deciding_changes_no_record(program, other):
    """A decision changes nothing but which records count as used."""
    steps = executed(program)
    journal = Journal(steps)
    caller = Caller(journal)
    for path, arg in other:
        caller.call(path, arg)
    assert list(journal) == steps
    assert len(journal) == len(steps)


@given(calls, st.data())
def test_the_floor_hides_older_records_from_divergence(program, data):
    """Records before an undo or a forget cause no divergence, and can still be matched."""
    steps = executed(program)
    floor = data.draw(st.integers(0, len(steps)))
    caller = Caller(Journal(steps, floor=floor))
    for path, arg in [(path, 99) for path, _ in program]:
        decision, _ = caller.call(path, arg)
        if decision.verdict is DIVERGED:
            assert decision.record.seq > floor
    caller = Caller(Journal(steps, floor=floor))
    for path, arg in program:
        assert caller.call(path, arg)[0].verdict is RECORDED


def test_another_path_or_scope_or_ordinal_is_no_evidence():
    """Only a record of the same scope, path and ordinal is evidence of a divergence."""
    journal = Journal([record("k", "f", 0, scope="s")])
    assert journal.decide("x", "s", "f", 0).verdict is DIVERGED
    assert journal.decide("x", "", "f", 0).verdict is EXECUTE
    assert journal.decide("x", "s", "g", 0).verdict is EXECUTE
    assert journal.decide("x", "s", "f", 1).verdict is EXECUTE


def test_another_version_is_no_evidence():
    """A call with another version does not diverge."""
    journal = Journal([record("k", "f", 0, version="1")])
    assert journal.decide("x", "", "f", 0, version="2").verdict is EXECUTE
    assert journal.decide("x", "", "f", 0, version="1").verdict is DIVERGED


def test_a_used_record_is_no_evidence():
    """A record that another call of this execution used is no evidence."""
    journal = Journal([record("k", "f", 0)])
    assert journal.decide("k", "", "f", 0).verdict is RECORDED
    assert journal.decide("x", "", "f", 0).verdict is EXECUTE


def test_reused_records_count_as_used():
    """A record that ``on_divergence="reuse"`` gave to a call counts as used."""
    journal = Journal([record("k", "f", 0)])
    assert journal.decide("x", "", "f", 0).verdict is DIVERGED
    journal.use("k")
    assert journal.unused() == []
    assert journal.decide("y", "", "f", 0).verdict is EXECUTE


def test_a_pending_record_executes_with_what_is_known():
    """A call with a pending record executes, and gets the attempts of the earlier process."""
    pending = record("k", "f", 0, status=StepStatus.PENDING, attempts=2)
    decision = Journal([pending]).decide("k", "", "f", 0)
    assert (decision.verdict, decision.record) == (EXECUTE, pending)
    assert Journal([pending]).decide("x", "", "f", 0).verdict is DIVERGED


def test_undone_records_execute_and_are_no_evidence():
    """Undone records are not used, and are no evidence."""
    journal = Journal([record("k", "f", 0, status=StepStatus.UNDONE)])
    assert journal.decide("k", "", "f", 0).verdict is EXECUTE
    assert journal.decide("x", "", "f", 0).verdict is EXECUTE
    assert journal.unused() == []


def test_open_failures_execute_and_are_no_evidence():
    """Open failures execute again, even with other arguments."""
    failed = record("k", "f", 0, status=StepStatus.FAILED)
    assert Journal([failed]).decide("k", "", "f", 0).verdict is RECORDED
    assert Journal([failed], open_failures=["k"]).decide("k", "", "f", 0).verdict is EXECUTE
    journal = Journal([failed], open_failures=["k"])
    assert journal.decide("x", "", "f", 0).verdict is EXECUTE
    assert journal.unused() == []


def test_an_open_failure_that_was_executed_again_is_recorded():
    """An open failure that has executed again is answered by its new record."""
    failed = record("k", "f", 0, status=StepStatus.FAILED)
    journal = Journal([failed], open_failures=["k"])
    journal.add(record("k", "f", 0))
    assert journal.decide("k", "", "f", 0).verdict is RECORDED


def test_reopened_failures_execute_again():
    """A failure inside an outer step executes again in its next attempt."""
    journal = Journal([record("k", "f", 0, status=StepStatus.FAILED)])
    journal.reopen(["k"])
    assert journal.decide("k", "", "f", 0).verdict is EXECUTE


def test_a_changed_default_diverges():
    """A changed default diverges: the key is the same, but the record keeps the default that it used."""
    journal = Journal([record("k", "f", 0, defaults="rate=aa")])
    assert journal.decide("k", "", "f", 0, defaults="rate=bb").verdict is DIVERGED
    assert journal.decide("k", "", "f", 0, defaults="rate=aa").verdict is RECORDED
    assert journal.decide("k", "", "f", 0, defaults="rate=aa more=cc").verdict is RECORDED
    assert journal.decide("k", "", "f", 0, defaults="").verdict is RECORDED


def test_records_below_an_answered_one_count_as_used():
    """All records below a used record count as used, at any depth and through branches."""
    outer = record("o", "f")
    inner = record("i", "g", scope="o")
    deepest = record("d", "h", scope="i")
    branch = record("b", "h", scope="o/0")
    journal = Journal([outer, inner, deepest, branch])
    assert len(journal.unused()) == 4
    journal.decide("o", "", "f", 0)
    assert journal.unused() == []


def test_records_below_an_unfinished_one_are_unused():
    """Records below a pending record count as unused, because its body executes again."""
    journal = Journal([record("o", "f", status=StepStatus.PENDING), record("i", "g", scope="o")])
    journal.decide("o", "", "f", 0)
    assert [step.key for step in journal.unused()] == ["i"]


@pytest.mark.parametrize("kind", ["log", "audit", "undo"])
def test_records_that_are_no_calls_neither_diverge_nor_count(kind):
    """Records that are no calls neither diverge nor count as unused."""
    journal = Journal([record("k", "f", 0, kind=kind)])
    assert journal.decide("x", "", "f", 0).verdict is EXECUTE
    assert journal.unused() == []


def test_dropping_forgets_the_record_and_raises_the_floor():
    """After a forget the call executes, and older records are no evidence."""
    journal = Journal([record("a", "f", 0, seq=1), record("b", "f", 1, seq=2)])
    journal.decide("a", "", "f", 0)
    journal.drop("a", 2)
    assert journal.get("a") is None
    assert journal.decide("a", "", "f", 0).verdict is EXECUTE
    assert journal.decide("x", "", "f", 1).verdict is EXECUTE


def test_how_many_are_replayed():
    """The number of replayed steps counts closed steps without open failures."""
    journal = Journal(
        [
            record("a"),
            record("b", status=StepStatus.FAILED),
            record("c", status=StepStatus.FAILED),
            record("d", status=StepStatus.PENDING),
            record("e", kind="log"),
        ],
        open_failures=["c"],
    )
    assert journal.replayable() == 2
