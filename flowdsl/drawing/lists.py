"""Several runs as HTML, for ``rt.runs()`` and a runtime."""

from collections.abc import Sequence

from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run
from flowdsl.core.words import instant
from flowdsl.drawing.run import card, hides, short_name, took
from flowdsl.drawing.style import HIDDEN, attribute, badge, safe

__all__ = ["runs_html", "runs_table", "runtime_html"]

MOST = 50
"""How many runs are shown: the first ones of the list."""

_TEXT = 120
_TABLE = 120_000  # characters of all rows together


def runs_html(runs: Sequence[tuple[Run, str]], count: int, now: float) -> str:
    """Show the first *runs* of a list of *count*, each with its state."""
    title = "1 run" if count == 1 else f"{count} runs"
    return card(f'<div class="fd-head"><b>{title}</b></div>{runs_table(runs, now, count)}')


def runtime_html(storage: str, name: str, closed: bool, runs: Sequence[tuple[Run, str]], now: float) -> str:
    """Show a runtime: what kind of *storage* it has, and its newest *runs*."""
    title = f"<b>Runtime</b> {safe(name)} " if name else "<b>Runtime</b> "
    state = "closed" if closed else f"on {safe(storage)}"
    listed = runs_table(runs, now) if runs else '<div class="fd-quiet">no run is stored</div>'
    newest = "" if closed else listed
    return card(f'<div class="fd-head">{title}<span class="fd-quiet">{state}</span></div>{newest}')


def runs_table(runs: Sequence[tuple[Run, str]], now: float, count: int = 0) -> str:
    """The table of *runs*, the first of *count*. It says how many are not shown."""
    if not runs:
        return ""
    rows: list[str] = []
    length = 0
    for run, state in runs[:MOST]:
        row = _row(run, state, now)
        length += len(row)
        if length > _TABLE:
            break
        rows.append(row)
    more = max(count, len(runs)) - len(rows)
    rest = f'<tr><td colspan="6" class="fd-quiet">… and {more} more</td></tr>' if more else ""
    titles = ("state", "workflow", "run", "begun (UTC)", "took", "outcome")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}{rest}</tbody></table>"


def _row(run: Run, state: str, now: float) -> str:
    text, where, _ = error_lines(run.error_preview)
    outcome = f"{where}: {text}" if where else text or run.result_preview
    outcome, args = (HIDDEN, HIDDEN) if hides(run) else (outcome, run.args_preview)
    cells = (
        badge(state),
        f"{safe(short_name(run.workflow), 60)}(<code>{safe(args, _TEXT)}</code>)",
        f"<code>{safe(run.id, 80)}</code>",
        f'<span class="fd-nowrap">{instant(run.created_at):%Y-%m-%d %H:%M:%S}</span>',
        f'<span class="fd-nowrap">{took(run, state, now)}</span>',
        f"<code>{safe(outcome, _TEXT)}</code>" if outcome else "",
    )
    shown = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr data-run-id="{attribute(run.id)}" data-status="{safe(state)}">{shown}</tr>'
