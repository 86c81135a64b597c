"""A frame shows a run while it executes: its state, its progress and what it does, as HTML and as one
line."""

from collections import Counter, deque
from collections.abc import Sequence

from attrs import define, field

from flowdsl.core.kinds import BESIDE_STEPS, LOG, VALUE
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.words import clean, span, state_of
from flowdsl.drawing.run import card, run_line, short_name
from flowdsl.drawing.style import attribute, badge, safe

__all__ = ["Frame", "html", "line"]

PATHS = 12
"""How many names of steps are counted one by one."""

LAST = 5
"""How many records are shown: the last ones."""


@define
class Frame:
    """The known state of one run. ``seen`` is the number of the last record that was read. ``skipped``: some
    records were not read, so steps cannot be counted by name."""

    run: Run | None = None
    state: str = "running"
    now: float = 0.0
    seen: int = 0
    skipped: bool = False
    counts: dict[str, Counter[str]] = field(factory=dict)
    last: deque[Step] = field(factory=lambda: deque(maxlen=LAST))
    running: dict[str, Step] = field(factory=dict)
    said: str = ""
    _known: dict[str, str] = field(factory=dict)

    def take(self, run: Run, state: str, fresh: Sequence[Step], now: float, skipped: bool = False) -> None:
        """Take in the row and the new records. *skipped*: some records before them were not read."""
        self.run, self.state, self.now = run, state, now
        self.skipped = self.skipped or skipped
        for step in fresh:
            self.seen = max(self.seen, step.seq)
            if step.kind == LOG:
                self.said = step.preview
            if step.kind in BESIDE_STEPS or step.kind == VALUE:
                continue
            status = str(step.status)
            before = self._known.get(step.key)
            counts = self.counts.setdefault(step.path, Counter())
            if before is not None:
                counts[before] -= 1
            counts[status] += 1
            if step.status is StepStatus.PENDING:
                self.running[step.key] = step
            else:
                self.running.pop(step.key, None)
                self.last.append(step)
            self._known[step.key] = status

    def total(self, *statuses: str) -> int:
        """How many steps have one of these statuses."""
        return sum(counts[status] for counts in self.counts.values() for status in statuses)


def line(frame: Frame) -> str:
    """One line of text: ``● train(rate=3) 812 steps, 1 failed, 4.1s · fit``."""
    run = frame.run
    if run is None:
        return ""
    parts = [f"{state_of(frame.state).sign} {short_name(run.workflow)}({run.args_preview[:40]})"]
    count = _count(frame)
    parts.append(f"{count} step" if count == "1" else f"{count} steps")
    if failed := 0 if frame.skipped else frame.total("failed"):
        parts.append(f"{failed} failed")
    parts.append(span(_elapsed(frame)))
    text = f"{parts[0]} {', '.join(parts[1:])}"
    if frame.state != "running":
        text += f" · {frame.state}"
    elif frame.running or frame.last:
        newest = next(reversed(frame.running.values()), None) or frame.last[-1]
        text += f" · {short_name(newest.path)}"
    return clean(text)


def html(frame: Frame) -> str:
    """A card: the run, a progress bar, the steps by name, and the last one."""
    run = frame.run
    if run is None:
        return card("")
    count = _count(frame)
    facts = [f"{count} step completed" if count == "1" else f"{count} steps completed"]
    if not frame.skipped:
        failed, running = frame.total("failed"), frame.total("pending")
        facts += [f"{count} {word}" for count, word in ((failed, "failed"), (running, "under way")) if count]
    if frame.said:
        facts.append(f"log: {safe(frame.said, 120)}")
    parts = [run_line(run, frame.state, frame.now), f'<div class="fd-quiet">{" · ".join(facts)}</div>']
    if run.error_preview and frame.state != "running":
        text, where, source = error_lines(run.error_preview)
        place = f"<div><code>{safe(where)}</code></div><pre>    {safe(source.strip())}</pre>" if where else ""
        parts.append(f'<div class="fd-error">{place}<b>{safe(text, 500)}</b></div>')
    elif run.result_preview and frame.state == "completed":
        parts.append(f'<div class="fd-result">→ <code>{safe(run.result_preview, 300)}</code></div>')
    if not frame.skipped:
        parts.append(_names(frame))
    if frame.state == "running":
        parts.append(_last(frame))
    return card("".join(parts), run, frame.state)


# ------------------------------------------------------------------------------------------------------ parts


def _count(frame: Frame) -> str:
    """How many steps have completed. If not all records were read, about how many were recorded."""
    return f"about {frame.seen:,}" if frame.skipped else f"{frame.total('completed'):,}"


def _elapsed(frame: Frame) -> float:
    run = frame.run
    assert run is not None
    end = run.finished_at if run.finished_at is not None and frame.state != "running" else frame.now
    return max(end - run.created_at, 0.0)


def _names(frame: Frame) -> str:
    """A row for each name: how its calls ended, as a bar and in numbers."""
    shown = list(frame.counts.items())[:PATHS]
    most = max((counts.total() for _, counts in shown), default=0)
    rows = "".join(
        f"<tr><td>{safe(short_name(path), 60)}</td><td>{_bar(counts, most)}</td>"
        f"<td>{_numbers(counts)}</td></tr>"
        for path, counts in shown
        if counts.total()
    )
    more = len(frame.counts) - len(shown)
    rest = f'<tr><td colspan="3" class="fd-quiet">… and {more} more names</td></tr>' if more > 0 else ""
    return f"<table><tbody>{rows}{rest}</tbody></table>" if rows else ""


_WIDTH = 240


def _bar(counts: Counter[str], most: int) -> str:
    x, parts = 0.0, []
    for status in ("completed", "failed", "pending", "undone"):
        width = _WIDTH * counts[status] / max(most, 1)
        if width > 0:
            parts.append(
                f'<rect class="fd-{status}" fill="{state_of(status).light}" x="{x:.1f}" y="1" '
                f'width="{max(width, 1):.1f}" height="10"/>'
            )
        x += width
    picture = "".join(parts)
    return (
        f'<svg class="fd-small" width="{_WIDTH}" height="12" viewBox="0 0 {_WIDTH} 12" aria-hidden="true">'
        f"{picture}</svg>"
    )


def _numbers(counts: Counter[str]) -> str:
    shown = ((status, counts[status]) for status in ("completed", "failed", "pending", "undone"))
    return " ".join(
        f'<span class="fd-nowrap">{state_of(word).sign} {count}</span>' for word, count in shown if count
    )


def _last(frame: Frame) -> str:
    steps = [*frame.last, *list(frame.running.values())[:LAST]]
    rows = "".join(
        f'<tr data-step-key="{attribute(step.key)}" data-status="{step.status}"><td>{badge(_word(step))}</td>'
        f"<td>{safe(short_name(step.path), 60)}(<code>{safe(step.args, 80)}</code>)</td>"
        f"<td><code>{safe(error_lines(step.preview)[0], 80)}</code></td></tr>"
        for step in steps
    )
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def _word(step: Step) -> str:
    return "running" if step.status is StepStatus.PENDING else str(step.status)
