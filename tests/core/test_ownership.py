"""Ownership: who may write a run, as rules over rows."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.ownership import (
    RUN_FIELDS,
    arrived,
    claimed,
    fits,
    has_restarted,
    has_updated,
    inserted,
    may_continue,
    may_take,
    outlives_restart,
    remains,
    restarted,
    sent_again,
    stub,
    takes_messages,
    updated,
)
from flowdsl.core.records import Run, fields_of
from flowdsl.core.status import RUN_CHANGES, RunStatus
from flowdsl.testing.storage.samples import a_run, full_run, full_signal

statuses = st.sampled_from(list(RunStatus))
owners = st.none() | st.sampled_from(["me", "you"])
runs = st.builds(
    Run,
    id=st.just("r"),
    workflow=st.just("w"),
    key=st.just("k"),
    number=st.none() | st.integers(1, 3),
    status=statuses,
    owner=owners,
    epoch=st.integers(1, 3),
    lease_until=st.floats(0, 10),
    retryable=st.booleans(),
    generation=st.integers(1, 3),
)
NOTHING = {"if_status": (), "changes": {}, "lease": 60.0}


def test_insertion_decides_id_number_epoch_and_lease_alone():
    """Opening changes only id, number, epoch and lease of the wanted row."""
    run = inserted(full_run(), "q", 7, 3, 99.5)
    changed = {name for name in fields_of(Run) if getattr(run, name) != getattr(full_run(), name)}
    assert changed == {"id", "number", "epoch", "lease_until"}
    assert (run.id, run.number, run.epoch, run.lease_until) == ("q", 7, 3, 99.5)


def test_a_stub_holds_no_value_of_the_users():
    """The stub of a pruned run keeps identity and times, and no arguments, result, error or tags."""
    left = stub(full_run(), b"new")
    assert left.pruned
    assert left.seal == b"new"
    assert (left.id, left.workflow, left.key, left.status) == (
        full_run().id, full_run().workflow, full_run().key, full_run().status,
    )  # fmt: skip
    assert (left.args, left.result, left.error, left.args_preview, left.tags) == (b"", None, None, "", ())


def test_what_remains_of_a_deleted_run():
    """Only a run whose id was given leaves a stub, and a stub stays as it is until it is deleted itself."""
    run = evolve(full_run(), number=None)
    left = remains(run, True, b"new")
    assert left == stub(run, b"new")
    assert remains(left, True, b"newer") is left
    assert remains(left, False, b"") is None
    assert remains(run, False, b"") is None
    assert remains(evolve(run, number=1), True, b"") is None


@given(runs, st.sampled_from(["", "n", "m"]), st.sampled_from(["", "n", "m"]), owners)
def test_what_was_sent_again(run, nonce, last, owner):
    """An opening or a claim was sent before if the run has its nonce and its owner; no nonce tells nothing."""
    assert sent_again(nonce, owner, last, run) == (
        nonce in ("n", "m") and nonce == last and owner == run.owner
    )


@given(runs, st.integers(1, 3), st.booleans(), st.floats(0, 10))
def test_a_claim_raises_the_epoch_or_is_refused(run, epoch, force, now):
    """A claim needs the present epoch, and a run that is free or whose owner is known to be gone."""
    changes = claimed(run, epoch=epoch, owner="she", force=force, now=now, **NOTHING)
    free = force or run.owner is None or run.lease_until <= now
    assert (changes is not None) == (free and run.epoch == epoch)
    if changes is not None:
        after = evolve(run, **changes)
        assert (after.epoch, after.owner, after.status) == (run.epoch + 1, "she", RunStatus.RUNNING)
        assert after.lease_until == now + 60
        assert not fits(after, epoch), "the old owner is shut out"


@given(runs, runs)
def test_of_two_claims_with_one_epoch_the_second_is_refused(run, other):
    """Of two claims with one epoch the second is refused, even if the run is free."""
    first = claimed(run, epoch=run.epoch, owner="you", force=True, now=11.0, **NOTHING)
    after = evolve(run, **first)
    assert claimed(after, epoch=run.epoch, owner="she", force=True, now=11.0, **NOTHING) is None


@given(runs)
def test_a_call_continues_what_can_go_on(run):
    """A call continues only a numbered run that has not ended for good and has no living owner."""
    expected = run.number is not None and RunStatus.RUNNING in RUN_CHANGES[run.status]
    expected &= run.retryable if run.status is RunStatus.FAILED else run.owner != "me"
    assert may_continue(run, ("me",)) == expected


def test_release_and_lease():
    """A release wins over a lease; without either the lease stays."""
    assert updated({}, 5.0, True, 10.0) == {"owner": None, "lease_until": 10.0}
    assert updated({"floor": 1}, 5.0, False, 10.0) == {"floor": 1, "lease_until": 15.0}
    assert updated({"floor": 1}, None, False, 10.0) == {"floor": 1}


@pytest.mark.parametrize(
    ("epoch", "if_status", "changes", "expected"),
    [
        (1, ("pending",), {"status": "running", "owner": "me"}, True),
        (1, ("pending",), {"status": "running", "owner": "you"}, False),
        (2, ("pending",), {"status": "running"}, False),
        (None, ("pending",), {"status": "running"}, False),
        (1, ("pending",), {}, False),
        (1, (), {"status": "running"}, False),
    ],
)
def test_an_update_sent_again(epoch, if_status, changes, expected):
    """An update that is sent again is recognised by its epoch and its values."""
    assert has_updated(evolve(a_run(), epoch=1), epoch, if_status, changes) is expected


@given(runs)
def test_a_generation_begins_once(run):
    """A generation has a new epoch, and beginning it again by the same owner changes nothing."""
    changes = {"generation": run.generation + 1, "args": b"x"}
    assert not has_restarted(run, run.epoch, changes)
    after = evolve(run, **restarted(run, changes))
    assert (after.generation, after.epoch, after.owner) == (run.generation + 1, run.epoch + 1, run.owner)
    assert has_restarted(after, run.epoch, changes)
    assert has_restarted(after, None, changes)
    assert has_restarted(after, after.epoch, changes)
    assert not has_restarted(evolve(after, epoch=after.epoch + 1), run.epoch, changes)  # claimed since
    assert not fits(after, run.epoch)


def test_messages():
    """A failed run accepts messages, and one wait may take its message again and again."""
    assert [str(status) for status in RunStatus if takes_messages(status)] == ["pending", "running", "failed"]
    assert may_take(None, "k")
    assert may_take("k", "k")
    assert not may_take("k", "other")


def test_a_new_message_is_untouched():
    """A message arrives unread and without a reply, whatever its sender says of that."""
    new = arrived(full_signal(), 7)
    assert (new.seq, new.taken_by, new.reply, new.reply_failed) == (7, None, None, False)
    assert (new.id, new.payload, new.key) == (full_signal().id, full_signal().payload, full_signal().key)
    assert outlives_restart(new)
    taken = evolve(new, taken_by="k", asked=False)
    assert not outlives_restart(taken)
    assert outlives_restart(evolve(taken, asked=True))


def test_what_may_be_set():
    """An update cannot change identity or what fences owners."""
    assert set(fields_of(Run)) - RUN_FIELDS == {"id", "epoch", "lease_until", "pruned"}
