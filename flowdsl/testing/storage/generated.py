"""Random operations and filters, for storages that are compared. Needs hypothesis."""

from attrs import evolve, frozen
from hypothesis import strategies as st

from flowdsl.core.records import Item, Memo, QueueRow, Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropQueue,
    DropSteps,
    OpenRun,
    Publish,
    PutMemo,
    PutQueue,
    PutStep,
    Reply,
    Restart,
    TakeSignal,
    UpdateRun,
)
from flowdsl.testing.storage.samples import HOSTILE

__all__ = ["FILTERS", "IDS", "NAMES", "OPERATIONS", "RUNS", "Epoch"]

LEASES = st.sampled_from([-1000.0, 1000.0])
IDS = st.sampled_from(["r", "n-1", "n-2", HOSTILE[0]])
KEYS = st.sampled_from(["a", "b", "c"])
OWNERS = st.sampled_from(["me", "you", "she"])
STATUSES = st.sampled_from(list(RunStatus))
NAMES = st.sampled_from(["red", "blue", HOSTILE[1]])
TAGS = st.one_of(
    st.just(()),
    st.lists(NAMES, max_size=2, unique=True).map(tuple),
    st.dictionaries(NAMES, st.sampled_from("12"), max_size=2),
)
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
TIMES = st.sampled_from([0.0, 1.5, 2.0, 1e9])
PAYLOADS = st.binary(max_size=5)


@frozen(slots=True)
class Epoch:
    """An epoch, relative to the one that the run has before the commit. ``None``: no epoch is given."""

    ahead: int | None


EPOCHS = st.sampled_from([0, 0, 0, None, -1, 1]).map(Epoch)

RUNS = st.builds(
    Run,
    id=IDS,
    workflow=st.sampled_from(["v", "w"]),
    key=st.sampled_from(["k", "l"]),
    status=STATUSES,
    args=PAYLOADS,
    args_preview=TEXTS,
    tags=TAGS,
    created_at=TIMES,
    owner=st.none() | OWNERS,
    retryable=st.booleans(),
    parent=st.none() | IDS,
    open_failures=st.lists(KEYS, max_size=2).map(tuple),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "status": STATUSES,
        "owner": st.none() | OWNERS,
        "retryable": st.booleans(),
        "tags": TAGS,
        "result": st.none() | PAYLOADS,
        "key": st.sampled_from(["k", "l"]),
        "created_at": TIMES,
        "finished_at": st.none() | TIMES,
        "parent": st.none() | IDS,
        "workflow": TEXTS,
    },
)
STEPS = st.builds(
    Step,
    run_id=IDS,
    key=KEYS,
    path=TEXTS,
    kind=st.sampled_from(["step", "store"]),
    status=st.sampled_from(list(StepStatus)),
    attempts=st.integers(1, 3),
    payload=st.none() | PAYLOADS,
    created_at=TIMES,
    concurrent=st.booleans(),
    draws=st.integers(0, 2**40),
    version=TEXTS,
    # By their types alone, hypothesis would draw NaN for a moment, and integers of more than 64 bits.
    seq=st.just(0),
    occurrence=st.integers(0, 9),
    ordinal=st.integers(0, 9),
    completed_at=st.none() | TIMES,
)
SIGNALS = st.builds(
    Signal,
    id=st.sampled_from(["1", "2", "3"]),
    run_id=IDS,
    name=NAMES,
    payload=PAYLOADS,
    preview=TEXTS,
    key=st.none() | st.sampled_from(["", "k"]),
    asked=st.booleans(),
)
ITEMS = st.builds(Item, run_id=IDS, channel=NAMES, n=st.integers(1, 3), payload=PAYLOADS)
QUEUES = st.builds(QueueRow, name=NAMES, spec=TEXTS, paused=st.booleans())
MEMOS = st.builds(Memo, key=KEYS, path=TEXTS, payload=PAYLOADS, expires_at=st.none() | TIMES)

OPERATIONS = st.one_of(
    st.builds(
        OpenRun,
        RUNS | RUNS.map(lambda run: evolve(run, id="n", number=0)),
        LEASES,
        st.booleans(),
        st.lists(OWNERS, max_size=2).map(tuple),
        st.sampled_from(["", "a new one"]),
    ),
    st.builds(
        ClaimRun,
        IDS,
        EPOCHS,
        OWNERS,
        LEASES,
        st.booleans(),
        CHANGES,
        st.sampled_from(["", "a new one"]),
        st.just(()) | st.lists(STATUSES, max_size=2).map(tuple),
    ),
    st.builds(
        UpdateRun,
        IDS,
        CHANGES,
        EPOCHS,
        st.lists(STATUSES, max_size=2).map(tuple),
        st.none() | LEASES,
        st.booleans(),
    ),
    st.builds(AddTags, IDS, st.dictionaries(NAMES, st.sampled_from("12"), max_size=2)),
    st.builds(PutStep, STEPS, EPOCHS, st.booleans()),
    st.builds(PutStep, STEPS, EPOCHS, st.just(False)),
    st.builds(DropSteps, IDS, st.lists(KEYS, max_size=3).map(tuple), EPOCHS),
    st.builds(AddSignal, SIGNALS),
    st.builds(TakeSignal, st.sampled_from(["1", "2", "3"]), STEPS, EPOCHS),
    st.builds(DeleteRun, IDS, st.booleans()),
    st.builds(Reply, IDS, st.sampled_from(["1", "2", "3"]), PAYLOADS, TEXTS, st.booleans(), EPOCHS),
    st.builds(Publish, ITEMS, EPOCHS),
    st.builds(Restart, IDS, EPOCHS, CHANGES | st.just({"generation": 2})),
    st.builds(PutQueue, QUEUES, st.booleans()),
    st.builds(DropQueue, NAMES),
    st.builds(PutMemo, MEMOS),
    st.builds(DropMemo, KEYS),
)

FILTERS = st.builds(
    RunFilter,
    status=st.lists(STATUSES, max_size=2).map(tuple),
    workflow=st.none() | st.sampled_from(["v", "w"]),
    key=st.none() | st.sampled_from(["k", "l"]),
    parent=st.none() | IDS,
    tags=TAGS,
    created_after=st.none() | TIMES,
    created_before=st.none() | TIMES,
    limit=st.none() | st.integers(0, 3),
    after=st.none() | IDS,
    newest_first=st.booleans(),
    text=st.sampled_from(["", "", "R", "-1"]),
    owner=st.just(()) | st.lists(OWNERS, max_size=2).map(tuple),
)
