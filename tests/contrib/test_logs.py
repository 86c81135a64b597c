"""Run, step and trace in every line of a log."""

import io
import logging

import pytest

from flowdsl import Runtime, step, workflow
from flowdsl.contrib.logs import RunFilter, add_run


@pytest.fixture
def lines():
    """What is logged, by a handler with the filter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RunFilter())
    handler.setFormatter(logging.Formatter("%(run_id)s|%(step)s|%(message)s"))
    mine = logging.getLogger("shop")
    mine.addHandler(handler)
    mine.propagate = False
    yield lambda: stream.getvalue().splitlines()
    mine.removeHandler(handler)
    mine.propagate = True


def test_lines_say_where_they_come_from(runtime: Runtime, lines):
    """A log line has the run and step of the body that wrote it, and neither outside a run."""
    log = logging.getLogger("shop")

    @step
    def charge():
        log.warning("in the step")

    @workflow(id="order-7")
    def checkout():
        log.warning("in the run")
        charge()

    checkout()
    log.warning("outside")
    assert lines() == ["order-7||in the run", f"order-7|{charge.path}|in the step", "||outside"]


def test_structlog_gets_the_same(runtime: Runtime):
    """The structlog processor adds run and step inside a run, and nothing outside."""
    structlog = pytest.importorskip("structlog")
    kept = structlog.testing.LogCapture()
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[add_run, kept])

    @step
    def charge():
        log.info("paid")

    @workflow(id="order-7")
    def checkout():
        charge()

    checkout()
    log.info("outside")
    inside, outside = kept.entries
    assert (inside["run_id"], inside["step"]) == ("order-7", charge.path)
    assert "run_id" not in outside


def test_lines_say_to_which_trace_they_belong():
    """A log line has the ids of the span in which its body executes, and none without a span."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.trace import get_current_span

    from flowdsl.contrib.otel import Tracing

    seen = []

    def look():
        record = logging.makeLogRecord({})
        RunFilter().filter(record)
        span = get_current_span().get_span_context()
        here = (format(span.trace_id, "032x"), format(span.span_id, "016x")) if span.is_valid else ("", "")
        event = add_run(None, "info", {})
        assert (record.trace_id, record.span_id) == here
        assert (event.get("trace_id", ""), event.get("span_id", "")) == here
        seen.append(here)

    @step
    def charge():
        look()

    @workflow(id="order-7")
    def checkout():
        look()
        charge()

    with Runtime("memory://", hooks=[Tracing(sdk.TracerProvider())]):
        checkout()
    look()
    (trace, outer), (same, inner), outside = seen
    assert trace == same
    assert outer != inner
    assert outside == ("", "")
