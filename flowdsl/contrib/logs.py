"""Run and step in every line of a log, of the standard library or of structlog.

>>> import logging
>>> from flowdsl.contrib.logs import RunFilter
>>> handler = logging.StreamHandler()
>>> handler.addFilter(RunFilter())
>>> handler.setFormatter(logging.Formatter("%(run_id)s %(step)s %(message)s"))
"""

import logging
from collections.abc import MutableMapping
from typing import Any

from flowdsl.verbs import current_run, current_step

__all__ = ["RunFilter", "add_run"]


class RunFilter(logging.Filter):
    """Gives each record ``run_id`` and ``step``, the path of the step that is executing; both are ``""``
    outside. It drops nothing.

    Put it on a *handler*: a filter on a logger does not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the two attributes; always ``True``."""
        record.run_id, record.step = _here()
        return True


def add_run(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: adds ``run_id`` and ``step`` to *event* where a run executes.

    >>> add_run(None, "info", {"event": "paid"})
    {'event': 'paid'}
    """
    run_id, step = _here()
    if run_id:
        event["run_id"] = run_id
    if step:
        event["step"] = step
    return event


def _here() -> tuple[str, str]:
    run, step = current_run(), current_step()
    return "" if run is None else run.id, "" if step is None else step.path
