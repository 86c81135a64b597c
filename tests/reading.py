"""Reads the sources and the tests as syntax trees, and prints what ``test_house.py`` does not allow.

It is a process of its own, because Python 3.11 cannot parse any more once a syntax tree was too deep for it, and some
tests show what becomes of such a one.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
LONGEST = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Trees = dict[Path, ast.Module]


def parsed(paths: Iterable[Path]) -> Trees:
    """The syntax trees of files."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def nodes(trees: Trees, kind: Any) -> Iterator[tuple[str, Any]]:
    """All nodes of a kind, each with its place."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{path.parent.name}/{path.name}:{getattr(node, 'lineno', 1)}", node


def long_functions(code: Trees) -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for place, node in nodes(code, Function):
        if node.end_lineno - node.lineno >= LONGEST:
            yield f"{place} {node.name} is longer than {LONGEST} lines"


def silent_tests(tests: Trees) -> Iterator[str]:
    """Tests whose docstring does not begin with a sentence."""
    for place, node in nodes(tests, ast.Module | ast.ClassDef):
        for test in node.body:
            if isinstance(test, Function) and test.name.startswith("test"):
                said = (ast.get_docstring(test) or "").partition("\n\n")[0].rstrip(")\n ")
                if not said.endswith((".", "!", "?")):
                    yield f"{place} {test.name} does not say what it shows"


def sleeps(tests: Trees) -> Iterator[str]:
    """Where a test sleeps."""
    for place, node in nodes(tests, ast.Call):
        if ast.unparse(node.func) == "time.sleep":
            yield f"{place} sleeps"


def long_files(paths: Iterable[Path]) -> Iterator[str]:
    """Files of tests that are too long to be read."""
    for path in paths:
        if len(path.read_text(encoding="utf-8").splitlines()) > 600:
            yield f"{path.parent.name}/{path.name} is longer than 600 lines"


if __name__ == "__main__":
    code = parsed([*(TESTS.parent / "flowdsl").rglob("*.py"), *(TESTS.parent / "examples").glob("*.py")])
    files = list(TESTS.rglob("test_*.py"))
    tests = parsed(files)
    for found in (*long_functions(code), *silent_tests(tests), *sleeps(tests), *long_files(files)):
        print(found)
