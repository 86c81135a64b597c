"""``flowdsl export``, and what can be done with an export."""

import json

import pytest
from attrs import evolve

from flowdsl import Runtime
from flowdsl.core.history import export_run, read_export
from flowdsl.core.records import Run, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import CorruptPayload, RunNotFound, SchemaMismatch


def test_export_is_complete(diary, answer, invoke, url):
    """The document has the run, its steps and its signals, and equals that of ``Runtime.export``."""
    diary(2)
    document = answer("export", "diary-2")
    assert list(document) == ["format", "version", "run", "steps", "signals"]
    assert (document["format"], document["version"]) == ("flowdsl history", 1)
    assert document["run"]["workflow"] == "diary.keep"
    assert document["run"]["tags"] == {"team": "日本"}
    assert [step["path"] for step in document["steps"] if step["kind"] == "step"] == ["diary.write"] * 2
    assert "owner" not in document["run"]
    assert json.loads(invoke("export", "diary-2").stdout) == document
    with Runtime(url) as runtime:
        assert runtime.export("diary-2") == document
        with pytest.raises(RunNotFound):
            runtime.export("nothing")


def test_an_export_can_be_replayed(diary, answer):
    """The same code replays an export in another storage, with the same result, and executes nothing."""
    result = diary(3)
    history = read_export(answer("export", "diary-3"))
    with Runtime("memory://") as runtime:
        runtime.storage.set_run(evolve(history.run, status=RunStatus.RUNNING, result=None, finished_at=None))
        for one in history.steps:
            runtime.storage.set_step(one)
        assert diary.keep(3) == result
        steps = runtime.storage.list_steps("diary-3")
        assert [step.key for step in steps if step.path != "flowdsl.continue"] == [
            one.key for one in history.steps
        ]
    assert diary.executed == [0, 1, 2]


def test_an_export_reads_as_what_was_written():
    """Every field that says something about the run survives writing and reading, whatever it holds."""
    run = Run(
        "a", "w", "k", number=3, status=RunStatus.FAILED, args=b"\0\xff", tags=("x", "y"), created_at=1.25,
        finished_at=2.5, deadline=3.75, open_failures=("s",), retryable=False, error=b"", undoing="failed",
        floor=8, version="2",
    )  # fmt: skip
    steps = [
        Step("a", "s", "w.s", seq=7, payload=b"", concurrent=True, created_at=1.5, extra='{"child": "b"}'),
        Step("a", "t", "w.t", seq=9, kind="wait", attempts=0, extra='{"odd":  NaN}', defaults="d", draws=2),
    ]
    signals = [Signal("i", "a", "go", b"p", "1", "eve", "key", 1.5, seq=4, taken_by="t")]
    history = read_export(json.loads(json.dumps(export_run(run, steps, signals), allow_nan=False)))
    assert history.run == evolve(run, floor=2)
    assert history.steps == (steps[0]._replace(seq=1), steps[1]._replace(seq=2))
    assert history.signals == (evolve(signals[0], seq=1),)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"format": "other"}, ValueError, "flowdsl export RUN"),
        ({"version": 2}, SchemaMismatch, "reads up to 1"),
        ({"run": {}}, ValueError, "lacks"),
        ({"steps": [7]}, ValueError, "lacks"),
        ({"run": {"id": "a", "workflow": "w", "key": "k", "args": "?"}}, CorruptPayload, "base64"),
        ({"run": {"id": "a", "workflow": "w", "key": "k", "status": "done"}}, ValueError, "done"),
    ],
)
def test_what_is_no_export(change, error, said):
    """Other JSON, a newer format and a damaged document are refused, with the reason."""
    document = {**export_run(Run("a", "w", "k"), [], []), **change}
    with pytest.raises(error, match=said):
        read_export(document)
    with pytest.raises(ValueError):
        read_export([])
