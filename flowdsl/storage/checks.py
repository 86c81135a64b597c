"""What every backend asks of its input before it touches anything, so that all refuse the same things."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowdsl.storage.base import (
    RUN_FIELDS,
    AddSignal,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropSteps,
    OpenRun,
    Operation,
    PutMemo,
    PutStep,
    TakeSignal,
    UpdateRun,
)

__all__ = ["require_id", "require_limit", "validate"]


def require_id(value: str, what: str = "run id") -> None:
    """Raise ``ValueError`` unless *value* is a non-empty string."""
    if not value or not isinstance(value, str):
        raise ValueError(f"{what} must be a non-empty string, not {value!r}")


def require_limit(limit: int | None) -> None:
    """Raise ``ValueError`` for a negative limit (0 is an empty page, ``None`` no limit)."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative, not {limit!r}")


def validate(operations: Sequence[Operation]) -> None:
    """Raise ``ValueError`` for an empty id, an unknown operation or an unknown field."""
    for operation in operations:
        if type(operation) is PutStep and operation.step.run_id and operation.step.key:
            continue  # nearly all operations are such
        check = _CHECKS.get(type(operation))
        if check is None:
            raise ValueError(f"not an operation: {operation!r}")
        check(operation)


def _check_changes(changes: Mapping[str, Any]) -> None:
    if not RUN_FIELDS.issuperset(changes):
        raise ValueError(
            f"not a field of Run that can be set: {', '.join(sorted(set(changes) - RUN_FIELDS))}"
        )


def _check_open(op: OpenRun) -> None:
    require_id(op.run.id)


def _check_claim(op: ClaimRun) -> None:
    require_id(op.run_id)
    require_id(op.owner, "owner")
    _check_changes(op.changes)


def _check_update(op: UpdateRun) -> None:
    require_id(op.run_id)
    _check_changes(op.changes)


def _check_put_step(op: PutStep) -> None:
    require_id(op.step.run_id)
    require_id(op.step.key, "step key")


def _check_drop_steps(op: DropSteps) -> None:
    require_id(op.run_id)
    for key in op.keys:
        require_id(key, "step key")


def _check_add_signal(op: AddSignal) -> None:
    require_id(op.signal.run_id)
    require_id(op.signal.id, "signal id")


def _check_take_signal(op: TakeSignal) -> None:
    require_id(op.signal_id, "signal id")
    require_id(op.step.run_id)
    require_id(op.step.key, "step key")


def _check_delete_run(op: DeleteRun) -> None:
    require_id(op.run_id)


def _check_put_memo(op: PutMemo) -> None:
    require_id(op.memo.key, "memo key")


def _check_drop_memo(op: DropMemo) -> None:
    require_id(op.key, "memo key")


_CHECKS: dict[type, Callable[[Any], None]] = {
    OpenRun: _check_open,
    ClaimRun: _check_claim,
    UpdateRun: _check_update,
    PutStep: _check_put_step,
    DropSteps: _check_drop_steps,
    AddSignal: _check_add_signal,
    TakeSignal: _check_take_signal,
    DeleteRun: _check_delete_run,
    PutMemo: _check_put_memo,
    DropMemo: _check_drop_memo,
}
