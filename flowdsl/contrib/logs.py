"""Run, step and trace in every line of a log, of the standard library or of structlog.

>>> import logging
>>> from flowdsl.contrib.logs import RunFilter
>>> handler = logging.StreamHandler()
>>> handler.addFilter(RunFilter())
>>> handler.setFormatter(logging.Formatter("%(run_id)s %(step)s %(message)s"))
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from flowdsl.verbs import current_run, current_step

__all__ = ["RunFilter", "add_run"]


class RunFilter(logging.Filter):
    """Adds to each record ``run_id`` and ``step``, the path of the step that is executing. Outside a run both
    are ``""``. It also adds ``trace_id`` and ``span_id`` of OpenTelemetry's current span, in hexadecimal
    digits; without a span both are ``""``. It drops no record.

    Add it to a *handler*. A filter of a logger does not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; always ``True``."""
        record.run_id, record.step = _here()
        record.trace_id, record.span_id = _trace()
        return True


def add_run(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: adds ``run_id`` and ``step`` to *event* in a run, and ``trace_id`` with
    ``span_id`` inside a span.

    >>> add_run(None, "info", {"event": "paid"})
    {'event': 'paid'}
    """
    names = ("run_id", "step", "trace_id", "span_id")
    event.update({name: text for name, text in zip(names, (*_here(), *_trace()), strict=True) if text})
    return event


def _here() -> tuple[str, str]:
    run, step = current_run(), current_step()
    return "" if run is None else run.id, "" if step is None else step.path


def _trace() -> tuple[str, str]:
    """The ids of the current trace and span. If OpenTelemetry was not imported, there are none."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return "", ""
    span = api.get_current_span().get_span_context()
    return (f"{span.trace_id:032x}", f"{span.span_id:016x}") if span.is_valid else ("", "")
