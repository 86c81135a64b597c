"""What to do when a call contradicts the journal: raise with a diff, execute it anyway, or take the record.

It also reports when a step's source has changed since its result was recorded. The recorded result still
counts. ``version=`` makes the change count."""

import logging
from collections.abc import Iterable

from flowdsl.core.journal import Decision, Verdict
from flowdsl.core.kinds import STEP
from flowdsl.core.records import Step
from flowdsl.core.source import changed_source
from flowdsl.core.status import StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.call import Call
from flowdsl.engine.callsite import source_line
from flowdsl.engine.execution import Execution
from flowdsl.engine.registry import STEPS
from flowdsl.errors import NondeterminismError, Stopped

__all__ = ["diverged", "notice", "notice_of"]

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


def diverged(call: Call, decision: Decision) -> Decision:
    """Turn a diverged decision into one that can be carried out, or raise."""
    record = decision.record
    assert record is not None
    run = call.run
    policy = call.operation.on_divergence
    if policy is None:
        policy = "rerun" if call.frame.step is not None else run.engine.on_divergence
    if policy == "rerun":
        return Decision(Verdict.EXECUTE)
    if policy == "reuse" and record.status in (StepStatus.COMPLETED, StepStatus.FAILED):
        run.journal.use(record.key)
        logger.warning(
            "step %s of run %s was called with other arguments than recorded; taking the recorded result",
            call.operation.path,
            run.id,
            extra={"run": run.id, "step": record.key},
        )
        what = f"{call.operation.path}: recorded ({record.args}), called with ({call.shown})"
        note = audit(run.engine, run.id, "reuse", what, step=record.key)
        note = note._replace(key=f"audit-reuse-{call.key}")
        with run.lock:
            if run.journal.get(note.key) is None:
                run.writer.keep(note)
        return Decision(Verdict.RECORDED, record)
    error = _error(call, record)
    run.stop.halt(error)
    raise Stopped(error)


def _error(call: Call, record: Step) -> NondeterminismError:
    run, path = call.run, call.operation.path
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


# Changed sources ------------------------------------------------------------------------------------------


class _Once:
    """Lets something happen once in a run."""

    def __init__(self) -> None:
        self._done = False

    def first(self) -> bool:
        """Whether this is the first call."""
        done, self._done = self._done, True
        return not done


def notice(run: Execution, path: str, recorded: str, now: str) -> None:
    """Report once in a run that *path* was recorded with another source, and which other steps were."""
    if not changed_source(recorded, now) or not run.part(_Once).first():
        return
    paths = {path}
    with run.lock:
        for step in run.journal:
            defn = STEPS.get(step.path) if step.kind == STEP and step.path not in paths else None
            if defn is not None and changed_source(step.defaults, f"@={defn.source}"):
                paths.add(step.path)
    notice_of(run.id, paths)


def notice_of(run_id: str, paths: Iterable[str]) -> None:
    """Log that the sources of these steps have changed."""
    logger.warning(
        "run %s takes recorded results of steps whose source has changed since: %s. For a change that is to "
        "count, give the step a version=",
        run_id,
        ", ".join(sorted(paths)),
        extra={"run": run_id, "step": None},
    )
