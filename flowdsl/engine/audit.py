"""Who changed or continued a run, and when. The journal holds this as records that answer no call."""

import uuid

from flowdsl.acting import who_acts
from flowdsl.core.facts import Changed
from flowdsl.core.kinds import AUDIT
from flowdsl.core.records import Step
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution

__all__ = ["CLEANUP", "audit", "note_cleanup"]

CLEANUP = "flowdsl.cleanup"
"""Path of the record that says that a body has begun to clean up."""


def audit(engine: Engine, run_id: str, action: str, what: str, step: str = "") -> Step:
    """The record that says who changed what, when."""
    now, who = engine.clock.now(), who_acts()
    return Step(
        run_id,
        f"audit-{uuid.uuid4().hex}",
        f"flowdsl.{action}",
        kind=AUDIT,
        args=what,
        preview=who,
        created_at=now,
        completed_at=now,
        concurrent=True,
        extra=Changed(who, step).to_json(),
    )


class _Cleanup:
    """State of one run: whether the journal already says that it cleans up."""

    said = False


def note_cleanup(run: Execution) -> None:
    """Record that the body of *run* cleans up: once, with the next commit. After a crash it cleans up
    again."""
    part = run.part(_Cleanup)
    if not part.said:
        part.said = True
        run.writer.keep(audit(run.engine, run.id, CLEANUP.rpartition(".")[2], str(run.stop.reason)))
