"""Records for tests. Some have little in them, others something unusual in every field."""

from typing import Any

from flowdsl.core.records import Item, Memo, Run, Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage.base import Opened, OpenRun, Storage

__all__ = [
    "HOSTILE",
    "a_run",
    "a_step",
    "full_item",
    "full_memo",
    "full_run",
    "full_signal",
    "full_step",
    "numbered",
    "open_run",
]

HOSTILE = (
    "'); drop table runs; --",
    '"quoted" \\back\\slash\\',
    "%_*?[a-z]",
    "new\nline\ttab",
    "naïve Ünïcode 漢字 🦉",
    " leading and trailing ",
    "1",
    "NULL",
    "$.path[0]",
    ":name ?1 @x",
)
"""Texts that a storage must take as data wherever a text may stand."""


def a_run(run_id: str = "r", **fields: Any) -> Run:
    """A running run owned by ``"me"``.

    >>> a_run("order-17").owner
    'me'
    """
    usual: dict[str, Any] = {
        "workflow": "shop.checkout",
        "key": "k",
        "status": RunStatus.RUNNING,
        "owner": "me",
    }
    return Run(id=run_id, **(usual | fields))


def a_step(run_id: str = "r", key: str = "s", **fields: Any) -> Step:
    """A completed step."""
    usual: dict[str, Any] = {"path": "shop.charge"}
    return Step(run_id=run_id, key=key, **(usual | fields))


def numbered(prefix: str = "n", **fields: Any) -> Run:
    """A run to be opened under the next number of its key."""
    return a_run(prefix, number=0, **fields)


def open_run(storage: Storage, run_id: str = "r", lease: float = 60.0, **fields: Any) -> Run:
    """Insert a run that must not be there yet. Returns the run as the storage returns it."""
    (outcome,) = storage.commit([OpenRun(a_run(run_id, **fields), lease)])
    assert isinstance(outcome, Opened)
    return outcome.run


def full_run(run_id: str = "r") -> Run:
    """A run with something unusual in every field."""
    return Run(
        id=run_id,
        workflow=HOSTILE[0],
        key=HOSTILE[1],
        status=RunStatus.FAILED,
        args=bytes(range(256)),
        args_preview=HOSTILE[2],
        tags={HOSTILE[3]: HOSTILE[4], "": ""},
        created_at=1_700_000_000.123456,
        finished_at=-0.5,
        deadline=1e15,
        owner=HOSTILE[5],
        result=b"",
        result_preview=HOSTILE[6],
        error=b"\x00",
        error_preview=HOSTILE[7],
        open_failures=(HOSTILE[0], "b", "a"),
        retryable=False,
        undoing="cancelled",
        cancel_requested=0.0,
        parent=HOSTILE[8],
        parent_key=HOSTILE[9],
        forked_from=HOSTILE[1],
        floor=2**53,
        recoveries=3,
        version=HOSTILE[2],
        generation=7,
        started_by=HOSTILE[4],
        queue=HOSTILE[0],
        priority=-(2**40),
        partition=HOSTILE[1],
        dedup=HOSTILE[2],
        not_before=1e9,
        seal=b"\x00\xff",
        cancel_seal=b"\xff",
    )


def full_step(run_id: str = "r", key: str = "s") -> Step:
    """A step with something unusual in every field."""
    return Step(
        run_id=run_id,
        key=key,
        path=HOSTILE[0],
        kind="wait",
        scope=HOSTILE[1],
        occurrence=2**40,
        ordinal=7,
        status=StepStatus.UNDONE,
        attempts=3,
        args=HOSTILE[2],
        defaults=HOSTILE[3],
        payload=bytes(range(256)) * 40,
        preview=HOSTILE[4],
        created_at=1_700_000_000.123456,
        completed_at=-1.25,
        concurrent=True,
        draws=2**33,
        version=HOSTILE[6],
        extra='{"wake": 17.5}',
        seal=b"\x00\xff",
    )


def full_signal(run_id: str = "r", signal_id: str = "x") -> Signal:
    """A signal with something unusual in every field."""
    return Signal(
        id=signal_id,
        run_id=run_id,
        name=HOSTILE[0],
        payload=b"\x00\xff",
        preview=HOSTILE[4],
        sender=HOSTILE[5],
        key=HOSTILE[1],
        created_at=1.5,
        asked=True,
        seal=b"\xff",
    )


def full_item(run_id: str = "r") -> Item:
    """A published item with something unusual in every field."""
    return Item(
        run_id=run_id,
        channel=HOSTILE[0],
        n=2**40,
        payload=b"\x00\xff",
        preview=HOSTILE[4],
        created_at=-0.5,
        seal=b"\xff",
    )


def full_memo(key: str = "m") -> Memo:
    """A memo with something unusual in every field."""
    return Memo(
        key=key,
        path=HOSTILE[0],
        payload=b"\x00\xff",
        preview=HOSTILE[4],
        created_at=0.25,
        expires_at=1e12,
        defaults=HOSTILE[1],
        seal=b"\xff",
    )
