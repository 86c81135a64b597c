"""The steps of a run as a tree. A step that was called inside another one is below it.

Records name their scope: empty for the run itself, the key of the enclosing step, or the name of a branch. An
enclosing step that has not ended may have no record yet. It gets a placeholder, and its inner steps are below
that.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from attrs import frozen

from flowdsl.cli._output import HIDDEN, Cell, Column, Output, status_cell
from flowdsl.core.kinds import WITH_BODY
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.views import extra_of, scope_owner, whole_span
from flowdsl.core.words import moment, short_path, span, state_of

__all__ = ["Node", "counted", "error_facts", "forest", "pending_text", "print_steps", "step_name"]

_DIGITS = 8  # of a key, at least, so that a key looks the same wherever it is shown


@frozen(slots=True)
class Node:
    """One line of the tree. *lead* is drawn in front of it. *step* is ``None`` for a step without a record,
    of which only the key is known.
    """

    lead: str
    key: str
    step: Step | None


def forest(steps: Sequence[Step], ended: bool = False) -> list[Node]:
    """Order *steps* by the time when they began. Each is followed by the steps that were called inside it.

    A scope without a recorded step is a branch, or the body of a step that is or was executing. Such a scope
    gets a placeholder, unless the run has *ended*.

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
    roots.sort(key=lambda root: (root[1] or inside[root[0]][0]).created_at)
    found: list[Node] = []
    # What is still to come, the next one last. There is no recursion, because steps may be nested deeply.
    waiting: list[tuple[str, str, str, Step | None]] = [("", "", *root) for root in reversed(roots)]
    while waiting:
        lead, further, key, root = waiting.pop()
        found.append(Node(lead, key, root))
        within = inside.get(key, [])
        for number in range(len(within), 0, -1):
            last = number == len(within)
            inner = within[number - 1]
            below = further + ("  " if last else "│ ")
            waiting.append((further + ("└ " if last else "├ "), below, inner.key, inner))
    return found


# --------------------------------------------------------------------------------------------------- printing


def print_steps(out: Output, run: Run, nodes: Sequence[Node], children: Sequence[Run]) -> None:
    """Print the steps of *run* as a tree; *children* are the runs that it called."""
    home = run.workflow.rpartition(".")[0] + "."
    by_id = {child.id: child for child in children}
    digits = _digits([node.key for node in nodes])
    columns = (
        Column("key", wide=76),
        Column("step", least=14),
        Column("state"),
        Column("tries", wide=120, right=True),
        Column("duration" if not out.narrower(76) else "took", right=True),
        Column("arguments", least=10, wide=100),
        Column("result" if not out.narrower(100) else "outcome", least=10),
    )
    out.table(columns, [_row(node, home, digits, by_id, out.narrower(100)) for node in nodes], indent=2)


def _row(node: Node, home: str, digits: int, children: Mapping[str, Run], short: bool) -> list[Cell]:
    key: Cell = (node.key[:digits], "dim")
    step = node.step
    if step is None:
        unknown = "(no record yet: a branch, or a body that was executing)"
        return [key, node.lead + "?", status_cell("pending"), "", "", "", (unknown, "dim")]
    took, result = whole_span(step), error_lines(step.preview)[0] or HIDDEN
    child = children.get(str(extra_of(step).get("child", "")))
    if child is not None:  # the record holds only the child's outcome; its time is in the child
        took = None if child.finished_at is None else max(child.finished_at - child.created_at, 0.0)
    if step.status is StepStatus.PENDING:
        result = pending_text(step)
    if short and step.args:
        result = f"{step.args} → {result}" if result else step.args
    style = state_of("failed").colour if step.status is StepStatus.FAILED else ""
    facts = [status_cell(str(step.status)), str(step.attempts), span(took)]
    return [key, node.lead + step_name(step, home), *facts, step.args, (result, style)]


def error_facts(shown: str, style: str) -> list[tuple[str, Cell]]:
    """The stored parts of an error: type and text, then the user's line."""
    text, where, source = error_lines(shown)
    facts: list[tuple[str, Cell]] = [("error", (text, style))]
    if where:
        facts.append(("at", f"{where}: {source}" if source else where))
    return facts


def counted(steps: Sequence[Step]) -> str:
    """How many steps there are of each status."""
    counts = Counter(str(step.status) for step in steps)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def step_name(step: Step, home: str) -> str:
    """The short name of a step. *home* is the name of the run's module with a dot."""
    kind = f" ({step.kind})" if step.kind not in WITH_BODY and not step.path.startswith("flowdsl.") else ""
    return short_path(step.path, home) + kind


def pending_text(step: Step, executing: bool = False) -> str:
    """Describe a step that has a record but no outcome. *executing*: somebody executes the run."""
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
    different = {key.partition("/")[0] for key in keys}  # `KEY/undo/…` is the undo of a step
    digits = _DIGITS
    while digits < 40 and len({key[:digits] for key in different}) < len(different):
        digits += 1
    return digits
