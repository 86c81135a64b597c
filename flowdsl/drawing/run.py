"""One run as HTML: its state, the user's line of an error, the timeline, and the steps as a table.

The HTML has a limited size. Parts that do not fit are left out, and counted.
"""

from collections.abc import Callable, Iterator, Sequence

from flowdsl.core.kinds import LOG, UNDO, WITH_BODY
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.timeline import Bar, Timeline, timeline_of
from flowdsl.core.views import extra_of
from flowdsl.core.words import instant, span
from flowdsl.drawing.style import HIDDEN, attribute, badge, css, length, safe
from flowdsl.drawing.svg import timeline_svg

__all__ = ["card", "hides", "note_html", "run_html", "run_line", "short_name", "shown_or_why", "took"]

ROWS = 100
"""How many steps the table shows: the last ones, because they show where the run is."""

OPEN = 15
"""A table with more rows than this is folded."""

LOGS = 30
"""How many lines of the log are shown: the last ones."""

TEXT = 160
"""How many characters of an argument or a result are shown."""

_TABLE = 60_000  # characters of all rows of a table together


def run_html(run: Run, state: str, journal: Sequence[Step], now: float) -> str:
    """Show *run* with the records of its *journal*.

    Parameters: *state*: its status as it is shown (``interrupted`` for a running one that nobody executes).
    *now*: seconds since the epoch.
    """
    line = timeline_of(run, state, journal, now=now)
    parts = [run_line(run, state, now), _counted(run, line)]
    if run.error_preview:
        parts.append(_error(run.error_preview))
        if state == "failed" and not run.retryable:
            parts.append(
                '<div class="fd-quiet">its steps were undone: only retry or fork execute it again</div>'
            )
    elif state == "completed":
        shown = safe(run.result_preview or HIDDEN, 3 * TEXT)
        parts.append(f'<div class="fd-result">→ <code>{shown}</code></div>')
    if line.bars:
        told = (
            f"timeline of {short_name(run.workflow)}: {len(line.bars)} steps in {span(line.end - line.begin)}"
        )
        parts.append(timeline_svg(line, told))
        parts.append(_table(line))
    parts.append(_logs(journal))
    return card("".join(parts), run, state)


def card(content: str, run: Run | None = None, state: str = "") -> str:
    """*content* in a card. If it is about a *run*, the card has its id and *state* as attributes."""
    about = "" if run is None else f' data-run-id="{attribute(run.id)}" data-status="{safe(state)}"'
    return f'<div class="flowdsl"{about}><style>{css()}</style>{content}</div>'


def note_html(title: str, text: str) -> str:
    """Show that something could not be read, and why."""
    return card(
        f'<div class="fd-head"><b>{safe(title)}</b></div><div class="fd-quiet">{safe(text, 500)}</div>'
    )


def shown_or_why(title: str, draw: Callable[[], str]) -> str:
    """The result of *draw*. If it raises, *title* and the error, because a notebook would show nothing.

    >>> "ZeroDivisionError" in shown_or_why("run order-17", lambda: str(1 / 0))
    True
    """
    try:
        return draw()
    except Exception as error:  # an error of the storage, or of the user's repr
        return note_html(title, f"cannot be shown: {type(error).__name__}: {error}")


def run_line(run: Run, state: str, now: float) -> str:
    """A run in one line: state, name, arguments, how long it took."""
    number = f" <span class='fd-quiet'>run {run.number}</span>" if run.number and run.number > 1 else ""
    args = run.args_preview or (HIDDEN if hides(run) else "")
    return (
        f'<div class="fd-head">{badge(state)} <b>{safe(short_name(run.workflow))}</b>'
        f"(<code>{safe(args, TEXT)}</code>){number} "
        f'<span class="fd-quiet fd-nowrap">{took(run, state, now)}</span></div>'
    )


def hides(run: Run) -> bool:
    """Whether the values of a completed run are hidden. Otherwise every result has a text, even ``None``."""
    return run.status is RunStatus.COMPLETED and not run.result_preview


def took(run: Run, state: str, now: float) -> str:
    """How long a run took or has been executing; ``""`` if nobody executes it."""
    if run.finished_at is not None and state != "running":
        return length(max(run.finished_at - run.created_at, 0.0))
    return f"for {length(max(now - run.created_at, 0.0))} by now" if state == "running" else ""


def short_name(path: str) -> str:
    """The last part of a dotted path.

    >>> short_name("notebook:sweep.ipynb.train"), short_name("flowdsl.sleep")
    ('train', 'sleep')
    """
    return path.rpartition(".")[2]


# ------------------------------------------------------------------------------------------------------ parts


