"""Traces and metrics with OpenTelemetry. This module uses only the API, so without an SDK it has no effect.

The rules
    * There is one span for each execution of a run (``run <workflow>``) and for each step that executed
      (``step <path>``). Bodies execute in the context of their span. Failed attempts and waits are events of
      the step's span. A replayed step has no span; the span of the run counts it.
    * When a run executes again (by a call, a resume or a retry), it gets a new span, which is *linked* to the
      span before. So does a fork. The link is stored in the run, as the tag ``traceparent``, so another
      process finds it.
    * Values, messages and arguments are left out, unless ``values=True``. Those that the codec hides are
      always left out.
    * An exception in OpenTelemetry never reaches a run.

The theory
    Hooks are called when an attempt has failed, and then when the wait begins, if there is one. No hook says
    that an attempt was the last. So the span of a failed step stays open until the wait begins or the run
    ends. If the run ends, the span gets the end time of the attempt.
"""

import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from attrs import define

from flowdsl.blocks import block

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise ImportError("traces need OpenTelemetry's API: pip install 'flowdsl[otel]'") from None

from flowdsl.codecs.previews import Previews
from flowdsl.core.queues import DEFAULT
from flowdsl.errors import FlowError, RunCancelled, RunTimeout, Stopped
from flowdsl.hooks import BodyView, Hooks
from flowdsl.runtime import open_engine
from flowdsl.storage import Storage

__all__ = ["Tracing"]

logger = logging.getLogger("flowdsl")

_FIRST_CLAIM = 2
"""The epoch of a run that a worker executes for the first time. (Enqueueing it was epoch 1.)"""

_CARRIER = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()


@define(eq=False)
class _OpenSpan:
    """A span that has not ended. *began*: its start on the monotonic clock. *failed*: when its last attempt
    failed, in nanoseconds since the epoch."""

    span: trace.Span
    context: contexts.Context
    labels: dict[str, str]
    began: float
    attempts: int = 1
    replayed: int = 0
    failed: int | None = None
    took: float = 0.0


