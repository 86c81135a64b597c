"""Traces and metrics."""

import asyncio
import logging
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import ONCE

from flowdsl import Retry, RunStatus, Runtime, aio, step, workflow
from flowdsl.codecs import Encrypted, PickleCodec
from flowdsl.contrib.otel import Tracing


@workflow
def hold():
    return "held"


class Kit:
    """A tracer and a meter that keep what they are told."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.tracing = Tracing(self.tracers, MeterProvider([self.reader]), **options)

    def spans(self):
        """The spans that have ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name):
        """The one span of this name."""
        (found,) = [span for span in self.spans() if span.name.endswith(name)]
        return found

    def points(self, name):
        """The points of a metric: value or count by attributes."""
        data = self.reader.get_metrics_data()
        metrics = [
            m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name
        ]
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "value", None)
            or getattr(point, "count", 0)
            for metric in metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def kit():
    """A kit without values."""
    return Kit()


def parent_of(span):
    """The span id of its parent."""
    return span.parent.span_id if span.parent else None


def id_of(span):
    """Its own."""
    return span.context.span_id


@step
def inner(x):
    """Called in a step."""
    return x


@step
def outer(x):
    """Calls a step, here and in a thread."""
    return inner(x) + inner.submit(x + 1).result()


@workflow
def child(x):
    """A run in a run."""
    return inner(x)


def test_spans_nest_as_calls_do(storage, clock, kit):
    """The parent of a step's span is its step or run, that of a child its caller, that of a root the current
    span."""

    @workflow(id="w-{x}")
    def w(x):
        outer(x)
        return child(5)

    with Runtime(storage, clock=clock, hooks=kit.tracing):
        with kit.tracers.get_tracer("mine").start_as_current_span("request") as request:
            w(1)
    run, of_child = kit.named(".w"), kit.named(".child")
    assert parent_of(run) == request.get_span_context().span_id
    assert parent_of(kit.named(".outer")) == id_of(run)
    assert parent_of(of_child) == id_of(run)
    inners = [span for span in kit.spans() if span.name.endswith(".inner")]
    assert [parent_of(span) for span in inners] == [id_of(kit.named(".outer"))] * 2 + [id_of(of_child)]
    assert run.name == f"run {w.path}"
    assert run.attributes["flowdsl.run.id"] == "w-1"
    assert run.attributes["flowdsl.run.workflow"] == w.path
    assert run.attributes["flowdsl.run.generation"] == 1
    assert run.attributes["flowdsl.status"] == "completed"
    assert of_child.attributes["flowdsl.run.replayed"] == 0
    of_step = kit.named(".outer").attributes
    assert of_step["flowdsl.step.path"] == outer.path
    assert (of_step["flowdsl.step.mode"], of_step["flowdsl.step.attempts"]) == ("do", 1)
    assert len(of_step["flowdsl.step.key"]) == 40


def test_bodies_execute_inside_their_span(storage, clock, kit):
    """Sync and async bodies, bodies in threads of ``submit`` and ``map``, and bodies with a timeout execute
    in their span."""
    seen = {}

    def look(name):
        seen.setdefault(name, []).append(trace.get_current_span().get_span_context().span_id)

    @step
    def plain(x):
        look("plain")

    @step(timeout=60)
    def limited(x):
        look("limited")

    @step
    async def awaited(x):
        await asyncio.sleep(0)
        look("awaited")

    @workflow
    def w():
        look("w")
        plain(0)
        limited(0)
        with ThreadPoolExecutor(2) as pool:
            plain.options(executor=pool).map([1, 2])

    @workflow
    async def a():
        look("a")
        await aio.gather(awaited(1), awaited(2))
        await plain.submit(3)

    with Runtime(storage, clock=clock, hooks=kit.tracing):
        w()
        asyncio.run(a())
    for name, ids in seen.items():
        assert sorted(ids) == sorted(id_of(span) for span in kit.spans() if span.name.endswith(f".{name}"))


@step
def span_there(x):
    """The span that is current in a worker process."""
    return trace.get_current_span().get_span_context().span_id


@workflow(ignore="executor")
def elsewhere(executor):
    """Executes steps in other processes."""
    return [future.result() for future in (span_there.options(executor=executor).submit(n) for n in (1, 2))]


