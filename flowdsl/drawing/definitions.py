"""Decorated functions and futures as HTML.

A workflow shows the steps that its newest run recorded, and compares them with the present code: ``same``,
``changed`` (the source is different now) or ``gone`` (no step of that name is defined here).
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from flowdsl.core.records import Run, Step
from flowdsl.core.source import SOURCE, changed_source
from flowdsl.drawing.lists import runs_table
from flowdsl.drawing.run import card, run_line, short_name
from flowdsl.drawing.style import attribute, badge, safe

__all__ = [
    "FunctionView",
    "changed_html",
    "changed_text",
    "future_html",
    "match_of",
    "step_html",
    "workflow_html",
]

MOST = 60
"""How many records are shown one by one. If there are more, there is one row for each name."""


@frozen(slots=True)
class FunctionView:
    """A decorated function as it is shown: its *signature*, such as ``charge(order)``, the first line of its
    *doc*, and the *options* that are not the default, as text by name."""

    kind: str
    path: str
    signature: str
    doc: str
    options: Mapping[str, str]


def match_of(step: Step, sources: Mapping[str, str]) -> str:
    """Compare *step* with what is defined now: ``same``, ``changed`` or ``gone``.

    *sources* are the digests of the steps that are defined now, by path. Digests of different Python versions
    cannot be compared, and count as ``same``.

    >>> match_of(Step("r", "a", "shop.charge", defaults="@=311.aa"), {"shop.charge": "311.bb"})
    'changed'
    """
    now = sources.get(step.path)
    if now is None:
        return "gone"
    return "changed" if changed_source(step.defaults, f"{SOURCE}={now}") else "same"


def step_html(step: FunctionView, runs: Sequence[tuple[Run, str]], now: float) -> str:
    """Show a step, and its *runs* that ``rt.do`` started."""
    parts = [_head(step)]
    if runs:
        parts.append(f"<div>executed by itself (<code>rt.do</code>)</div>{runs_table(runs, now)}")
    return card("".join(parts))


def workflow_html(
    workflow: FunctionView,
    newest: tuple[Run, str] | None,
    journal: Sequence[Step],
    sources: Mapping[str, str],
    now: float,
) -> str:
    """Show a workflow, its *newest* run with its state, and how the steps in its *journal* match
    *sources*."""
    if newest is None:
        return card(_head(workflow) + '<div class="fd-quiet">no run is recorded</div>')
    run, state = newest
    return card(_head(workflow) + run_line(run, state, now) + _matches(run, journal, sources), run, state)


def future_html(path: str, status: str, run_id: str, key: str) -> str:
    """Show the future of a submitted step, without asking for its result."""
    about = f' data-run-id="{attribute(run_id)}"' if run_id else ""
    of = f' <span class="fd-quiet">of run <code>{safe(run_id, 100)}</code></span>' if run_id else ""
    return card(
        f'<div class="fd-head" data-step-key="{attribute(key)}" data-status="{safe(status)}"{about}>'
        f"{badge(status)} <b>{safe(short_name(path))}</b>{of}</div>"
    )


def changed_html(found: Mapping[str, str]) -> str:
    """Say which steps were recorded before their code was changed. *found* has the newest such run, by
    path."""
    rows = "".join(
        f'<tr data-match="changed"><td><b>{safe(short_name(path), 60)}</b></td>'
        f"<td>run <code>{safe(run_id, 80)}</code> recorded it before its code was changed</td></tr>"
        for path, run_id in list(found.items())[:MOST]
    )
    path, run_id = next(iter(found.items()))
    return card(f"<table><tbody>{rows}</tbody></table>{_how(run_id, path)}")


def changed_text(found: Mapping[str, str]) -> str:
    """The same as :func:`changed_html`, as text."""
    names = ", ".join(short_name(path) for path in found)
    path, run_id = next(iter(found.items()))
    return (
        f"recorded before its code was changed: {names}. A run that continues takes what is recorded; "
        f"to execute it again: rt.fork({run_id!r}, before={path!r}), or {short_name(path)}.forget(…)"
    )


# ------------------------------------------------------------------------------------------------------ parts


def _head(one: FunctionView) -> str:
    doc = f"<div>{safe(one.doc, 300)}</div>" if one.doc else ""
    options = ", ".join(f"{name}={text}" for name, text in one.options.items())
    shown = f" · <code>{safe(options, 300)}</code>" if options else ""
    return (
        f'<div class="fd-head"><span class="fd-quiet">{one.kind}</span> '
        f"<b><code>{safe(one.signature)}</code></b></div>"
        f'{doc}<div class="fd-quiet"><code>{safe(one.path)}</code>{shown}</div>'
    )


def _matches(run: Run, journal: Sequence[Step], sources: Mapping[str, str]) -> str:
    steps = [step for step in journal if step.kind == "step"]
    if not steps:
        return '<div class="fd-quiet">its newest run has recorded no step</div>'
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.path] = counts.get(step.path, 0) + 1
    grouped = len(steps) > MOST
    shown = list({step.path: step for step in steps}.values())[:MOST] if grouped else steps
    rows = "".join(
        _match_row(step, match_of(step, sources), counts[step.path] if grouped else 1) for step in shown
    )
    changed = [path for path in counts if match_of_path(path, steps, sources) == "changed"]
    return f"<table><tbody>{rows}</tbody></table>{_again(run, changed)}"


def match_of_path(path: str, steps: Sequence[Step], sources: Mapping[str, str]) -> str:
    """How the last record of *path* matches the present code."""
    return match_of(next(step for step in reversed(steps) if step.path == path), sources)


_WORDS = {
    "same": "as it is now",
    "changed": "recorded before its code was changed",
    "gone": "not defined here now",
}


def _match_row(step: Step, match: str, count: int) -> str:
    times = f" × {count}" if count > 1 else ""
    strong = "b" if match == "changed" else "span"
    return (
        f'<tr data-step-key="{attribute(step.key)}" data-match="{match}" data-status="{step.status}">'
        f"<td>{safe(short_name(step.path), 60)}{times}</td><td>{badge(str(step.status))}</td>"
        f"<td><{strong}>{_WORDS[match]}</{strong}></td></tr>"
    )


def _again(run: Run, changed: Sequence[str]) -> str:
    return _how(run.id, changed[0]) if changed else ""


def _how(run_id: str, path: str) -> str:
    """How to execute a changed step again. Until then its recorded results count."""
    return (
        '<div class="fd-quiet">A run that continues takes what is recorded. To execute a changed step again: '
        f"<code>rt.fork({safe(repr(run_id))}, before={safe(repr(path))})</code> begins a new run there, "
        f"<code>{safe(short_name(path))}.forget(…)</code> drops one result, and <code>version=</code> makes "
        "every change count.</div>"
    )
