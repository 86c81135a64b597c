"""The part of the storage contract that is about runs: opening, claiming, updating, deleting, listing."""

from typing import Any

import pytest
from attrs import evolve

from flowdsl.core.records import Run, RunFilter, Signal, fields_of
from flowdsl.core.status import RunStatus
from flowdsl.storage.base import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    Done,
    DropSteps,
    Fenced,
    Found,
    Missing,
    Opened,
    OpenRun,
    Operation,
    PutStep,
    Storage,
    TakeSignal,
    UpdateRun,
)
from flowdsl.testing.storage.differences import same
from flowdsl.testing.storage.samples import a_run, a_step, full_run, open_run

__all__ = ["RunContract"]

RUNNING, COMPLETED, FAILED = RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED
CANCELLED, PENDING = RunStatus.CANCELLED, RunStatus.PENDING
EXPIRED = -1.0  # a lease that has ended before it begins, so that no test has to wait


def numbered(prefix: str = "n", **fields: Any) -> Run:
    """A run to be opened under the next number of its key."""
    return a_run(prefix, number=0, **fields)


class RunContract:
    """What holds for runs in every storage."""

    # Opening -----------------------------------------------------------------------------------------------

    def test_open_returns_what_is_read_later(self, storage: Storage) -> None:
        """A run reads back with every field as it was opened, under epoch 1 and its lease."""
        before = storage.now()
        (opened,) = storage.commit([OpenRun(full_run(), 60.0)])
        assert isinstance(opened, Opened)
        same(opened.run, evolve(full_run(), epoch=1, lease_until=opened.run.lease_until))
        assert before + 60 <= opened.run.lease_until <= storage.now() + 60
        same(storage.get_run("r"), opened.run)
        same(storage.list_runs(payloads=True), [opened.run])
        assert type(opened.run.status) is RunStatus

    def test_optional_fields_stay_unset(self, storage: Storage) -> None:
        """What was not given is not made up: no tags, no result, no times."""
        storage.commit([OpenRun(Run(id="r", workflow="w", key="k"), 0.0)])
        run = storage.get_run("r")
        assert run is not None
        assert run == evolve(Run(id="r", workflow="w", key="k"), epoch=1, lease_until=run.lease_until)
        assert run.tags == ()
        assert run.result is None

    def test_large_payloads(self, storage: Storage) -> None:
        """Payloads of some megabytes come back whole."""
        large = bytes(range(256)) * 16_384
        storage.commit([OpenRun(a_run(args=large), 60.0), UpdateRun("r", {"result": large, "error": large})])
        storage.commit([PutStep(a_step(payload=large))])
        run, step = storage.get_run("r"), storage.get_step("r", "s")
        assert run is not None
        assert step is not None
        assert run.args == run.result == run.error == step.payload == large

    def test_one_run_per_id(self, storage: Storage) -> None:
        """Opening an id again finds the run that has it and changes nothing, whatever the arguments."""
        run = open_run(storage)
        other = a_run(workflow="other", key="other", owner="you", args=b"other")
        assert storage.commit([OpenRun(other, 60.0), OpenRun(other, 60.0, fresh=True)]) == [Found((run,))] * 2
        assert storage.get_run("r") == run

    def test_open_sent_again(self, storage: Storage) -> None:
        """An insertion sent again by its owner with its nonce is the same insertion; by others it is not."""
        for run in (a_run(), numbered()):
            operation = OpenRun(run, 60.0, nonce=f"nonce-{run.id}")
            (first,) = storage.commit([operation])
            assert storage.commit([operation]) == [first]
            assert isinstance(first, Opened)
            for other in (evolve(operation, nonce="other"), evolve(operation, run=evolve(run, owner="you"))):
                assert storage.commit([other]) == [Found((first.run,))]
        assert len(storage.list_runs()) == 2

    def test_numbers_of_a_key(self, storage: Storage) -> None:
        """Runs without an id are numbered by key from 1, and their id is the prefix with the number."""
        operations = [OpenRun(numbered(key=key), 60.0, fresh=True) for key in ("k", "k", "other", "k")]
        outcomes = storage.commit(operations)
        runs = [outcome.run for outcome in outcomes if isinstance(outcome, Opened)]
        # The id "n-1" is taken when the other key asks for it, so that one goes on to the next free number.
        assert [(run.id, run.number) for run in runs] == [("n-1", 1), ("n-2", 2), ("n-3", 3), ("n-4", 4)]

    def test_number_is_above_the_highest(self, storage: Storage) -> None:
        """The next number is one above the highest of its key, though lower ones were deleted."""
        storage.commit([OpenRun(numbered(), 60.0, fresh=True) for _ in range(3)])
        storage.commit([DeleteRun("n-1"), OpenRun(a_run("n-4"), 60.0)])
        (opened,) = storage.commit([OpenRun(numbered(), 60.0, fresh=True)])
        assert isinstance(opened, Opened)
        assert (opened.run.id, opened.run.number) == ("n-5", 5)

    def test_a_number_that_is_asked_for(self, storage: Storage) -> None:
        """A run gets the number that is asked for, or none: a higher one stands, or the id is taken."""
        opening = OpenRun(numbered(), 60.0, fresh=True, number=2)
        first, again, lower, next_one = storage.commit(
            [opening, opening, evolve(opening, number=1), evolve(opening, number=3)]
        )
        assert isinstance(first, Opened)
        assert isinstance(next_one, Opened)
        assert (first.run.id, next_one.run.id) == ("n-2", "n-3")
        assert [again, lower] == [Missing(), Missing()]
        assert storage.commit([OpenRun(a_run("n-4"), 60.0), evolve(opening, number=4)])[1:] == [Missing()]
        found = storage.commit([evolve(opening, fresh=False, number=4, skip_owners=())])
        assert isinstance(found[0], Found)

    @pytest.mark.parametrize(
        ("fields", "continued"),
        [
            ({"status": PENDING, "owner": None}, True),
            ({"status": RUNNING, "owner": None}, True),
            ({"status": RUNNING, "owner": "you"}, True),
            ({"status": RUNNING, "owner": "me"}, False),
            ({"status": PENDING, "owner": "me"}, False),
            ({"status": FAILED, "owner": None}, True),
            ({"status": FAILED, "owner": "me"}, True),
            ({"status": FAILED, "owner": None, "retryable": False}, False),
            ({"status": COMPLETED, "owner": None}, False),
            ({"status": CANCELLED, "owner": None}, False),
        ],
    )
    def test_which_runs_are_continued(self, storage: Storage, fields: Any, continued: bool) -> None:
        """A call finds live runs but for those of owners to skip, and failed ones that can be retried."""
        (first,) = storage.commit([OpenRun(numbered(**fields), 60.0)])
        assert isinstance(first, Opened)
        (second,) = storage.commit([OpenRun(numbered(), 60.0, skip_owners=("me", "nobody"))])
        assert (second == Found((first.run,))) is continued
        assert isinstance(second, Found) is continued

    def test_updates_decide_what_is_continued(self, storage: Storage) -> None:
        """Which runs a call finds follows their status, owner and retryability as they change."""
        storage.commit([OpenRun(numbered(), 60.0)])
        look = OpenRun(numbered(), 60.0, skip_owners=("me",))

        def found() -> bool:
            (outcome,) = storage.commit([look])
            if isinstance(outcome, Opened):
                storage.commit([DeleteRun(outcome.run.id)])
            return isinstance(outcome, Found)

        assert not found()
        cases: list[tuple[dict[str, Any], bool]] = [
            ({"owner": "you"}, True),
            ({"owner": "me"}, False),
            ({"status": FAILED}, True),
            ({"retryable": False}, False),
            ({"retryable": True}, True),
            ({"key": "another"}, False),
            ({"key": "k", "status": COMPLETED}, False),
        ]
        for changes, expected in cases:
            storage.commit([UpdateRun("n-1", changes)])
            assert found() is expected, changes
        storage.commit([UpdateRun("n-1", {"status": RUNNING}, release=True)])
        assert found()

    def test_what_becomes_of_one_run_hides_no_other(self, storage: Storage) -> None:
        """The last failed run goes on and completes; a live one of the same owner is found as before."""
        storage.commit([OpenRun(numbered(), 60.0, fresh=True), OpenRun(numbered(), 60.0, fresh=True)])
        storage.commit([UpdateRun("n-1", {"status": FAILED}, release=True), UpdateRun("n-2", release=True)])
        storage.commit([UpdateRun("n-1", {"status": COMPLETED})])
        (found,) = storage.commit([OpenRun(numbered(), 60.0, skip_owners=("me",))])
        assert isinstance(found, Found)
        assert [run.id for run in found.runs] == ["n-2"]

    def test_the_oldest_are_found_first(self, storage: Storage) -> None:
        """The sixteen oldest runs are found, whoever owns them and whether they are live or failed."""
        for number in range(1, 41):
            run = numbered(owner=f"owner-{number % 3}", status=FAILED if number % 5 == 0 else RUNNING)
            storage.commit([OpenRun(run, 60.0, fresh=True)])
        (found,) = storage.commit([OpenRun(numbered(), 60.0, skip_owners=("owner-1",))])
        assert isinstance(found, Found)
        expected = [n for n in range(1, 41) if n % 3 != 1 or n % 5 == 0][:16]
        assert [run.number for run in found.runs] == expected

    # Owning ------------------------------------------------------------------------------------------------

    def test_claim_needs_the_epoch(self, storage: Storage) -> None:
        """A claim is a compare-and-swap: of several with the same epoch one takes effect."""
        run = open_run(storage, lease=EXPIRED)
        claims = [ClaimRun("r", run.epoch, owner, 60.0) for owner in ("you", "she")]
        first, second = storage.commit(claims)
        assert isinstance(first, Opened)
        assert (first.run.owner, first.run.epoch) == ("you", run.epoch + 1)
        assert second == Fenced(first.run)
        assert storage.get_run("r") == first.run

    def test_claim_needs_a_free_run(self, storage: Storage) -> None:
        """A run with an owner and a lease is not taken over, unless by force; a released one is."""
        run = open_run(storage)
        assert storage.commit([ClaimRun("r", run.epoch, "you", 60.0)]) == [Fenced(run)]
        (forced,) = storage.commit([ClaimRun("r", run.epoch, "you", 60.0, force=True)])
        assert isinstance(forced, Opened)
        storage.commit([UpdateRun("r", release=True)])
        (claimed,) = storage.commit([ClaimRun("r", forced.run.epoch, "she", 60.0)])
        assert isinstance(claimed, Opened)
        assert claimed.run.owner == "she"
        assert claimed.run.lease_until > storage.now() + 30

    def test_claim_needs_the_status(self, storage: Storage) -> None:
        """A run that has ended since the claimer looked is left alone, force or not: an end raises no
        epoch."""
        open_run(storage)
        storage.commit([UpdateRun("r", {"status": COMPLETED}, epoch=1, release=True)])
        ended = storage.get_run("r")
        assert ended is not None
        claim = ClaimRun("r", 1, "you", 60.0, force=True, if_status=(RUNNING, FAILED))
        assert storage.commit([claim]) == [Fenced(ended)]
        (claimed,) = storage.commit([evolve(claim, if_status=(RUNNING, COMPLETED))])
        assert isinstance(claimed, Opened)

    def test_claim_sets_the_run_going(self, storage: Storage) -> None:
        """A claimed run is running and has not finished, with the other changes applied."""
        open_run(storage, status=FAILED, finished_at=5.0, owner=None, error=b"e")
        (claimed,) = storage.commit([ClaimRun("r", 1, "you", 60.0, changes={"recoveries": 4, "error": None})])
        assert isinstance(claimed, Opened)
        assert (claimed.run.status, claimed.run.finished_at) == (RUNNING, None)
        assert (claimed.run.recoveries, claimed.run.error) == (4, None)

    def test_claim_sent_again(self, storage: Storage) -> None:
        """A claim sent again by its owner with its nonce is the same claim; without one it is refused."""
        open_run(storage, lease=EXPIRED)
        claim = ClaimRun("r", 1, "you", 60.0, nonce="n")
        (first,) = storage.commit([claim])
        assert isinstance(first, Opened)
        assert storage.commit([claim]) == [first]
        assert storage.commit([evolve(claim, nonce="")]) == [Fenced(first.run)]
        assert storage.commit([evolve(claim, owner="she")]) == [Fenced(first.run)]

    def test_a_stale_owner_is_refused(self, storage: Storage) -> None:
        """After a take-over nothing of the old owner takes effect; each refusal shows the run as it is."""
        open_run(storage, lease=EXPIRED)
        storage.commit([PutStep(a_step(), 1), AddSignal(Signal("x", "r", "go"))])
        (claimed,) = storage.commit([ClaimRun("r", 1, "you", 60.0)])
        assert isinstance(claimed, Opened)
        stale: list[Operation] = [
            PutStep(a_step(key="t"), 1),
            PutStep(a_step(preview="changed"), 1),
            PutStep(a_step(), 1, once=True),
            DropSteps("r", ("s",), 1),
            TakeSignal("x", a_step(key="w"), 1),
            UpdateRun("r", {"status": COMPLETED}, epoch=1),
            UpdateRun("r", {"status": FAILED, "tags": ("t",)}, epoch=1, if_status=(RUNNING,)),
            UpdateRun("r", epoch=1, lease=60.0),
            UpdateRun("r", epoch=1, release=True),
        ]
        before = (storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r"))
        assert storage.commit(stale) == [Fenced(claimed.run)] * len(stale)
        assert [storage.commit([operation]) for operation in stale] == [[Fenced(claimed.run)]] * len(stale)
        assert (storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r")) == before

    def test_a_deleted_run_leaves_no_owner(self, storage: Storage) -> None:
        """A run that gets the id of a deleted one is safe from the owner of that one: no epoch fits both."""
        run = open_run(storage, lease=EXPIRED)
        storage.commit([ClaimRun("r", run.epoch, "you", 60.0), DeleteRun("r")])
        successor = open_run(storage)
        assert successor.epoch > run.epoch + 1
        stale = [PutStep(a_step(), epoch) for epoch in (run.epoch, run.epoch + 1)]
        assert storage.commit(stale) == [Fenced(successor)] * 2
        storage.clear()
        assert open_run(storage).epoch > successor.epoch

    # Updating ----------------------------------------------------------------------------------------------

    def test_update_touches_nothing_else(self, storage: Storage) -> None:
        """An update sets the fields it names; history, creation time, owner and lease stay."""
        (opened,) = storage.commit([OpenRun(full_run(), 60.0)])
        assert isinstance(opened, Opened)
        storage.commit([PutStep(a_step())])
        changes: dict[str, Any] = {"status": COMPLETED, "finished_at": 9.0, "result": b"\x80", "tags": ("a",)}
        assert storage.commit([UpdateRun("r", changes)]) == [Done()]
        assert storage.get_run("r") == evolve(opened.run, **changes)
        assert len(storage.list_steps("r")) == 1
        assert storage.commit([UpdateRun("r")]) == [Done()]
        assert storage.get_run("r") == evolve(opened.run, **changes)

    def test_every_field_can_be_updated(self, storage: Storage) -> None:
        """All fields but the id, the epoch, the lease and the stub's mark can be set, and unset."""
        run = open_run(storage)
        full, plain = full_run(), evolve(run)
        names = [name for name in fields_of(Run) if name not in {"id", "epoch", "lease_until", "pruned"}]
        for source in (full, plain):
            for name in names:
                value = getattr(source, name)
                assert storage.commit([UpdateRun("r", {name: value}, epoch=run.epoch)]) == [Done()]
                assert getattr(storage.get_run("r"), name) == value

    def test_update_by_status(self, storage: Storage) -> None:
        """What must not overwrite an end names the status it expects: cancelled does not become failed."""
        open_run(storage, status=CANCELLED)
        run = storage.get_run("r")
        assert run is not None
        late = UpdateRun("r", {"status": FAILED, "error": b"late"}, if_status=(RUNNING, PENDING))
        assert storage.commit([late]) == [Fenced(run)]
        assert storage.commit([late, UpdateRun("r")]) == [Fenced(run), Done()]
        assert storage.get_run("r") == run
        assert storage.commit([evolve(late, if_status=(RUNNING, CANCELLED))]) == [Done()]

    def test_update_sent_again(self, storage: Storage) -> None:
        """The owner's change of status sent again is done already; without an epoch it is refused."""
        open_run(storage)
        finish = UpdateRun("r", {"status": COMPLETED, "result": b"r"}, epoch=1, if_status=(RUNNING,))
        assert storage.commit([finish]) == [Done()]
        assert storage.commit([finish]) == [Done(existed=True)]
        run = storage.get_run("r")
        assert run is not None
        assert storage.commit([evolve(finish, changes={"status": COMPLETED, "result": b"x"})]) == [
            Fenced(run)
        ]
        assert storage.commit([evolve(finish, epoch=None)]) == [Fenced(run)]

    def test_lease_and_release(self, storage: Storage) -> None:
        """A lease is renewed on the storage's clock; releasing drops the owner and ends it."""
        open_run(storage, lease=EXPIRED)
        storage.commit([UpdateRun("r", epoch=1, lease=100.0)])
        run = storage.get_run("r")
        assert run is not None
        assert storage.now() + 90 < run.lease_until <= storage.now() + 100
        storage.commit([UpdateRun("r", epoch=1, lease=100.0, release=True)])
        released = storage.get_run("r")
        assert released is not None
        assert released == evolve(run, owner=None, lease_until=released.lease_until)
        assert released.lease_until <= storage.now()

    def test_what_is_not_there_is_missing(self, storage: Storage) -> None:
        """Each operation on a run that is not there is refused alone and leaves no trace."""
        operations: list[Operation] = [
            ClaimRun("r", 1, "me", 60.0),
            UpdateRun("r", {"status": FAILED}),
            UpdateRun("r", epoch=1, lease=60.0),
            PutStep(a_step()),
            PutStep(a_step(), 1),
            PutStep(a_step(), once=True),
            DropSteps("r", ("s",)),
            AddSignal(Signal("x", "r", "go")),
            TakeSignal("x", a_step()),
        ]
        assert storage.commit(operations) == [Missing()] * len(operations)
        assert [storage.commit([operation]) for operation in operations] == [[Missing()]] * len(operations)
        open_run(storage)
        assert storage.list_steps("r") == []
        assert storage.list_signals("r") == []
        assert storage.commit([TakeSignal("x", a_step())]) == [Missing()]
        assert storage.get_step("r", "s") is None

    # Deleting ----------------------------------------------------------------------------------------------

    def test_delete_takes_everything_along(self, storage: Storage) -> None:
        """A deleted run leaves no steps, no signals and no tags for one that gets its id later."""
        open_run(storage, tags=("t",))
        storage.commit([PutStep(a_step()), AddSignal(Signal("x", "r", "go", key="k")), DeleteRun("r")])
        assert storage.get_run("r") is None
        assert storage.list_steps("r") == []
        open_run(storage)
        assert storage.list_steps("r") == []
        assert storage.list_signals("r") == []
        assert storage.list_runs(RunFilter(tags=("t",))) == []
        assert storage.commit([DeleteRun("nobody"), DeleteRun("nobody", tombstone=True)]) == [Done()] * 2
        assert storage.get_run("nobody") is None

    def test_a_tombstone_keeps_the_id(self, storage: Storage) -> None:
        """A pruned run is a stub that only opening its id finds, and no operation touches it."""
        run = open_run(
            storage, tags=("t",), args=b"a", result=b"r", error=b"e", args_preview="secret", parent="p"
        )
        storage.commit([PutStep(a_step()), AddSignal(Signal("x", "r", "go")), DeleteRun("r", tombstone=True)])
        assert storage.get_run("r") is None
        assert storage.list_runs() == []
        assert storage.list_runs(RunFilter(after="r")) == []
        assert storage.list_steps("r") == []
        assert storage.list_signals("r") == []
        assert storage.get_step("r", "s") is None
        assert storage.attention(["r"]) == []
        (found,) = storage.commit([OpenRun(a_run(), 60.0)])
        assert isinstance(found, Found)
        (stub,) = found.runs
        assert stub.pruned
        assert (stub.id, stub.workflow, stub.key, stub.status) == (run.id, run.workflow, run.key, run.status)
        assert (stub.args, stub.result, stub.error, stub.args_preview, stub.owner) == (
            b"",
            None,
            None,
            "",
            None,
        )
        refused: list[Operation] = [
            ClaimRun("r", 1, "me", 60.0, force=True),
            UpdateRun("r"),
            PutStep(a_step()),
        ]
        refused += [AddSignal(Signal("x", "r", "go")), DropSteps("r", ()), TakeSignal("x", a_step())]
        assert storage.commit(refused) == [Missing()] * len(refused)
        storage.commit([DeleteRun("r", tombstone=True)])
        assert storage.commit([OpenRun(a_run(), 60.0)]) == [found]
        storage.commit([DeleteRun("r")])
        assert open_run(storage).epoch > run.epoch

    def test_a_numbered_run_leaves_no_tombstone(self, storage: Storage) -> None:
        """Ids that the storage makes up need no stub, so pruning numbered runs leaves nothing."""
        storage.commit([OpenRun(numbered(), 60.0), DeleteRun("n-1", tombstone=True)])
        (opened,) = storage.commit([OpenRun(a_run("n-1"), 60.0)])
        assert isinstance(opened, Opened)

    def test_stubs_hold_their_ids_against_numbers(self, storage: Storage) -> None:
        """A numbered run never gets the id of a pruned one."""
        storage.commit([OpenRun(a_run("n-1"), 60.0), DeleteRun("n-1", tombstone=True)])
        (opened,) = storage.commit([OpenRun(numbered(), 60.0)])
        assert isinstance(opened, Opened)
        assert opened.run.id == "n-2"
