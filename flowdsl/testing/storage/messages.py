"""The part of the storage contract that is about messages, replies and published items."""

from typing import Any

import pytest
from attrs import evolve

from flowdsl.core.records import Item, Signal
from flowdsl.core.status import RunStatus
from flowdsl.storage.base import Storage
from flowdsl.storage.operations import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    DropSteps,
    Operation,
    Publish,
    PutStep,
    Reply,
    Restart,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Done, Fenced, Missing, Opened
from flowdsl.testing.storage.differences import same
from flowdsl.testing.storage.samples import a_step, full_item, full_signal, full_step, open_run

__all__ = ["MessageContract"]


class MessageContract:
    """What holds for messages, replies and published items in every storage."""

    def test_signals_read_back(self, storage: Storage) -> None:
        """A signal reads back with every field as it was sent, untaken, and the seq of its outcome."""
        open_run(storage)
        forged: dict[str, Any] = {
            "seq": 77,
            "taken_by": "forged",
            "reply": b"forged",
            "reply_preview": "f",
            "reply_failed": True,
        }
        (done,) = storage.commit([AddSignal(evolve(full_signal(), **forged))])
        assert isinstance(done, Done)
        expected = evolve(full_signal(), seq=done.seq)
        same(storage.list_signals("r"), [expected])
        same(storage.get_signal("r", "x"), expected)
        assert storage.get_signal("r", "nothing") is storage.get_signal("nobody", "x") is None

    def test_signals_wait_in_line(self, storage: Storage) -> None:
        """Signals are kept in order of arrival, however many they are, and whether anybody waits or not."""
        open_run(storage)
        storage.commit([AddSignal(Signal(f"x{i}", "r", "ab"[i % 2])) for i in range(50)])
        for i in range(50, 100):
            storage.commit([AddSignal(Signal(f"x{i}", "r", "ab"[i % 2]))])
        assert [signal.id for signal in storage.list_signals("r")] == [f"x{i}" for i in range(100)]
        assert [s.id for s in storage.list_signals("r", name="b", limit=3)] == ["x1", "x3", "x5"]
        assert storage.list_signals("r", name="c") == storage.list_signals("nobody") == []
        assert storage.list_signals("r", limit=0) == []
        seqs = [signal.seq for signal in storage.list_signals("r")]
        assert [s.id for s in storage.list_signals("r", name="b", after=seqs[2], limit=2)] == ["x3", "x5"]
        assert storage.list_signals("r", after=seqs[-1]) == []

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

    # Replies -----------------------------------------------------------------------------------------------

    def test_the_first_reply_counts(self, storage: Storage) -> None:
        """A reply is kept with its message, in all its parts; later ones are passed over."""
        open_run(storage)
        storage.commit([AddSignal(full_signal()), AddSignal(Signal("y", "r", "go"))])
        assert storage.commit([Reply("r", "x", b"\x00\xff", "no", True, 1, b"seal")]) == [Done()]
        assert storage.commit([Reply("r", "x", b"other", epoch=1)]) == [Done(existed=True)]
        signal = storage.get_signal("r", "x")
        assert signal is not None
        same(
            signal,
            evolve(
                full_signal(),
                seq=signal.seq,
                reply=b"\x00\xff",
                reply_preview="no",
                reply_failed=True,
                reply_seal=b"seal",
            ),
        )
        assert storage.commit([Reply("r", "y", b"", epoch=1)]) == [Done()]
        assert [s.reply for s in storage.list_signals("r")] == [b"\x00\xff", b""]

    def test_replies_that_have_no_place(self, storage: Storage) -> None:
        """Without its message a reply is ``Missing``; a stale owner's is fenced."""
        run = open_run(storage)
        storage.commit([AddSignal(Signal("x", "r", "go"))])
        assert storage.commit([Reply("nobody", "x", b""), Reply("r", "y", b"")]) == [Missing(), Missing()]
        assert storage.commit([Reply("r", "x", b"", epoch=7)]) == [Fenced(run)]
        signal = storage.get_signal("r", "x")
        assert signal is not None
        assert signal.reply is None

    # Items -------------------------------------------------------------------------------------------------

    def test_items_read_back(self, storage: Storage) -> None:
        """Items of a channel are read in order, with every field, from behind a number and by pages."""
        open_run(storage)
        storage.commit([Publish(Item("r", "log", n, b"%d" % n), 1) for n in (2, 1, 3)])
        assert storage.commit([Publish(full_item(), 1)]) == [Done()]
        same(storage.list_items("r", full_item().channel), [full_item()])
        same(storage.last_item("r", full_item().channel), full_item())
        assert [item.n for item in storage.list_items("r", "log")] == [1, 2, 3]
        assert [item.n for item in storage.list_items("r", "log", after=1, limit=1)] == [2]
        last = storage.last_item("r", "log")
        assert last is not None
        assert (last.n, last.payload) == (3, b"3")
        assert storage.list_channels("r") == {full_item().channel: 1, "log": 3}
        assert storage.list_items("r", "nothing") == storage.list_items("nobody", "log") == []
        assert storage.last_item("r", "nothing") is storage.last_item("nobody", "log") is None
        assert storage.list_channels("nobody") == {}
        assert storage.list_items("r", "log", limit=0) == []

    def test_an_item_is_published_once(self, storage: Storage) -> None:
        """Sent again, an item stays as it was; a stale owner publishes nothing."""
        run = open_run(storage)
        first, again = storage.commit(
            [Publish(Item("r", "c", 1, b"1"), 1), Publish(Item("r", "c", 1, b"2"), 1)]
        )
        assert (first, again) == (Done(), Done(existed=True))
        assert storage.commit([Publish(Item("r", "c", 2), 7)]) == [Fenced(run)]
        assert storage.commit([Publish(Item("nobody", "c", 1))]) == [Missing()]
        assert [(item.n, item.payload) for item in storage.list_items("r", "c")] == [(1, b"1")]

    def test_items_go_with_their_run(self, storage: Storage) -> None:
        """A deleted run leaves no item for one that gets its id later; an ended one keeps them."""
        open_run(storage)
        storage.commit([Publish(Item("r", "c", 1)), UpdateRun("r", {"status": RunStatus.COMPLETED})])
        assert storage.list_channels("r") == {"c": 1}
        storage.commit([DeleteRun("r")])
        open_run(storage)
        assert storage.list_channels("r") == {}

    # Generations -------------------------------------------------------------------------------------------

    def test_the_next_generation(self, storage: Storage) -> None:
        """A restart deletes the journal and taken messages. Unread and asked ones, items and tags stay."""
        run = open_run(storage, tags=("t",))
        signals = [Signal("taken", "r", "go", key="k"), Signal("unread", "r", "go")]
        signals.append(Signal("asked", "r", "go", asked=True))
        storage.commit([AddSignal(signal) for signal in signals])
        storage.commit([PutStep(a_step(), 1), Publish(Item("r", "c", 1), 1)])
        storage.commit([TakeSignal(name, a_step(key=name), 1) for name in ("taken", "asked")])
        changes: dict[str, Any] = {"generation": 2, "args": b"new", "floor": 3}
        assert storage.commit([Restart("r", 1, changes)]) == [Done()]
        same(storage.get_run("r"), evolve(run, epoch=2, **changes))
        assert storage.list_steps("r") == []
        assert [signal.id for signal in storage.list_signals("r")] == ["unread", "asked"]
        assert storage.list_channels("r") == {"c": 1}
        storage.commit([PutStep(full_step(), 2)])
        assert storage.commit([Restart("r", 1, changes)]) == [Done(existed=True)]
        assert [step.key for step in storage.list_steps("r")] == ["s"]
        assert storage.commit([Restart("r", 2, changes)]) == [Done(existed=True)]
        fenced = Fenced(evolve(run, epoch=2, **changes))
        assert storage.commit([Restart("r", 7, {"generation": 3})]) == [fenced]
        assert storage.commit([Restart("nobody", 1)]) == [Missing()]
        assert isinstance(storage.commit([AddSignal(Signal("again", "r", "go", key="k"))])[0], Done)
        assert len(storage.list_signals("r")) == 3

    def test_the_next_generation_fences_off_the_former(self, storage: Storage) -> None:
        """What is still under way of the former generation is refused, in the same commit as later."""
        run = open_run(storage)
        storage.commit([AddSignal(Signal("x", "r", "go"))])
        changes: dict[str, Any] = {"generation": 2}
        late: list[Operation] = [
            PutStep(a_step(), 1),
            PutStep(a_step(), 1, once=True),
            TakeSignal("x", a_step(), 1),
            Reply("r", "x", b"late", epoch=1),
            Publish(Item("r", "c", 1), 1),
            DropSteps("r", ("s",), 1),
            UpdateRun("r", {"args": b"late"}, epoch=1),
            Restart("r", 1, {"generation": 3}),
        ]
        fenced = [Fenced(evolve(run, epoch=2, **changes))] * len(late)
        assert storage.commit([Restart("r", 1, changes), *late]) == [Done(), *fenced]
        assert storage.commit(late) == fenced
        for operation in late:
            assert storage.commit([operation]) == fenced[:1]
        assert storage.list_steps("r") == []
        assert storage.list_channels("r") == {}
        assert [signal.taken_by for signal in storage.list_signals("r", unread=True)] == [None]
        (claim,) = storage.commit([ClaimRun("r", 2, "you", 30.0, True)])
        assert isinstance(claim, Opened)
        assert isinstance(storage.commit([Restart("r", 1, changes)])[0], Fenced)
