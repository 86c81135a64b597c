"""The part of the storage contract that is about steps and memos."""

import pytest
from attrs import evolve

from flowdsl.core.records import Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage.base import Storage
from flowdsl.storage.operations import (
    AddSignal,
    DropMemo,
    DropSteps,
    PutMemo,
    PutStep,
    Reply,
    Restart,
    UpdateRun,
)
from flowdsl.storage.outcomes import Done, Fenced, Missing
from flowdsl.testing.storage.differences import same
from flowdsl.testing.storage.samples import HOSTILE, a_step, full_memo, full_signal, full_step, open_run

__all__ = ["RecordContract"]


def put(storage: Storage, step: Step, epoch: int | None = None, *, once: bool = False) -> Done:
    """Put one step, by itself, and return the outcome."""
    (outcome,) = storage.commit([PutStep(step, epoch, once)])
    assert isinstance(outcome, Done)
    return outcome


class RecordContract:
    """What holds for steps and memos in every storage."""

    # Steps -------------------------------------------------------------------------------------------------

    def test_steps_read_back(self, storage: Storage) -> None:
        """A step reads back with every field as it was put, and the seq of its outcome."""
        open_run(storage)
        for step in (full_step(), a_step(key="plain")):
            done = put(storage, step, 1)
            assert done == Done(done.seq)
            assert done.seq > 0
            read = storage.get_step("r", step.key)
            same(read, step._replace(seq=done.seq))
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
        same(steps[1], full_step(key="a")._replace(seq=alone))
        assert steps[2].preview == "new"
        assert [step.seq for step in steps] == sorted(step.seq for step in steps)

    def test_the_same_step_twice_in_a_commit(self, storage: Storage) -> None:
        """Of two records of one address in one commit, the later one counts."""
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

    def test_steps_are_numbered_within_their_run(self, storage: Storage) -> None:
        """Seqs are 1, 2, … in each run, whatever other runs do and however the steps are put."""
        for run_id in ("r", "q"):
            open_run(storage, run_id)
        seqs = [put(storage, a_step("rq"[i % 2], f"s{i}")).seq for i in range(10)]
        outcomes = storage.commit([PutStep(a_step("rq"[i % 2], f"t{i}")) for i in range(10)])
        seqs += [outcome.seq for outcome in outcomes if isinstance(outcome, Done)]
        assert seqs == [i // 2 + 1 for i in range(20)]
        keys = [step.key for step in storage.list_steps("r")]
        assert keys == [f"{letter}{i}" for letter in "st" for i in range(0, 10, 2)]
        assert [step.seq for step in storage.list_steps("q")] == list(range(1, 11))

    def test_seqs_are_never_used_again(self, storage: Storage) -> None:
        """Whatever is dropped from a run, and however, the next seq is higher than all before."""
        open_run(storage)
        highest = put(storage, a_step(key="a")).seq
        for keys in (["b"], ["c", "d"]):
            highest = [put(storage, a_step(key=key)).seq for key in keys][-1]
            storage.commit([DropSteps("r", tuple(keys))])
            latest = put(storage, a_step(key="a")).seq
            assert latest > highest
        storage.commit([DropSteps("r", ("a",)), Restart("r", None)])
        assert put(storage, a_step()).seq > latest

    def test_sending_a_step_again_changes_nothing(self, storage: Storage) -> None:
        """After an unknown outcome the same records are sent again; what is read is the same but for the
        seq."""
        open_run(storage)
        operations = [PutStep(full_step(key="a"), 1), PutStep(a_step(key="b"), 1)]
        storage.commit(operations)
        before = [step._replace(seq=0) for step in storage.list_steps("r")]
        storage.commit(operations)
        same([step._replace(seq=0) for step in storage.list_steps("r")], before)

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
            assert len(read) <= 30, "a page begins again before `after`"
        same(read, everything)
        assert storage.list_steps("r", limit=0) == []
        assert storage.list_steps("r", after=everything[-1].seq) == []
        assert storage.list_steps("r", after=-5) == everything
        assert storage.list_steps("nobody") == []
        assert storage.get_step("r", "nothing") is None
        assert storage.get_step("nobody", "s1") is None

    def test_pages_of_replaced_steps(self, storage: Storage) -> None:
        """Pages that are folded by key are the journal, and a page is short only at its end."""
        open_run(storage)
        storage.commit([PutStep(a_step(key=f"s{i % 7}", preview=str(i))) for i in range(40)])
        storage.commit([DropSteps("r", ("s3",))])
        for limit in (1, 2, 5):
            folded: dict[str, Step] = {}
            after, page = 0, [a_step()] * limit
            while len(page) == limit:
                page = storage.list_steps("r", after=after, limit=limit)
                for step in page:
                    assert step.seq > after, "a page begins again before `after`"
                    folded.pop(step.key, None)
                    folded[step.key] = step
                    after = step.seq
            same(list(folded.values()), storage.list_steps("r"))

    def test_lists_without_payloads(self, storage: Storage) -> None:
        """A list without payloads leaves out the large bytes."""
        open_run(storage, args=b"a", result=b"r", error=b"e", args_preview="shown")
        storage.commit([PutStep(full_step()), AddSignal(full_signal()), Reply("r", "x", b"reply", "shown")])
        (step,) = storage.list_steps("r", payloads=False)
        (full,) = storage.list_steps("r")
        same(step, full._replace(payload=None))
        (signal,) = storage.list_signals("r", payloads=False)
        same(signal, evolve(storage.list_signals("r")[0], payload=b"", reply=None))
        (run,) = storage.list_runs()
        assert (run.args, run.result, run.error, run.args_preview) == (b"", None, None, "shown")
        same(storage.list_runs(payloads=True), [storage.get_run("r")])

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

    # Memos -------------------------------------------------------------------------------------------------

    def test_memos(self, storage: Storage) -> None:
        """A memo reads back as it was put, is replaced as a whole, and can be dropped."""
        assert storage.get_memo("m") is None
        assert storage.commit([PutMemo(full_memo()), DropMemo("nothing")]) == [Done(), Done()]
        same(storage.get_memo("m"), full_memo())
        newer = evolve(full_memo(), payload=b"", preview="", expires_at=None)
        storage.commit([PutMemo(newer)])
        same(storage.get_memo("m"), newer)
        storage.commit([DropMemo("m")])
        assert storage.get_memo("m") is None
