"""Who changed what in a run by hand, and when: a record of its journal."""

import uuid

from flowdsl.acting import who_acts
from flowdsl.core.facts import Changed
from flowdsl.core.kinds import AUDIT
from flowdsl.core.records import Step
from flowdsl.engine.engine import Engine

__all__ = ["audit"]


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
