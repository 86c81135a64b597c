"""The part of the storage contract that is about what belongs to runs: steps, signals, and memos."""

import pytest
from attrs import evolve

from flowdsl.core.records import Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage.base import (
    AddSignal,
    Done,
    DropMemo,
    DropSteps,
    Fenced,
    Missing,
    PutMemo,
    PutStep,
    Storage,
    TakeSignal,
    UpdateRun,
)
from flowdsl.testing.storage.samples import HOSTILE, a_step, full_memo, full_signal, full_step, open_run

__all__ = ["RecordContract"]


def put(storage: Storage, step: Step, epoch: int | None = None, *, once: bool = False) -> Done:
    """Put one step, by itself, and return the outcome."""
    (outcome,) = storage.commit([PutStep(step, epoch, once)])
    assert isinstance(outcome, Done)
    return outcome


class RecordContract:
    """What holds for steps, signals and memos in every storage."""

    # Steps -------------------------------------------------------------------------------------------------

    def test_steps_read_back(self, storage: Storage) -> None:
        """A step reads back with every field as it was put, and the seq of its outcome."""
        open_run(storage)
        for step in (full_step(), a_step(key="plain")):
            done = put(storage, step, 1)
            assert done == Done(done.seq)
            assert done.seq > 0
            read = storage.get_step("r", step.key)
            assert read == step._replace(seq=done.seq)
            assert read is not None
            assert type(read.status) is StepStatus
            assert type(read.concurrent) is bool
        assert [step.key for step in storage.list_steps("r")] == ["s", "plain"]

    def test_payloads_keep_their_kind(self, storage: Storage) -> None:
        """No payload and an empty payload are two things."""
        open_run(storage)
        storage.commit([PutStep(a_step(key="none")), PutStep(a_step(key="empty", payload=b""))])
        assert [step.payload for step in storage.list_steps("r")] == [None, b""]

    def test_replacing_moves_to_the_end(self, storage: Storage) -> None:
        """A replaced record has all its new values and the next seq, put alone or among others."""
        open_run(storage)
        seqs = [put(storage, a_step(key=key)).seq for key in "abc"]
        alone = put(storage, full_step(key="a")).seq
        assert alone > max(seqs)
        (among, _) = storage.commit([PutStep(a_step(key="b", preview="new"), 1), PutStep(a_step(key="d"), 1)])
        assert isinstance(among, Done)
        assert among.seq > alone
        steps = storage.list_steps("r")
        assert [step.key for step in steps] == ["c", "a", "b", "d"]
        assert steps[1] == full_step(key="a")._replace(seq=alone)
        assert steps[2].preview == "new"
        assert [step.seq for step in steps] == sorted(step.seq for step in steps)

    def test_the_same_step_twice_in_a_commit(self, storage: Storage) -> None:
        """Of two records of one address in one commit the later one stays."""
        open_run(storage)
        steps = [a_step(preview="1"), a_step(key="t"), a_step(preview="2"), a_step("nobody")]
        first, other, second, missing = storage.commit([PutStep(step) for step in steps])
        assert missing == Missing()
        assert isinstance(first, Done)
        assert isinstance(other, Done)
        assert isinstance(second, Done)
        assert first.seq < other.seq < second.seq
        assert storage.list_steps("r") == [
            steps[1]._replace(seq=other.seq),
            steps[2]._replace(seq=second.seq),
        ]

    def test_once(self, storage: Storage) -> None:
        """A record put once stays as it is, and says so, when it comes again; a new one is stored."""
        open_run(storage)
        first = put(storage, a_step(preview="first"), 1, once=True)
        assert not first.existed
        again = put(storage, a_step(preview="second"), 1, once=True)
        assert again == Done(first.seq, existed=True)
        outcomes = storage.commit([PutStep(a_step(preview="3"), 1, True), PutStep(a_step(key="t"), 1, True)])
        assert outcomes[0] == again
        assert [(step.key, step.preview) for step in storage.list_steps("r")] == [("s", "first"), ("t", "")]

    def test_order_is_over_all_runs(self, storage: Storage) -> None:
        """Seqs grow over all runs, and each run lists its own steps in that order."""
        for run_id in ("r", "q"):
            open_run(storage, run_id)
        seqs = [put(storage, a_step("rq"[i % 2], f"s{i}")).seq for i in range(10)]
        outcomes = storage.commit([PutStep(a_step("rq"[i % 2], f"t{i}")) for i in range(10)])
        seqs += [outcome.seq for outcome in outcomes if isinstance(outcome, Done)]
        assert seqs == sorted(set(seqs))
        keys = [step.key for step in storage.list_steps("r")]
        assert keys == [f"{letter}{i}" for letter in "st" for i in range(0, 10, 2)]
        assert [step.seq for step in storage.list_steps("q")] == seqs[1::2]

    def test_seqs_are_never_used_again(self, storage: Storage) -> None:
        """Whatever is deleted, and however, the next seq is higher than all before."""
        open_run(storage)
        highest = put(storage, a_step(key="a")).seq
        for keys in (["b"], ["c", "d"]):
            highest = [put(storage, a_step(key=key)).seq for key in keys][-1]
            storage.commit([DropSteps("r", tuple(keys))])
            latest = put(storage, a_step(key="a")).seq
            assert latest > highest
        storage.delete_run("r")
        open_run(storage)
        highest = put(storage, a_step()).seq
        assert highest > latest
        storage.clear()
        open_run(storage)
        assert put(storage, a_step()).seq > highest

    def test_pages_of_steps(self, storage: Storage) -> None:
        """A journal is read from behind a seq, a page at a time."""
        open_run(storage)
        open_run(storage, "other")
        storage.commit([PutStep(a_step(run, f"s{i}")) for i in range(30) for run in ("r", "other")])
        everything = storage.list_steps("r")
        assert len(everything) == 30
        read: list[Step] = []
        while page := storage.list_steps("r", after=read[-1].seq if read else 0, limit=7):
            read += page
        assert read == everything
        assert storage.list_steps("r", limit=0) == []
        assert storage.list_steps("r", after=everything[-1].seq) == []
        assert storage.list_steps("r", after=-5) == everything
        assert storage.list_steps("nobody") == []
        assert storage.get_step("r", "nothing") is None
        assert storage.get_step("nobody", "s1") is None

    def test_a_large_commit(self, storage: Storage) -> None:
        """A thousand steps of many runs in one commit are stored in order, and the refused ones left out."""
        for i in range(10):
            open_run(storage, f"r{i}")
        operations = [PutStep(a_step(f"r{i % 11}", f"s{i}"), 1 + (i % 7 == 0)) for i in range(1000)]
        outcomes = storage.commit(operations)
        expected = [Missing if i % 11 == 10 else Fenced if i % 7 == 0 else Done for i in range(1000)]
        wrong = [(i, outcomes[i]) for i in range(1000) if type(outcomes[i]) is not expected[i]]
        assert wrong[:5] == []  # a diff of a thousand items takes longer than all other tests
        stored = [f"s{i}" for i in range(1000) if i % 11 == 3 and i % 7]
        assert [step.key for step in storage.list_steps("r3")] == stored

    def test_drop(self, storage: Storage) -> None:
        """Dropped steps are gone; keys that are not there, and no keys at all, do not matter."""
        open_run(storage)
        storage.commit([PutStep(a_step(key=key)) for key in "abc"])
        assert storage.commit([DropSteps("r", ("a", "z", "c")), DropSteps("r", (), 1)]) == [Done(), Done()]
        assert [step.key for step in storage.list_steps("r")] == ["b"]

    @pytest.mark.parametrize("text", HOSTILE)
    def test_any_text_is_a_key(self, storage: Storage, text: str) -> None:
        """Keys and names that look like code are only compared."""
        open_run(storage, text)
        put(storage, a_step(text, text))
        put(storage, a_step(text, "other"))
        storage.commit([AddSignal(Signal(text, text, text, key=text)), AddSignal(Signal("x", text, "other"))])
        storage.commit([PutMemo(full_memo(text))])
        step, memo = storage.get_step(text, text), storage.get_memo(text)
        assert step is not None
        assert memo is not None
        assert (step.key, memo.key) == (text, text)
        assert [signal.id for signal in storage.list_signals(text, name=text)] == [text]
        storage.commit([DropSteps(text, (text,)), DropMemo(text)])
        assert [step.key for step in storage.list_steps(text)] == ["other"]

    def test_operations_see_those_before(self, storage: Storage) -> None:
        """Within one commit, order counts: put, drop, finish and signal follow each other."""
        open_run(storage)
        outcomes = storage.commit(
            [
                PutStep(a_step(key="a"), 1),
                DropSteps("r", ("a",), 1),
                PutStep(a_step(key="b"), 1, once=True),
                PutStep(a_step(key="b", preview="again"), 1, once=True),
                UpdateRun("r", {"status": RunStatus.COMPLETED}, epoch=1),
                AddSignal(Signal("x", "r", "go")),
                PutStep(a_step(key="c"), 1),
            ]
        )
        assert [type(outcome) for outcome in outcomes] == [Done, Done, Done, Done, Done, Fenced, Done]
        assert [step.key for step in storage.list_steps("r")] == ["b", "c"]

    # Signals -----------------------------------------------------------------------------------------------

    def test_signals_read_back(self, storage: Storage) -> None:
        """A signal reads back with every field as it was sent, untaken, and the seq of its outcome."""
        open_run(storage)
        (done,) = storage.commit([AddSignal(evolve(full_signal(), seq=77, taken_by="forged"))])
        assert isinstance(done, Done)
        assert storage.list_signals("r") == [evolve(full_signal(), seq=done.seq)]

    def test_signals_wait_in_line(self, storage: Storage) -> None:
        """Signals are kept in the order of arrival, by name, however many, waited for or not."""
        open_run(storage)
        storage.commit([AddSignal(Signal(f"x{i}", "r", "ab"[i % 2])) for i in range(50)])
        for i in range(50, 100):
            storage.commit([AddSignal(Signal(f"x{i}", "r", "ab"[i % 2]))])
        assert [signal.id for signal in storage.list_signals("r")] == [f"x{i}" for i in range(100)]
        assert [s.id for s in storage.list_signals("r", name="b", limit=3)] == ["x1", "x3", "x5"]
        assert storage.list_signals("r", name="c") == storage.list_signals("nobody") == []
        assert storage.list_signals("r", limit=0) == []

    def test_sending_twice(self, storage: Storage) -> None:
        """A signal whose id or key was sent before is dropped; keys count by name, and both by run."""
        for run_id in ("r", "q"):
            open_run(storage, run_id)
        first, *others = storage.commit(
            [
                AddSignal(Signal("1", "r", "go", key="k")),
                AddSignal(Signal("2", "r", "go", key="k")),
                AddSignal(Signal("1", "r", "other")),
                AddSignal(Signal("3", "r", "other", key="k")),
                AddSignal(Signal("1", "q", "go", key="k")),
                AddSignal(Signal("4", "r", "go")),
                AddSignal(Signal("5", "r", "go")),
                AddSignal(Signal("6", "r", "go", key="")),
                AddSignal(Signal("7", "r", "go", key="")),
            ]
        )
        assert isinstance(first, Done)
        assert others[:2] == [Done(first.seq, existed=True)] * 2
        existed = [isinstance(outcome, Done) and outcome.existed for outcome in others[2:]]
        assert existed == [False] * 5 + [True]
        assert [signal.id for signal in storage.list_signals("r")] == ["1", "3", "4", "5", "6"]

    @pytest.mark.parametrize("status", list(RunStatus))
    def test_who_takes_signals(self, storage: Storage, status: RunStatus) -> None:
        """Runs that have not ended take signals, failed ones too; the others refuse new ones."""
        run = open_run(storage)
        (first,) = storage.commit([AddSignal(Signal("1", "r", "go"))])
        storage.commit([UpdateRun("r", {"status": status})])
        (outcome,) = storage.commit([AddSignal(Signal("2", "r", "go"))])
        if status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
            assert outcome == Fenced(evolve(run, status=status))
        else:
            assert isinstance(outcome, Done)
        assert isinstance(first, Done)
        assert storage.commit([AddSignal(Signal("1", "r", "go"))]) == [Done(first.seq, existed=True)]

    def test_taking(self, storage: Storage) -> None:
        """A signal is taken and its wait recorded in one; the same wait may take it again, no other."""
        open_run(storage)
        storage.commit([AddSignal(Signal(f"x{i}", "r", "go")) for i in range(3)])
        (done,) = storage.commit([TakeSignal("x1", full_step(key="w"), 1)])
        assert isinstance(done, Done)
        assert storage.get_step("r", "w") == full_step(key="w")._replace(seq=done.seq)
        assert [(signal.id, signal.taken_by) for signal in storage.list_signals("r")] == [
            ("x0", None),
            ("x1", "w"),
            ("x2", None),
        ]
        assert [signal.id for signal in storage.list_signals("r", unread=True)] == ["x0", "x2"]
        assert [s.id for s in storage.list_signals("r", name="go", unread=True, limit=1)] == ["x0"]
        (again,) = storage.commit([TakeSignal("x1", full_step(key="w"), 1)])
        assert isinstance(again, Done)
        assert storage.commit([TakeSignal("x1", a_step(key="v"), 1)]) == [Missing()]
        assert storage.commit([TakeSignal("nothing", a_step(key="v"), 1)]) == [Missing()]
        assert storage.get_step("r", "v") is None
        assert len(storage.list_signals("r", unread=True)) == 2

    def test_taking_needs_the_run_of_the_signal(self, storage: Storage) -> None:
        """A signal sent to one run is not taken by another."""
        for run_id in ("r", "q"):
            open_run(storage, run_id)
        storage.commit([AddSignal(Signal("x", "r", "go"))])
        assert storage.commit([TakeSignal("x", a_step("q"))]) == [Missing()]
        assert storage.list_steps("q") == []
        assert len(storage.list_signals("r", unread=True)) == 1

    # Memos -------------------------------------------------------------------------------------------------

    def test_memos(self, storage: Storage) -> None:
        """A memo reads back as it was put, is replaced as a whole, and can be dropped."""
        assert storage.get_memo("m") is None
        assert storage.commit([PutMemo(full_memo()), DropMemo("nothing")]) == [Done(), Done()]
        assert storage.get_memo("m") == full_memo()
        newer = evolve(full_memo(), payload=b"", preview="", expires_at=None)
        storage.commit([PutMemo(newer)])
        assert storage.get_memo("m") == newer
        storage.commit([DropMemo("m")])
        assert storage.get_memo("m") is None
