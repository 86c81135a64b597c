"""The part of the storage contract that is about runs: claiming, updating and deleting them."""

from typing import Any

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
from flowdsl.testing.storage.samples import a_run, a_step, full_run, numbered, open_run

__all__ = ["RunContract"]

RUNNING, COMPLETED, FAILED = RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED
CANCELLED, PENDING = RunStatus.CANCELLED, RunStatus.PENDING
EXPIRED = -1.0  # a lease that has ended before it begins, so that no test has to wait


class RunContract:
    """What holds for runs in every storage."""

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
        """An update that names the status it expects changes no other: cancelled does not become failed."""
        open_run(storage, status=CANCELLED)
        run = storage.get_run("r")
        assert run is not None
        late = UpdateRun("r", {"status": FAILED, "error": b"late"}, if_status=(RUNNING, PENDING))
        assert storage.commit([late]) == [Fenced(run)]
        assert storage.commit([late, UpdateRun("r")]) == [Fenced(run), Done()]
        assert storage.get_run("r") == run
        assert storage.commit([evolve(late, if_status=(RUNNING, CANCELLED))]) == [Done()]

    def test_update_sent_again(self, storage: Storage) -> None:
        """The owner's change of status, sent again, is done already. Without an epoch it is refused."""
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
        """A pruned run is a stub. Only an opening of its id finds it, and no operation changes it."""
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
