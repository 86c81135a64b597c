"""The part of the storage contract that is about opening runs, by an id or under a number."""

from typing import Any

import pytest
from attrs import evolve

from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus
from flowdsl.storage.base import (
    DeleteRun,
    Found,
    Missing,
    Opened,
    OpenRun,
    PutStep,
    Storage,
    UpdateRun,
)
from flowdsl.testing.storage.differences import same
from flowdsl.testing.storage.samples import a_run, a_step, full_run, numbered, open_run

__all__ = ["OpeningContract"]

RUNNING, COMPLETED, FAILED = RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED
CANCELLED, PENDING = RunStatus.CANCELLED, RunStatus.PENDING


class OpeningContract:
    """What holds for openings in every storage."""

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
        """A call finds live runs, except those of owners to skip, and failed ones that can be retried."""
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
