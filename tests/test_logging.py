"""Logging: records go to the standard library's logging, with run and step."""

import logging
import threading

import pytest
from support import Breaking, Declined, Effects, Recorder, python, unreachable
from verbsupport import until

from flowdsl import Hooks, Retry, Runtime, step, workflow


def test_only_warnings_and_errors_are_printed_without_a_handler(tmp_path):
    """Without a handler, warnings and final failures that no caller gets are printed, and retries are not."""
    out = python(
        """
        from flowdsl import Runtime, step, workflow, Retry
        @step(mode="send")
        def sent():
            raise OSError("mail")
        @step(retry=Retry(attempts=2, initial=0))
        def f():
            raise LookupError
        @workflow
        def w():
            sent()
            f()
        with Runtime("memory://"):
            try:
                w()
            except LookupError:
                pass
        """,
        cwd=tmp_path,
    )
    assert out.stdout == ""
    assert "sent, sent off, failed" in out.stderr
    assert "attempt" not in out.stderr


def test_a_line_that_cannot_be_made_is_no_error_of_the_program(tmp_path):
    """A log line that cannot be made is reported on standard error, and raises nothing."""
    out = python(
        """
        import logging, flowdsl
        logging.getLogger("flowdsl").warning("%d", "no number")
        print("goes on")
        """,
        cwd=tmp_path,
    )
    assert out.stdout == "goes on\n"
    assert "--- Logging error ---" in out.stderr


def test_no_line_of_the_log_is_forged(caplog):
    """Control characters in a log line are escaped, and its further lines are indented."""
    logging.getLogger("flowdsl").warning("run %s waits", "a\x1b[2J\u202e\nERROR all is lost")
    assert caplog.messages == ["run a\\x1b[2J\\u202e\n  ERROR all is lost waits"]


def test_every_record_says_run_and_step(storage, clock, caplog, effects: Effects):
    """A format with ``%(run)s`` and ``%(step)s`` works for each record."""

    class Broken(Hooks):
        def on_run_start(self, run):
            raise RuntimeError

        def on_step_start(self, step):
            raise RuntimeError

    before = threading.enumerate()
    breaking = Breaking(storage)
    state = {"stop": True}

    @step(retry=Retry(attempts=2, jitter=0))
    def flaky():
        if effects("flaky") == 1:
            raise OSError

    @step(mode="send")
    def sent():
        raise OSError("sent")

    @step(retry=Retry(attempts=1), timeout=0.01)
    def slow():
        clock.sleep(60)

    @step(on_divergence="reuse")
    def reused(x): ...

    @step
    def gone(): ...

    def broken(run):
        raise RuntimeError

    @workflow(id="logged", on_complete=broken)
    def w():
        flaky()
        sent()
        reused(1 if "stop" in state else 2)
        try:
            slow()
        except TimeoutError:
            pass
        if state.pop("stop", False):
            gone()
            breaking.error = unreachable()
            flaky.options(version=2)()

    with caplog.at_level(logging.DEBUG, "flowdsl"):
        with Runtime(breaking, clock=clock, hooks=[Broken()]):
            with pytest.raises(Exception, match="took it away"):
                w()
            breaking.error = None
            w()
    clock.advance(
        "1 minute"
    )  # for the body that the timeout left behind; it holds the functions of this test
    until(lambda: all(one in before or one.name != "flowdsl-timeout" for one in threading.enumerate()))
    records = [r for r in caplog.records if r.name.startswith("flowdsl")]
    assert len(records) > 8
    about_runs = [r for r in records if "leases could not be renewed" not in r.getMessage()]
    assert all(r.run is None for r in records if r not in about_runs)  # a lease is renewed for all runs
    for record in about_runs:
        assert record.run == "logged", record.getMessage()
        assert hasattr(record, "step"), record.getMessage()
    about_a_step = [r for r in records if "flaky failed at attempt" in r.getMessage()]
    assert about_a_step
    assert all(r.step == flaky.key() for r in about_a_step)


def test_the_name_of_the_logger_is_the_package():
    """The logger has the name of the package."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("flowdsl")]
    assert "flowdsl" in names


def test_warnings_are_seen_where_nobody_has_configured_logging():
    """Without configured logging warnings are printed, because flowdsl adds no handler."""
    assert logging.getLogger("flowdsl").handlers == []


def test_a_retry_is_logged_at_info_and_a_final_failure_is_raised(runtime: Runtime, caplog, hooks: Recorder):
    """A retry is logged at INFO, and a failure that the caller gets is not logged."""

    @step(retry=Retry(attempts=3, jitter=0))
    def f():
        raise Declined("no")

    @workflow
    def w():
        f()

    with caplog.at_level(logging.INFO, "flowdsl"), pytest.raises(Declined):
        w()
    assert [r.levelname for r in caplog.records] == ["INFO", "INFO"]
    assert "attempt 1 of 3" in caplog.records[0].getMessage()


def test_an_ordinary_run_logs_nothing(runtime: Runtime, caplog):
    """An ordinary run logs nothing, even at DEBUG."""

    @step
    def f(x):
        return x

    @workflow
    def w():
        return f.map(range(3))

    with caplog.at_level(logging.INFO, "flowdsl"):
        w()
    assert caplog.records == []
