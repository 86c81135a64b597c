"""A run as HTML, as a notebook shows it: only what is stored readable, so nothing is loaded for it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus

__all__ = ["run_page"]

STEPS = 100
"""So many steps are shown, the last ones: that is where a run stands."""

TEXT = 160
"""So many characters of arguments and results are shown."""

_MARKS = {
    "completed": ("✓", "#2e9e5b"),
    "failed": ("✗", "#d64545"),
    "running": ("●", "#2f7fc1"),
    "interrupted": ("!", "#c98500"),
    "pending": ("○", "#c98500"),
}
_OTHER = ("–", "#8a8a8a")  # cancelled, undone
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


def run_page(run: Run, state: str, steps: Sequence[Step]) -> str:
    """HTML of a run with its *steps*; *state* is its status, or ``interrupted``. It reads well on light and
    dark backgrounds."""
    shown = steps[-STEPS:]
    done = sum(step.status is StepStatus.COMPLETED for step in steps)
    counted = f"{done} of {len(steps)} recorded steps completed" if steps else "no step is recorded"
    head = (
        f"<div><b>{escape(_name(run.workflow))}</b>({escape(_short(run.args_preview))}) {_state(state)}</div>"
        f"<div><code>{escape(run.id)}</code>, {_times(run)}; {counted}</div>"
    )
    outcome = run.error_preview or run.result_preview
    if outcome:
        head += f"<div>→ {escape(_short(outcome, 3 * TEXT))}</div>"
    if not shown:
        return head
    titles = "".join(
        f'<th style="{_CELL}">{title}</th>' for title in ("step", "state", "tries", "arguments", "result")
    )
    left_out = len(steps) - len(shown)
    earlier = f'<tr><td style="{_CELL}" colspan="5">… {left_out} earlier ones</td></tr>' if left_out else ""
    rows = "".join(_row(step) for step in shown)
    return f'{head}<table style="margin:6px 0"><tr>{titles}</tr>{earlier}{rows}</table>'


def _row(step: Step) -> str:
    texts = (escape(_name(step.path)), _state(str(step.status)), str(step.attempts))
    previews = (f"<code>{escape(_short(text))}</code>" if text else "" for text in (step.args, step.preview))
    cells = "".join(f'<td style="{_CELL}">{text}</td>' for text in (*texts, *previews))
    return f"<tr>{cells}</tr>"


def _state(state: str) -> str:
    mark, colour = _MARKS.get(state, _OTHER)
    return f'<span style="color:{colour};white-space:nowrap">{mark} {escape(state)}</span>'


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _short(text: str, most: int = TEXT) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _times(run: Run) -> str:
    begun = f"begun {datetime.fromtimestamp(run.created_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if run.finished_at is None:
        return begun
    return f"{begun}, took {max(run.finished_at - run.created_at, 0):,.3g} s"