def test_bodies_in_other_processes_execute_inside_their_span(tmp_path, kit):
    """Bodies in other processes execute in their span."""
    with ProcessPoolExecutor(1) as pool, Runtime(f"sqlite:///{tmp_path}/flow.db", hooks=kit.tracing):
        found = elsewhere.options(fresh=True)(pool)
    assert sorted(found) == sorted(id_of(span) for span in kit.spans() if span.name.endswith("span_there"))


def test_failed_attempts_are_events_of_one_span(storage, clock, kit):
    """A failed attempt is an event with number, wait and type, and the last one makes the span an error."""

    @step(retry=Retry(attempts=3, initial=2, jitter=0))
    def broken(x):
        raise OSError("secret")

    @workflow
    def w():
        try:
            broken(1)
        except OSError:
            return "handled"

    with Runtime(storage, clock=clock, hooks=kit.tracing):
        w()
    span, run = kit.named(".broken"), kit.named(".w")
    assert [event.name for event in span.events] == ["attempt failed", "waiting"] * 2 + ["attempt failed"]
    assert [e.attributes["flowdsl.step.attempt"] for e in span.events] == [1, 1, 2, 2, 3]
    assert span.events[0].attributes["exception.type"] == "OSError"
    assert span.attributes["flowdsl.step.attempts"] == 3
    assert (span.attributes["flowdsl.status"], span.status.status_code) == ("failed", trace.StatusCode.ERROR)
    assert span.attributes["exception.type"] == "OSError"
    assert span.end_time <= run.end_time
    assert (run.attributes["flowdsl.status"], run.status.status_code) == ("completed", trace.StatusCode.UNSET)
    assert "secret" not in "".join(one.to_json() for one in kit.spans())


def test_a_continued_run_is_a_new_span_linked_to_the_one_before(tmp_path, kit):
    """A run that continues, in another process too, has a new span with a link, and counts replayed steps."""
    works = []

    @step(retry=ONCE)
    def flaky():
        if not works:
            raise OSError

    @workflow(id="one")
    def w():
        inner(1)
        inner(2)
        flaky()

    url = f"sqlite:///{tmp_path}/flow.db"
    with Runtime(url, hooks=kit.tracing), pytest.raises(OSError):
        w()
    later = Kit()  # as in another process
    works.append(1)
    with Runtime(url, hooks=later.tracing) as runtime:
        w()
        fork = runtime.fork("one", before=flaky)
        fork.result(60)
    first, (again, forked) = kit.named(".w"), [s for s in later.spans() if s.name.endswith(".w")]
    assert first.links == ()
    assert [link.context.span_id for link in again.links] == [id_of(first)]
    assert [link.context.span_id for link in forked.links] == [id_of(again)]
    assert first.attributes["flowdsl.status"] == "failed"
    assert again.attributes["flowdsl.run.replayed"] == 2
    assert len([s for s in later.spans() if s.name.startswith("step")]) == 2


def test_every_end_of_a_run_ends_its_spans(storage, clock, kit):
    """Cancelled, interrupted and timed-out runs end their spans and those of their executing steps."""

    @step
    def stops(how):
        raise how

    @workflow
    def w(n):
        stops([KeyboardInterrupt(), SystemExit(1)][n])

    @workflow(id="c")
    def cancelled():
        inner(1)
        runtime.cancel("c")
        inner(2)

    with Runtime(storage, clock=clock, hooks=kit.tracing) as runtime:
        for n, kind in enumerate((KeyboardInterrupt, SystemExit)):
            with pytest.raises(kind):
                w(n)
        with pytest.raises(Exception, match="cancelled"):
            cancelled()
        assert runtime.run("c").status is RunStatus.CANCELLED
    assert [s.attributes["flowdsl.status"] for s in kit.spans() if s.name.endswith(".w")] == [
        "interrupted"
    ] * 2
    assert [s.attributes["flowdsl.status"] for s in kit.spans() if s.name.endswith(".stops")] == [
        "interrupted"
    ] * 2
    assert kit.named(".cancelled").attributes["flowdsl.status"] == "cancelled"
    assert not kit.tracing._runs
    assert not kit.tracing._steps


