"""``flowdsl logs``."""

import math
from datetime import UTC, datetime

from flowdsl import Runtime
from flowdsl.core.records import Step
from flowdsl.entries import LogLine


def test_logs(diary, invoke, answer):
    """Each line has its time, step, message and fields, without control characters."""
    diary(2)
    lines = [line[19:].strip() for line in invoke("logs", "diary-2").stdout.splitlines()]
    assert lines == [
        "begins part=inf",
        r"write  writing\x1b[31m page=0 ink=[1, 2]",
        r"write  writing\x1b[31m page=1 ink=[1, 2]",
    ]
    first, second, _ = answer("logs", "diary-2")
    assert (first["message"], first["fields"], first["step"], first["path"]) == (
        "begins",
        {"part": "inf"},
        None,
        None,
    )
    assert (second["path"], second["fields"]) == ("diary.write", {"page": 0, "ink": "[1, 2]"})
    assert r"write  writing\x1b[31m page=0 ink=[1, 2]" in invoke("show", "diary-2").stdout


def test_a_run_without_logs(shop, invoke, answer):
    """A run that logged nothing has an empty list, and a note says so."""
    run = shop.sell("x")
    result = invoke("logs", run.id)
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        f"{run.id} has logged nothing so far\n",
    )
    assert answer("logs", run.id) == []


def test_log_lines_are_views(diary, url):
    """``Run.logs()`` gives lines with an aware time, a message, fields and the scope of the call."""
    diary(1)
    with Runtime(url) as runtime:
        run = runtime.run("diary-1")
        assert run is not None
        first, second = run.logs()
        assert first.at.tzinfo is UTC
        assert (first.message, first.fields, first.step) == ("begins", {"part": math.inf}, None)
        assert second.step in {step.key for step in run.steps() if step.path == "diary.write"}
    odd = LogLine.of(Step("a", "b", "flowdsl.log", kind="log", preview="x", extra="[1"))
    assert odd == LogLine(datetime.fromtimestamp(0, UTC), "x", {}, None)
