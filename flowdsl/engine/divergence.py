"""What to do when a call contradicts the journal: raise with a diff, execute anyway, or take what was
recorded."""

import logging
from collections.abc import Generator
from typing import Any

from flowdsl.core.journal import Decision, Verdict
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.callsite import source_line
from flowdsl.errors import NondeterminismError, Stopped

__all__ = ["diverged"]

logger = logging.getLogger("flowdsl")


def _diff(recorded: str, asked: str) -> str:
    import difflib  # only for this message

    old, new = (text.split(", ") for text in (recorded, asked))
    lines = [line.rstrip() for line in difflib.ndiff(old, new) if not line.startswith("? ")]
    if recorded == asked:
        why = (
            "what is kept of the recorded arguments is shortened, as those asked for are here; the two "
            "differ beyond it"
            if "…" in recorded
            else "they read the same; their encodings differ"
        )
        lines = [f"  {recorded}", f"  ({why})"]
    return "\n".join(f"    {line}" for line in lines)


def diverged(call: Any, decision: Decision) -> Generator[Any, Any, Decision]:
    """Turn a diverged decision into one that can be carried out, or raise."""
    record = decision.record
    assert record is not None
    run = call.run
    policy = call.defn.on_divergence
    if policy is None:
        policy = "rerun" if call.frame.step is not None else run.engine.on_divergence
    if policy == "rerun":
        return Decision(Verdict.EXECUTE)
    if policy == "reuse" and record.status in (StepStatus.COMPLETED, StepStatus.FAILED):
        run.journal.use(record.key)
        logger.warning(
            "step %s of run %s was called with other arguments than recorded; taking the recorded result",
            call.defn.path,
            run.id,
            extra={"run": run.id, "step": record.key},
        )
        what = f"{call.defn.path}: recorded ({record.args}), called with ({call.shown})"
        note = audit(run.engine, run.id, "reuse", what, step=record.key)
        note = note._replace(key=f"audit-reuse-{call.key}")
        with run.lock:
            if run.journal.get(note.key) is None:
                run.writer.keep(note)
        return Decision(Verdict.RECORDED, record)
    error = _error(call, record)
    run.stop.halt(error)
    raise Stopped(error)
    yield  # a generator, so that policies may need effects


def _error(call: Any, record: Step) -> NondeterminismError:
    run, path = call.run, call.defn.path
    asked = call.shown
    message = (
        f"step {path} of run {run.id} was recorded with other arguments than it is called with now; it "
        "was not executed.\n"
        f"  recorded (-) and asked for (+), call number {record.ordinal + 1} of this step:\n"
        f"{_diff(record.args, asked)}\n"
        f"  called at {source_line()}\n"
        "  Arguments of a recorded step must not change between a crash and the resume: take times, "
        "random numbers and outside\n"
        "  state from steps (or now(), uuid4(), rng()). If this is a new call in front of recorded "
        "ones, or the change is\n"
        '  meant: on_divergence="rerun" on this step executes it, "reuse" takes the recorded result; a '
        "new version= or run id starts over."
    )
    return NondeterminismError(
        message, run=run.id, step=call.key, path=path, recorded=record.args, asked=asked, record=record.key
    )