def _counted(run: Run, line: Timeline) -> str:
    done = sum(bar.step.status is StepStatus.COMPLETED for bar in line.bars)
    failed = sum(bar.step.status is StepStatus.FAILED for bar in line.bars)
    replayed = sum(bar.replayed for bar in line.bars)
    facts = [f"<code>{safe(run.id, 100)}</code>", f"begun {instant(run.created_at):%Y-%m-%d %H:%M:%S} UTC"]
    facts.append(f"{done} of {len(line.bars)} steps completed" if line.bars else "no step is recorded")
    if failed:
        facts.append(f"{failed} failed")
    if replayed:
        facts.append(f"{replayed} replayed from their records")
    facts += [f"{name} <code>{safe(other, 100)}</code>" for name, other in _relatives(run) if other]
    return f'<div class="fd-quiet">{" · ".join(facts)}</div>'


def _relatives(run: Run) -> Iterator[tuple[str, str | None]]:
    yield "child of", run.parent
    yield "fork of", run.forked_from


def _error(preview: str) -> str:
    """The user's line, then the error."""
    text, where, source = error_lines(preview)
    lines = []
    if where:
        lines.append(f'<div data-user-line=""><code>{safe(where)}</code></div>')
    if source:
        lines.append(f"<pre>    {safe(source.strip())}</pre>")
    lines.append(f"<div><b>{safe(text, 6 * TEXT)}</b></div>")
    return f'<div class="fd-error">{"".join(lines)}</div>'


def _table(line: Timeline) -> str:
    ordered = _outer_first(line.bars)
    shown = ordered[-ROWS:]
    rows: list[str] = []
    for bar in reversed(shown):  # the last ones are kept
        row = _row(bar)
        if sum(map(len, rows)) + len(row) > _TABLE:
            break
        rows.append(row)
    left_out = len(ordered) - len(rows)
    earlier = f'<tr><td colspan="6" class="fd-quiet">… {left_out} earlier ones</td></tr>' if left_out else ""
    titles = "".join(f"<th>{name}</th>" for name in ("step", "state", "tries", "took", "arguments", "result"))
    unfolded = ' open=""' if len(ordered) <= OPEN else ""
    count = f"{len(ordered)} step" if len(ordered) == 1 else f"{len(ordered)} steps"
    return (
        f"<details{unfolded}><summary>{count}</summary><table><thead><tr>{titles}</tr></thead><tbody>"
        f"{earlier}{''.join(reversed(rows))}</tbody></table></details>"
    )


def _outer_first(bars: Sequence[Bar]) -> list[Bar]:
    """Bars in order of their beginning. Each is followed by the bars that were called inside it."""
    inside: dict[str, list[Bar]] = {}
    for bar in bars:
        inside.setdefault(bar.owner, []).append(bar)
    found: list[Bar] = []
    waiting = list(reversed(inside.pop("", [])))
    while waiting:
        bar = waiting.pop()
        found.append(bar)
        waiting += reversed(inside.pop(bar.step.key, []))
    return found


def _row(bar: Bar) -> str:
    step = bar.step
    indent = "\u00a0\u00a0" * (min(bar.depth, 12) - 1) + "└ " if bar.depth else ""
    text, where, _ = error_lines(step.preview)
    hidden = step.status is StepStatus.COMPLETED and step.kind in WITH_BODY and not text
    result = f"{where}: {text}" if where and step.status is StepStatus.FAILED else text
    undo = " (undo)" if step.kind == UNDO else ""
    cells = [
        f'<td class="fd-nowrap">{indent}{safe(short_name(step.path), 60)}{undo}</td>',
        f"<td>{badge(bar.status)}</td>",
        f"<td>{step.attempts if step.attempts != 1 else ''}</td>",
        f'<td class="fd-nowrap">{_span(bar)}</td>',
        f"<td>{_code(step.args or HIDDEN * hidden)}</td>",
        f"<td>{_code(result or HIDDEN * hidden)}{_child(step)}</td>",
    ]
    return f'<tr data-step-key="{attribute(step.key)}" data-status="{safe(bar.status)}">{"".join(cells)}</tr>'


def _span(bar: Bar) -> str:
    return "" if bar.end == bar.start and bar.step.completed_at is None else length(bar.end - bar.start)


def _code(text: str) -> str:
    return f"<code>{safe(text, TEXT)}</code>" if text else ""


def _child(step: Step) -> str:
    child = extra_of(step).get("child")
    return (
        f'<div class="fd-quiet">run <code>{safe(child, 100)}</code></div>' if isinstance(child, str) else ""
    )


def _logs(journal: Sequence[Step]) -> str:
    logged = [step for step in journal if step.kind == LOG]
    if not logged:
        return ""
    rows = "".join(
        f'<tr><td class="fd-quiet fd-nowrap">{instant(step.created_at):%H:%M:%S}</td>'
        f"<td>{safe(step.preview, TEXT)}</td><td>{_fields(step)}</td></tr>"
        for step in logged[-LOGS:]
    )
    count = f"{len(logged)} line" if len(logged) == 1 else f"{len(logged)} lines"
    return f"<details><summary>{count} of log</summary><table><tbody>{rows}</tbody></table></details>"


def _fields(step: Step) -> str:
    fields = extra_of(step).get("fields")
    if not isinstance(fields, dict):
        return ""
    return _code(" ".join(f"{name}={value}" for name, value in list(fields.items())[:20]))