def test_metrics_have_names_and_statuses_but_no_ids(storage, clock, kit):
    """Metrics count durations, retries and replays, by name and status and never by id."""
    calls = []

    @step(retry=Retry(attempts=2, jitter=0))
    def flaky():
        calls.append(1)
        if len(calls) < 2:
            raise OSError

    @step(retry=ONCE)
    def last():
        if len(calls) < 3:
            calls.append(1)
            raise ValueError

    @workflow
    def w():
        flaky()
        last()

    with Runtime(storage, clock=clock, hooks=kit.tracing):
        with pytest.raises(ValueError):
            w()
        w()
    runs = kit.points("flowdsl.run.duration")
    assert runs == {
        (("status", "failed"), ("workflow", w.path)): 1,
        (("status", "completed"), ("workflow", w.path)): 1,
    }
    steps = kit.points("flowdsl.step.duration")
    assert steps[("path", flaky.path), ("status", "completed")] == 1
    assert steps[("path", last.path), ("status", "failed")] == 1
    assert kit.points("flowdsl.step.retries") == {(("path", flaky.path),): 1}
    assert kit.points("flowdsl.step.replays") == {(("path", flaky.path),): 1}


CANARY = "4111-1111"


@workflow
def pays(card):
    """Tells its argument to a step that fails with it."""

    @step(retry=ONCE)
    def charge(card):
        raise ValueError(f"declined {card}")

    inner(card)
    charge(card)


@pytest.mark.parametrize(
    ("values", "codec", "told"),
    [(False, None, False), (True, None, True), (True, "encrypted", False)],
)
def test_values_are_told_only_on_request_and_never_when_they_are_hidden(values, codec, told):
    """Arguments and messages are added on request only, and never if they are hidden."""
    kit = Kit(values=values)
    hidden = Encrypted(PickleCodec(), bytes(range(32))) if codec else PickleCodec()
    with Runtime("memory://", codec=hidden, hooks=kit.tracing), pytest.raises(ValueError):
        pays(CANARY)
    text = "".join(span.to_json() for span in kit.spans())
    assert (CANARY in text) is told


def test_an_exporter_that_raises_disturbs_nothing(storage, clock, caplog):
    """An exporter that raises is logged and disturbs no run."""

    class Broken(SpanExporter):
        def export(self, spans):
            raise OSError("no network")

    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(Broken()))
    with Runtime(storage, clock=clock, hooks=Tracing(tracers)), caplog.at_level(logging.CRITICAL):
        assert child(3) == 3


def test_without_an_sdk_nothing_happens(storage, clock):
    """Without an SDK there is no tag and no write, and results are the same."""
    with Runtime(storage, clock=clock, hooks=Tracing()) as runtime:
        assert child(3) == 3
        (run,) = runtime.runs()
        assert run.tags == ()


def test_a_step_outside_a_run_and_rt_do_are_traced(storage, clock, kit):
    """``rt.do`` is traced as a run with one step; a ``try`` step outside a run has a span of its own."""
    with Runtime(storage, clock=clock, hooks=kit.tracing) as runtime:
        runtime.do(inner, 1)
        runtime.try_(inner, 2)
    names = [span.name.partition(" ")[0] for span in kit.spans()]
    assert names == ["run", "step", "step"]


def test_queues_tell_how_many_wait_and_how_long(storage, clock, kit):
    """The depth of a queue is read from the storage, and the wait of a run is measured once, from when it was
    due."""
    with Runtime(storage, clock=clock, hooks=[kit.tracing]) as runtime:
        hold.enqueue(), hold.options(queue="mail").enqueue(), hold.options(queue="mail").enqueue()
        assert kit.points("flowdsl.queue.depth") == {(("queue", "default"),): 1, (("queue", "mail"),): 2}
        with ThreadPoolExecutor() as pool:
            done = pool.submit(runtime.work, ["mail"])
            for run in runtime.runs(workflow=hold):
                if run.queue == "mail":
                    assert run.result(timeout=60) == "held"
            runtime.close()
            done.result(timeout=60)
    labels = ("queue", "mail"), ("workflow", "test_otel.hold")
    assert kit.points("flowdsl.queue.latency") == {labels: 2}
    assert kit.points("flowdsl.queue.depth") == {(("queue", "default"),): 1}
    storage.close()
    assert kit.points("flowdsl.queue.depth") == {}
