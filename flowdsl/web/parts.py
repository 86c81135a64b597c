"""The parts of the page of a run, as plain data for its template."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from attrs import frozen

from flowdsl.core.advice import advice, awaited_names, in_doubt, shell_line
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Signal, Step
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.core.timeline import Bar
from flowdsl.core.views import extra_of, scope_owner, scope_paths
from flowdsl.core.words import instant, owner_text, span
from flowdsl.web.reading import RunDetails

__all__ = [
    "Calls",
    "Failure",
    "LogRow",
    "Message",
    "StoreRow",
    "audit_rows",
    "calls_of",
    "commands",
    "facts",
    "failure_of",
    "failures",
    "idempotency_key",
    "log_rows",
    "messages",
    "outcome_text",
    "steps_in_doubt",
    "store_rows",
    "waited_for",
]

SHOWN = 500
"""How many lines of a part are shown, at most: the newest ones."""


def facts(details: RunDetails) -> list[tuple[str, str]]:
    """The facts about the run, as names and texts."""
    run, now = details.run, details.now
    found = [("arguments", run.args_preview or "–")]
    if run.status is RunStatus.COMPLETED:
        found.append(("result", run.result_preview or "–"))
    end = run.finished_at if is_final(run.status) else now if details.status == "running" else None
    if end is not None:
        found.append(("took", span(max(end - run.created_at, 0.0))))
    if run.number is not None:
        found.append(("number", str(run.number)))
    if run.generation > 1:
        found.append(("generation", str(run.generation)))
    if run.queue is not None:
        more = [f"priority {run.priority}" if run.priority else "", run.partition or ""]
        found.append(("queue", ", ".join([run.queue, *filter(None, more)])))
    if run.not_before is not None and run.status is RunStatus.PENDING:
        found.append(("not before", f"{instant(run.not_before):%Y-%m-%d %H:%M:%S} UTC"))
    if run.version:
        found.append(("version", run.version))
    if run.owner and details.status == "running":
        found.append(("executed by", owner_text(run.owner)))
    if run.owner and details.status == "interrupted":
        found.append(("was executed by", owner_text(run.owner)))
    if run.deadline is not None and not is_final(run.status):
        found.append(("deadline", f"{instant(run.deadline):%Y-%m-%d %H:%M:%S} UTC"))
    if run.cancel_requested is not None and run.status is not RunStatus.CANCELLED:
        found.append(("cancelling", f"asked for at {instant(run.cancel_requested):%Y-%m-%d %H:%M:%S} UTC"))
    if run.recoveries:
        found.append(("taken over", f"{run.recoveries} × from a process that was gone"))
    return found


def commands(details: RunDetails) -> list[str]:
    """The commands to use next, as lines for a shell."""
    return [shell_line(command) for command in advice(details.run, details.status, details.journal)]


# --------------------------------------------------------------------------------------------------- errors


@frozen
class Failure:
    """An error: its text, where in the user's code it was raised, and the source line there."""

    where: str
    source: str
    kind: str
    message: str
    step: str = ""
    key: str = ""


def failure_of(preview: str, step: Step | None = None) -> Failure:
    """The error in *preview*."""
    text, where, source = error_lines(preview)
    kind, _, message = text.partition(": ")
    name, key = ("", "") if step is None else (step.path, step.key)
    return Failure(where, source, kind, message, name, key)


def failures(details: RunDetails) -> list[Failure]:
    """The errors with which the run ended: its own first, then those of the steps that a retry executes."""
    run = details.run
    if details.status in ("running", "completed") or not run.error_preview:
        return []
    own = failure_of(run.error_preview)
    by_key = {step.key: step for step in details.journal}
    opened = [by_key[key] for key in run.open_failures if key in by_key]
    found = [failure_of(step.preview, step) for step in opened if step.status is StepStatus.FAILED]
    same = next((one for one in found if one.kind == own.kind), None)
    if same is not None:  # the run's error is that of the step: show it once, with the better place
        found.remove(same)
        own = Failure(
            own.where or same.where, own.source or same.source, own.kind, own.message, same.step, same.key
        )
    return [own, *found][:SHOWN]


def steps_in_doubt(details: RunDetails) -> list[Step]:
    """The steps in doubt: nobody knows whether they took effect."""
    if details.status != "interrupted":
        return []
    return [step for step in details.journal if in_doubt(step)]


def waited_for(details: RunDetails) -> list[str]:
    """The names of the messages that the run waits for."""
    if is_final(details.run.status):
        return []
    return list(dict.fromkeys(name for step in details.journal for name in awaited_names(step)))


