"""The steps of a run as a tree: a step called inside another one stands below it.

Records name their scope: empty for the run itself, the key of the enclosing step, or the name of a branch. An
enclosing step that has not ended may have no record yet; it gets a place of its own, so that what it did
stands below it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen
from rich.cells import cell_len

from flowdsl.cli.output import GAP, Cell, Column, Output, status_cell
from flowdsl.cli.text import STYLES, clean, cut_end, moment, span
from flowdsl.core.kinds import WITH_BODY
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus, is_final
from flowdsl.core.views import extra_of, scope_owner, step_span

__all__ = ["Node", "forest", "pending_text", "print_steps", "step_name"]

_VERBS = "flowdsl."  # paths of calls that have no body of the user's
_DIGITS = 8  # of a key, at least, so that a key looks the same wherever it is shown


@frozen(slots=True)
class Node:
    """One line of the tree: the lines drawn in front of it and in front of what stands below it, and its
    step; ``None`` for one that has no record, of which only the key is known.
    """

    lead: str
    below: str
    key: str
    step: Step | None


def forest(steps: Sequence[Step], ended: bool = False) -> list[Node]:
    """Order *steps* by the time they began, each followed by those called inside it.

    Where no step is recorded for a scope, it is a branch, or, unless the run has *ended*, the body of a step
    that is executing or was; then there is a place for it.

    >>> inner = Step("r", "b", "shop.check", scope="a", created_at=2.0)
    >>> [node.lead for node in forest([inner, Step("r", "a", "shop.reserve", created_at=1.0)])]
    ['', '└ ']
    """
    inside: dict[str, list[Step]] = defaultdict(list)
    recorded = {step.key for step in steps}
    for step in sorted(steps, key=lambda step: (step.created_at, step.seq)):
        owner = scope_owner(step.scope, recorded) if step.scope else ""
        inside[("" if ended else step.scope) if owner is None else owner].append(step)
    roots: list[tuple[str, Step | None]] = [(step.key, step) for step in inside[""]]
    roots += [(scope, None) for scope in inside if scope and scope not in recorded]
    roots.sort(key=lambda root: root[1].created_at if root[1] else inside[root[0]][0].created_at)
    found: list[Node] = []
    for key, root in roots:
        found.append(Node("", "│ " if inside.get(key) else "", key, root))
        found += _within(key, "", inside)
    return found


def _within(scope: str, lead: str, inside: Mapping[str, list[Step]]) -> Iterator[Node]:
    steps = inside.get(scope, [])
    for number, step in enumerate(steps, 1):
        last = number == len(steps)
        further = lead + ("  " if last else "│ ")
        deeper = further + ("│ " if inside.get(step.key) else "")
        yield Node(lead + ("└ " if last else "├ "), deeper, step.key, step)
        yield from _within(step.key, further, inside)


# --------------------------------------------------------------------------------------------------- printing


@frozen(slots=True)
class Shown:
    """What is printed of one step, whatever the layout."""

    node: Node
    name: str
    status: str
    attempts: str = ""
    took: str = ""
    args: str = ""
    result: str = ""
    style: str = ""


def print_steps(out: Output, run: Run, steps: Sequence[Step], children: Sequence[Run]) -> None:
    """Print the steps of *run* as a tree; *children* are the runs that it called."""
    if not steps:
        out.heading("steps", "none recorded")
        return
    counts = Counter(str(step.status) for step in steps)
    out.heading("steps", ", ".join(f"{count} {status}" for status, count in counts.items()))
    home = run.workflow.rpartition(".")[0] + "."
    by_id = {child.id: child for child in children}
    shown = [_shown(node, home, by_id) for node in forest(steps, is_final(run.status))]
    digits = _digits([node.node.key for node in shown])
    columns = (*_FACTS, Column("arguments", (30, 20, 8)), Column("result", (30, 20, 8)))
    rows = [[*_facts(row, digits), row.args, (row.result, row.style)] for row in shown]
    if out.narrow and not out.fits(columns, rows, indent=2):
        _print_stacked(out, shown, digits)
    else:
        out.table(columns, rows, indent=2)


def _shown(node: Node, home: str, children: Mapping[str, Run]) -> Shown:
    step = node.step
    if step is None:
        return Shown(node, "?", "pending", args="(no record yet: a branch, or a body that was executing)")
    took, result = step_span(step), step.preview
    child = children.get(str(extra_of(step).get("child", "")))
    if child is not None:  # the record of a child is a copy of its outcome: the time is in the child
        took = None if child.finished_at is None else max(child.finished_at - child.created_at, 0.0)
    name = step_name(step, home)
    if step.status is StepStatus.PENDING:
        result = pending_text(step)
    style = STYLES["failed"] if step.status is StepStatus.FAILED else ""
    return Shown(node, name, str(step.status), str(step.attempts), span(took), step.args, result, style)


def step_name(step: Step, home: str) -> str:
    """How a step is called among those of its run, whose module's name with a dot is *home*."""
    if step.path.startswith(_VERBS):
        return step.path.removeprefix(_VERBS).replace("schedule." + home, "schedule.")
    kind = f" ({step.kind})" if step.kind not in WITH_BODY else ""
    return step.path.removeprefix(home) + kind


def pending_text(step: Step, executing: bool = False) -> str:
    """What is known of a step that has a record but no outcome; *executing*: somebody executes the run."""
    extra = extra_of(step)
    wake_at = extra.get("next")
    if isinstance(wake_at, int | float):
        return f"tried again at {moment(wake_at)}, after {extra.get('error', 'a failure')}"
    until, deadline = extra.get("until"), extra.get("deadline")
    if isinstance(until, int | float):
        return f"until {moment(until)}"
    if isinstance(deadline, int | float):
        return f"at most until {moment(deadline)}"
    if extra.get("intent") and not executing:
        return "was executing; whether it took effect is not known"
    return step.preview


def _digits(keys: Sequence[str]) -> int:
    """How many digits tell these keys apart."""
    different = {key.partition("/")[0] for key in keys}  # behind the slash: that it is the undo of this step
    digits = _DIGITS
    while digits < 40 and len({key[:digits] for key in different}) < len(different):
        digits += 1
    return digits


_FACTS = (
    Column("key"),
    Column("step", (99, 24, 12)),
    Column("state"),
    Column("tries", right=True),
    Column("duration", right=True),
)


def _facts(row: Shown, digits: int) -> list[Cell]:
    key = (row.node.key[:digits], "dim")
    return [key, row.node.lead + row.name, status_cell(row.status), row.attempts, row.took]


def _print_stacked(out: Output, shown: Sequence[Shown], digits: int) -> None:
    """For terminals too narrow for all columns: what went in and came out stands below each step."""
    indent = " " * (2 + digits + GAP)
    below: list[list[list[Cell]]] = []
    for row in shown:
        lead: Cell = (indent + row.node.below, "")
        room = max((out.width or 80) - cell_len(lead[0]), 16)
        args, result = clean(row.args), clean(row.result)
        arrow = "→ " if result else ""
        if cell_len(f"{args} {arrow}{result}") <= room:
            both: list[list[Cell]] = [[lead, (args + " " if args else "", "dim"), arrow, (result, row.style)]]
            below.append(both if args or result else [])
        else:
            apart: list[list[Cell]] = [
                [lead, (cut_end(args, room), "dim")],
                [lead, arrow, (cut_end(result, room - 2), row.style)],
            ]
            below.append([line for line, text in zip(apart, (args, result), strict=True) if text])
    out.table(_FACTS, [_facts(row, digits) for row in shown], indent=2, below=below)
