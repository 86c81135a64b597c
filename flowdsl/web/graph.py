"""The graph of calls: the workflow is on the left, and each step is to the right of its callers."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from attrs import frozen

from flowdsl.web.parts import Calls
from flowdsl.web.rendering import step_name

__all__ = ["Edge", "Graph", "Node", "graph_of"]

MOST = 40
"""A picture of more nodes is unreadable; then only the table is shown."""

_HIGH, _ROW, _GAP = 28, 44, 110  # pixels: height of a box, distance of rows, gap between columns
_CHAR, _PAD = 7.4, 22


@frozen
class Node:
    """A box with a name."""

    x: int
    y: int
    width: int
    name: str
    path: str


@frozen
class Edge:
    """An arrow, and the label at its end."""

    path: str
    x: int
    y: int
    text: str
    failed: bool


@frozen
class Graph:
    """Boxes and arrows, and the size of the picture."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    width: int
    height: int
    high: int = _HIGH


def graph_of(calls: Sequence[Calls], workflow: str, home: str) -> Graph | None:
    """Lay out *calls* of a run of *workflow*; ``None`` if there are too many or none."""
    if not calls or len({one.callee for one in calls}) >= MOST:
        return None
    levels = _levels(calls, workflow)
    columns: dict[int, list[str]] = defaultdict(list)
    for path, level in levels.items():
        columns[level].append(path)
    nodes: dict[str, Node] = {}
    x = 1
    tallest = max(len(column) for column in columns.values())
    for level in sorted(columns):
        column = columns[level]
        names = [step_name(path, home) for path in column]
        width = int(max(map(len, names)) * _CHAR) + _PAD
        top = 1 + (tallest - len(column)) * _ROW // 2
        for place, (path, name) in enumerate(zip(column, names, strict=True)):
            nodes[path] = Node(x, top + place * _ROW, width, name, path)
        x += width + _GAP
    drawn: Counter[str] = Counter()
    edges = []
    for one in calls:
        if one.caller in nodes:
            edges.append(_edge(nodes[one.caller], nodes[one.callee], one, drawn[one.callee]))
            drawn[one.callee] += 1
    width = max(x - _GAP, *(edge.x for edge in edges)) + 2 if edges else x - _GAP + 2
    return Graph(tuple(nodes.values()), tuple(edges), width, tallest * _ROW - (_ROW - _HIGH) + 2)


def _levels(calls: Sequence[Calls], workflow: str) -> dict[str, int]:
    """The column of each box: to the right of all its callers, except for calls that lead back."""
    below: dict[str, list[str]] = defaultdict(list)
    for one in calls:
        below[one.caller].append(one.callee)
    levels = {workflow: 0}
    left = [(workflow, frozenset((workflow,)))]
    while left:
        path, above = left.pop()
        for callee in below[path]:
            if callee not in above and levels.get(callee, 0) <= levels[path]:
                levels[callee] = levels[path] + 1
                left.append((callee, above | {callee}))
    for one in calls:
        levels.setdefault(one.callee, 1)  # its caller is not in the picture
    return levels


def _edge(caller: Node, callee: Node, calls: Calls, before: int) -> Edge:
    """An arrow. *before*: how many other arrows lead to the same box; the more, the farther away is its
    label."""
    start, end = caller.x + caller.width, callee.x
    y1, y2 = caller.y + _HIGH // 2, callee.y + _HIGH // 2
    text = f"×{calls.count}" + (f", {calls.failed} failed" if calls.failed else "")
    if end <= start:  # a step that calls itself, or one left of it
        end = callee.x + callee.width
        path = f"M{start} {y1 - 8}C{start + 40} {y1 - 8} {end + 40} {y2 + 8} {end} {y2 + 8}"
        return Edge(path, end + 34 + int(len(text) * _CHAR), y2 + 4, text, calls.failed > 0)
    middle = (start + end) // 2
    path = f"M{start} {y1}C{middle} {y1} {middle} {y2} {end} {y2}"
    if not before:
        beside = y2 + 15 if y1 < y2 else y2 - 5  # on the side without the curve
        return Edge(path, end - 8, beside, text, calls.failed > 0)
    t = max(0.75 - 0.2 * before, 0.3)
    near = 3 * t * t - 2 * t * t * t  # how far down the curve is there
    across = 1.5 * t * (1 - t) + t * t * t  # and how far across
    x, y = start + across * (end - start), y1 + near * (y2 - y1)
    return Edge(path, int(x) + 12, int(y) + (13 if y1 > y2 else -5), text, calls.failed > 0)