def outcome_text(bar: Bar) -> str:
    """The outcome of a step, on one line. For a step without an outcome, what it waits for."""
    step = bar.step
    if step.status is StepStatus.PENDING:
        extra = extra_of(step)
        for name, text in (("until", "until"), ("next", "tried again at"), ("deadline", "at most until")):
            at = extra.get(name)
            if isinstance(at, int | float):
                return f"{text} {instant(at):%Y-%m-%d %H:%M:%S} UTC"
        names = awaited_names(step)
        return f"for {', '.join(names)}" if names else ""
    return error_lines(step.preview)[0] if step.status is StepStatus.FAILED else step.preview


def idempotency_key(step: Step) -> str:
    """The value of ``current_step().idempotency_key`` in the body of this step."""
    generation = extra_of(step).get("generation")
    return f"{step.run_id}/{step.key}" + (f"~{generation}" if generation else "")


# --------------------------------------------------------------------------------------- logs, store, audit


@frozen
class LogRow:
    """A line of the log; *path*: the step that wrote it, ``""`` for the run itself."""

    at: datetime
    message: str
    fields: str
    path: str = ""
    key: str = ""


def log_rows(details: RunDetails) -> list[LogRow]:
    """The newest lines of the log, oldest first."""
    lines = [step for step in details.journal if step.kind == "log"]
    if not lines:
        return []
    paths = scope_paths(details.journal)
    keys = {step.key for step in details.journal}
    return [_log_row(step, paths.get(step.scope, ""), keys) for step in lines[-SHOWN:]]


def _log_row(step: Step, path: str, keys: set[str]) -> LogRow:
    given = extra_of(step).get("fields")
    shown = (
        " ".join(f"{name}={_short(value)}" for name, value in given.items())
        if isinstance(given, dict)
        else ""
    )
    owner = scope_owner(step.scope, keys) if step.scope else None
    return LogRow(instant(step.created_at), step.preview or "–", shown, path, owner or "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


@frozen
class StoreRow:
    """One key of the run's store: the last operation, the value if a preview is stored, how often it was
    changed, and when last."""

    key: str
    operation: str
    value: str
    changes: int
    at: datetime


def store_rows(details: RunDetails) -> list[StoreRow]:
    """The keys of the run's store, from the operations on it."""
    last: dict[str, tuple[str, Step]] = {}
    changes: Counter[str] = Counter()
    for step in details.journal:
        if step.kind == "store":
            extra = extra_of(step)
            key = str(extra.get("key", ""))
            changes[key] += 1
            last[key] = (str(extra.get("op", "")), step)
    return [
        StoreRow(key, op, step.preview or "–", changes[key], instant(step.created_at))
        for key, (op, step) in islice(last.items(), SHOWN)
    ]


def audit_rows(details: RunDetails) -> list[tuple[datetime, str, str, str]]:
    """The entries of the audit: when, who, the action, what was changed."""
    rows = [
        (instant(step.created_at), step.preview, step.path.removeprefix("flowdsl."), step.args)
        for step in details.journal
        if step.kind == "audit"
    ]
    return rows[-SHOWN:]


@frozen
class Message:
    """A message to the run, and the reply if there is one."""

    name: str
    at: datetime
    sender: str
    payload: str
    state: str
    reply: str = ""


def messages(details: RunDetails) -> list[Message]:
    """The messages that were sent to the run, oldest first."""
    return [
        Message(
            name=signal.name,
            at=instant(signal.created_at),
            sender=signal.sender or "",
            payload=signal.preview or "–",
            state="taken" if signal.taken_by else "unread",
            reply=_reply(signal),
        )
        for signal in details.signals[-SHOWN:]
    ]


def _reply(signal: Signal) -> str:
    if signal.reply is None and not signal.reply_preview:
        return "none yet" if signal.asked else ""
    said = signal.reply_preview or "–"
    return f"refused: {said}" if signal.reply_failed else said


# ---------------------------------------------------------------------------------------------------- graph


@frozen
class Calls:
    """How often *caller* called *callee*, and how often that failed. *depth*: the distance from the run."""

    caller: str
    callee: str
    count: int
    failed: int
    depth: int


def calls_of(details: RunDetails, bars: tuple[Bar, ...]) -> list[Calls]:
    """Which step called which, counted. Each caller comes after its own caller."""
    paths: Mapping[str, str] = {bar.step.key: bar.step.path for bar in bars}
    counts: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    depths: dict[tuple[str, str], int] = {}
    for bar in bars:
        if bar.step.kind == "value":
            continue
        pair = (paths.get(bar.owner, details.run.workflow), bar.step.path)
        counts[pair] += 1
        failed[pair] += bar.status == "failed"
        depths[pair] = min(depths.get(pair, bar.depth), bar.depth)
    order = {path: place for place, path in enumerate(dict.fromkeys(bar.step.path for bar in bars))}
    order.setdefault(details.run.workflow, -1)
    pairs = sorted(counts, key=lambda pair: (depths[pair], order.get(pair[0], -1), order[pair[1]]))
    return [Calls(*pair, counts[pair], failed[pair], depths[pair]) for pair in pairs[:SHOWN]]
