"""Versions of workflows: a run keeps the version that it began under."""

import logging

from flowdsl.core.records import Run
from flowdsl.engine.definitions import WorkflowDef

__all__ = ["warn_of_version"]

logger = logging.getLogger("flowdsl")


def warn_of_version(record: Run, defn: WorkflowDef) -> None:
    """Warn that *record* is taken up, but began under another version than the code has now."""
    if record.version != defn.version:
        logger.warning(
            "run %s of %s was begun under version %s, and the code has version %s; "
            "current_run().version tells the body which one it is",
            record.id,
            defn.path,
            record.version or "(none)",
            defn.version or "(none)",
            extra={"run": record.id, "step": None},
        )
