"""Statuses of runs and steps, and the legal changes between them as tables.

The tables are the rule. The tests compare every change that a storage sees with them, and the pictures in the
documentation are drawn from them.
"""

from enum import StrEnum

__all__ = ["RUN_CHANGES", "STEP_CHANGES", "RunStatus", "StepStatus", "is_final"]


class RunStatus(StrEnum):
    """Status of a run. A ``running`` run without a living owner is shown as *interrupted*."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """Status of a step record."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    UNDONE = "undone"


RUN_CHANGES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED}),
    RunStatus.RUNNING: frozenset(
        {RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
    ),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset({RunStatus.RUNNING}),
    RunStatus.CANCELLED: frozenset(),
}
"""From → to. ``running → running`` is a take-over; ``failed → running`` is a retry."""

STEP_CHANGES: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset({StepStatus.PENDING, StepStatus.COMPLETED, StepStatus.FAILED}),
    StepStatus.COMPLETED: frozenset({StepStatus.UNDONE}),
    StepStatus.FAILED: frozenset({StepStatus.PENDING, StepStatus.COMPLETED, StepStatus.FAILED}),
    StepStatus.UNDONE: frozenset({StepStatus.PENDING, StepStatus.COMPLETED, StepStatus.FAILED}),
}
"""From → to. A failed or undone step that executes again starts over."""


def is_final(status: RunStatus) -> bool:
    """Say whether a run of this status has ended (``failed`` has ended, though it may be retried)."""
    return status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