class Tracing(Hooks):
    """Traces and measures the runs of a runtime: ``Runtime(hooks=[Tracing()])``.

    Parameters: *tracer_provider* and *meter_provider*: by default OpenTelemetry's global ones. *values*:
    whether arguments and messages of errors are added.

    Spans: ``run <workflow>`` with ``flowdsl.run.id``, ``.workflow``, ``.number``, ``.generation``,
    ``.replayed``; ``step <path>`` with ``flowdsl.step.key``, ``.path``, ``.mode``, ``.attempts``; both with
    ``flowdsl.status``, and, if they failed, ``exception.type`` and status ERROR. Metrics: the histograms
    ``flowdsl.run.duration`` and ``flowdsl.step.duration`` (seconds), and the counters
    ``flowdsl.step.retries`` and ``flowdsl.step.replays``. For queues, the gauge ``flowdsl.queue.depth`` is
    how many runs wait, and the histogram ``flowdsl.queue.latency`` is how long a run waited for a worker
    after it was due (seconds).

    >>> from flowdsl import Runtime, step
    >>> @step
    ... def double(x):
    ...     return 2 * x
    >>> with Runtime("memory://", hooks=[Tracing()]) as rt:
    ...     rt.do(double, 21)
    42
    """

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None, values: bool = False) -> None:
        self._tracer = trace.get_tracer("flowdsl", tracer_provider=tracer_provider)
        meter = metrics.get_meter("flowdsl", meter_provider=meter_provider)
        self._run_duration = meter.create_histogram("flowdsl.run.duration", "s", "how long runs executed")
        self._step_duration = meter.create_histogram("flowdsl.step.duration", "s", "how long steps executed")
        self._retries = meter.create_counter("flowdsl.step.retries", "1", "attempts after a failed one")
        self._replays = meter.create_counter("flowdsl.step.replays", "1", "steps answered by their record")
        self._latency = meter.create_histogram("flowdsl.queue.latency", "s", "how long due runs waited")
        self._storages: weakref.WeakSet[Storage] = weakref.WeakSet()
        meter.create_observable_gauge("flowdsl.queue.depth", [self._depth], "1", "runs that wait in a queue")
        self._values = values
        self._runs: dict[str, _OpenSpan] = {}
        self._steps: dict[tuple[str, str], _OpenSpan] = {}
        self._lock = threading.Lock()

    # Queues ------------------------------------------------------------------------------------------------

    def wrap_storage(self, storage: Any) -> Any:
        """Note which storage holds the queues."""
        self._storages.add(storage)
        return storage

    def _depth(self, _: Any) -> Iterator[metrics.Observation]:
        """How many runs wait. It is read when the meter is read. If the storage does not answer, there is no
        value."""
        for storage in list(self._storages):
            try:
                counts = storage.count_pending()
                names = {queue.name for queue in storage.list_queues()} | {DEFAULT} | counts.keys()
            except FlowError:
                continue
            for name in names:
                yield metrics.Observation(counts.get(name, 0), {"queue": name})

    def _claimed(self, row: Any) -> None:
        """Measure how long a run waited, when its first execution begins."""
        if row.claimed_at is not None and row.epoch == _FIRST_CLAIM:
            due = max(row.created_at, row.not_before or 0.0)
            queue = row.queue or DEFAULT
            self._latency.record(max(0.0, row.claimed_at - due), {"queue": queue, "workflow": row.workflow})

    # Runs --------------------------------------------------------------------------------------------------

    def on_run_start(self, run: Any) -> None:
        """Open the span of this execution."""
        self._end_run(run.id, "interrupted")  # its end was not reported: its body was torn off
        row = run.record
        self._claimed(row)
        attributes: dict[str, Any] = {
            "flowdsl.run.id": run.id,
            "flowdsl.run.workflow": row.workflow,
            "flowdsl.run.generation": getattr(row, "generation", 1),
        }
        if row.number is not None:
            attributes["flowdsl.run.number"] = row.number
        if self._values and (shown := _previews().text(row.args_preview)):
            attributes["flowdsl.run.args"] = shown
        around = contexts.get_current()
        if row.parent in self._runs and not trace.get_current_span(around).get_span_context().is_valid:
            around = self._runs[row.parent].context
        span = self._tracer.start_span(
            f"run {row.workflow}", around, attributes=attributes, links=_links(row.tags)
        )
        opened = _OpenSpan(span, trace.set_span_in_context(span, around), {"workflow": row.workflow}, _now())
        with self._lock:
            self._runs[run.id] = opened
        if span.is_recording() and span.get_span_context().is_valid:
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier, opened.context)
            run.tag(**{_CARRIER: carrier[_CARRIER]})

    def on_run_complete(self, run: Any, result: Any) -> None:
        """End the span."""
        self._end_run(run.id, "completed")

    def on_run_fail(self, run: Any, error: BaseException) -> None:
        """End the span, with the type of the error."""
        self._end_run(run.id, "failed", error)

    def on_run_cancel(self, run: Any) -> None:
        """End the span."""
        self._end_run(run.id, "cancelled")

    def _end_run(self, run_id: str, status: str, error: BaseException | None = None) -> None:
        with self._lock:
            opened = self._runs.pop(run_id, None)
            steps = [key for key in self._steps if key[0] == run_id]
        if opened is None:
            return
        for key in steps:
            self._end_step(key, "failed" if self._steps[key].failed is not None else "interrupted")
        opened.span.set_attribute("flowdsl.run.replayed", opened.replayed)
        self._close(opened, status, error)
        self._run_duration.record(_now() - opened.began, {**opened.labels, "status": status})

    # Steps -------------------------------------------------------------------------------------------------

    def on_step_start(self, step: Any) -> None:
        """Open the span of the step, unless it is open from an earlier attempt."""
        key = (step.run_id, step.key)
        opened = self._steps.get(key)
        if opened is not None and step.attempt > 1:
            opened.attempts, opened.failed = step.attempt, None
            return
        self._end_step(key, "failed")  # the enclosing step is retried, and so is this one
        around = contexts.get_current()
        if step.run_id in self._runs and not trace.get_current_span(around).get_span_context().is_valid:
            around = self._runs[step.run_id].context
        attributes = {
            "flowdsl.step.key": step.key,
            "flowdsl.step.path": step.path,
            "flowdsl.step.mode": step.mode,
        }
        span = self._tracer.start_span(f"step {step.path}", around, attributes=attributes)
        opened = _OpenSpan(
            span, trace.set_span_in_context(span, around), {"path": step.path}, _now(), step.attempt
        )
        with self._lock:
            self._steps[key] = opened

    def on_step_complete(self, step: Any, result: Any) -> None:
        """End the span."""
        self._end_step((step.run_id, step.key), "completed")

    def on_step_replay(self, step: Any, result: Any) -> None:
        """Count it."""
        opened = self._runs.get(step.run_id)
        if opened is not None:
            opened.replayed += 1
        self._replays.add(1, {"path": step.path})

    def on_step_error(self, step: Any, error: BaseException, attempt: int) -> None:
        """Note the failed attempt. The span ends when it is known that no other attempt follows."""
        opened = self._steps.get((step.run_id, step.key))
        if opened is None:
            return
        facts: dict[str, Any] = {"flowdsl.step.attempt": attempt, "exception.type": _name(error)}
        if self._values and (said := _previews().error_line(error)):
            facts["exception.message"] = said
        opened.span.add_event("attempt failed", facts)
        opened.span.set_attribute("exception.type", _name(error))
        opened.failed, opened.took = time.time_ns(), _now() - opened.began
        if not step.run_id or step.mode != "do":  # these are not retried
            self._end_step((step.run_id, step.key), "failed")

    def on_step_retry(self, step: Any, error: BaseException, attempt: int, delay: float) -> None:
        """Note the wait."""
        opened = self._steps.get((step.run_id, step.key))
        if opened is not None:
            opened.failed = None
            opened.span.add_event("waiting", {"flowdsl.step.attempt": attempt, "flowdsl.step.delay": delay})
        self._retries.add(1, {"path": step.path})

    def _end_step(self, key: tuple[str, str], status: str) -> None:
        with self._lock:
            opened = self._steps.pop(key, None)
        if opened is None:
            return
        opened.span.set_attribute("flowdsl.step.attempts", opened.attempts)
        took = opened.took if opened.failed is not None else _now() - opened.began
        self._close(opened, status)
        self._step_duration.record(took, {**opened.labels, "status": status})

    def _close(self, opened: _OpenSpan, status: str, error: BaseException | None = None) -> None:
        span = opened.span
        span.set_attribute("flowdsl.status", status)
        if error is not None:
            span.set_attribute("exception.type", _name(error))
            if self._values and (said := _previews().error_line(error)):
                span.set_attribute("exception.message", said)
        if status == "failed":
            span.set_status(trace.StatusCode.ERROR)
        span.end(opened.failed)

    # Bodies ------------------------------------------------------------------------------------------------

    def execute_body(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        """Execute the body in the context of its span."""
        with self._inside(body):
            return proceed()

    async def execute_body_async(self, body: BodyView, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """The same for async bodies."""
        with self._inside(body):
            return await proceed()

    def carry(self) -> Callable[[], AbstractContextManager[None]] | None:
        """Lets a body in another process execute in the context of the current span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return partial(_attached, carrier) if carrier else None

    @block
    def _inside(self, body: BodyView) -> Iterator[None]:
        key = (body.run_id, body.step.key) if body.step is not None else None
        opened = self._steps.get(key) if key is not None else None
        if opened is None:
            opened = self._runs.get(body.run_id)
        if opened is None:
            yield
            return
        if self._values and body.kind == "step" and (shown := _previews().text(body.shown)):
            opened.span.set_attribute("flowdsl.step.args", shown)
        token = contexts.attach(opened.context)
        try:
            yield
        except BaseException as torn:  # an interrupt, or the signal that the body must stop
            if not isinstance(torn, Exception):
                _quietly(self._torn, body, key, torn)
            raise
        finally:
            contexts.detach(token)

    def _torn(self, body: BodyView, key: tuple[str, str] | None, torn: BaseException) -> None:
        if key is not None:
            self._end_step(key, "interrupted")
        elif body.kind == "workflow" and not _is_told(torn):
            self._end_run(body.run_id, "interrupted")


@block
def _attached(carrier: dict[str, str]) -> Iterator[None]:
    token = contexts.attach(_PROPAGATOR.extract(carrier))
    try:
        yield
    finally:
        contexts.detach(token)


def _is_told(torn: BaseException) -> bool:
    """Whether a hook is called for the end that *torn* causes: if a run is cancelled or timed out."""
    return isinstance(torn, Stopped) and isinstance(torn.error, RunCancelled | RunTimeout)


def _quietly(call: Callable[..., Any], *args: Any) -> None:
    try:
        call(*args)
    except Exception:  # tracing must not change what it traces
        logger.exception("tracing raised; the run is not affected")


def _links(tags: Mapping[str, str] | Sequence[str]) -> list[trace.Link]:
    """A link to the execution before this one, if there was a traced one."""
    if not isinstance(tags, Mapping) or _CARRIER not in tags:
        return []
    before = trace.get_current_span(_PROPAGATOR.extract(dict(tags))).get_span_context()
    return [trace.Link(before)] if before.is_valid else []


def _previews() -> Previews:
    """Makes the texts of values here. If the codec hides values, they are empty."""
    engine = open_engine()
    return Previews(shown=False) if engine is None else engine.payloads.previews


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _now() -> float:
    return time.monotonic()
