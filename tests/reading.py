"""Reads the sources and the tests as syntax trees, and prints what ``test_house.py`` does not allow.

It is a process of its own: after a syntax tree that was too deep, Python 3.11 cannot parse any more, and some
tests make such trees.
"""

import ast
import gc
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
LIBRARY = TESTS.parent / "flowdsl"
ENGINE = LIBRARY / "engine"
LONGEST = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Trees = dict[Path, ast.Module]


def parsed(paths: Iterable[Path]) -> Trees:
    """The syntax trees of files."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def nodes(trees: Trees, kind: Any) -> Iterator[tuple[str, Any]]:
    """All nodes of a kind, each with its place."""
    for path, tree in trees.items():
        for node in walked(tree):
            if isinstance(node, kind):
                yield f"{path.parent.name}/{path.name}:{getattr(node, 'lineno', 1)}", node


@cache
def walked(tree: ast.Module) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(tree))


def long_functions(code: Trees) -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for place, node in nodes(code, Function):
        if node.end_lineno - node.lineno >= LONGEST:
            yield f"{place} {node.name} is longer than {LONGEST} lines"


def long_modules(code: Trees) -> Iterator[str]:
    """Modules of the library that hold more than one idea."""
    for path in code:
        if LIBRARY in path.parents and len(lines_of(path)) > 400:
            yield f"{path.parent.name}/{path.name} is longer than 400 lines: cut it where its idea ends"


def patched_modules(code: Trees) -> Iterator[str]:
    """Where a module of the library changes a name in another one."""
    for path, tree in code.items():
        ours = {
            alias.asname or alias.name
            for node in walked(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowdsl")
            for alias in node.names
            if module_of(str(node.module), alias.name).exists()
        }
        for place, node in nodes({path: tree}, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if isinstance(node.ctx, ast.Store | ast.Del) and of in ours:
                yield f"{place} patches {ast.unparse(node)}: ask for a seam instead"


TRICKS = {
    "_getframe": {"callsite.py", "classmethods.py", "user_code.py"},
    "exec": {"quick_bind.py", "shapes.py"},
    "eval": set(),
    "get_referrers": {"living.py"},
    "setprofile": {"causes.py"},
    "settrace": set(),
    "_current_frames": set(),
}
"""What no reader expects, and the modules that use it all the same. ``docs/internals.md`` says why."""


def tricks(code: Trees) -> Iterator[str]:
    """Where the library uses a trick that the page for developers does not name."""
    for place, node in nodes(
        {path: tree for path, tree in code.items() if LIBRARY in path.parents}, ast.Call
    ):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in TRICKS and place.rpartition("/")[2].partition(":")[0] not in TRICKS[name]:
            yield f"{place} calls {name}: find a plainer way, or say why in docs/internals.md"


def module_of(package: str, name: str) -> Path:
    """The file that ``from package import name`` would import, if *name* is a module."""
    return LIBRARY.parent.joinpath(*package.split("."), f"{name}.py")


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


def blanket_excepts(code: Trees) -> Iterator[str]:
    """Where anything is caught, and no comment beside it says why."""
    for place, node in nodes(code, ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {"" if kind is None else ast.unparse(kind) for kind in kinds}
        if names & {"", "Exception", "BaseException"} and "#" not in line_of(code, place):
            yield f"{place} catches everything: say why in a comment beside it, or catch less"


def unexplained_types(engine: Trees) -> Iterator[str]:
    """Where the engine gives up a type, and no comment beside it says why; ``user.py`` is what it leaves to
    users."""
    found = {
        place for place, node in nodes(engine, ast.Name) if node.id == "Any" and "/user.py:" not in place
    }
    for place in sorted(found):
        if "#" not in line_of(engine, place):
            yield f"{place} says Any: name the type, or say why in a comment beside it"
    if len(found) > 30:
        yield f"the engine says Any at {len(found)} places"


NOT_OURS = {
    "sys.stdout",
    "sys.stderr",
    "thread.name",
    "connection.prepare_threshold",
    "error.args",
    "record.args",
    "record.step",
    "record.run_id",
}
"""What is set of objects of Python or of other libraries, although a class of ours has such an attribute too.
(``record`` is one of the log.)"""


def foreign_attributes(code: Trees) -> Iterator[str]:
    """Where the library sets an attribute of an object whose class stands in another of its modules. An error
    may be told its ``run`` and ``step`` everywhere: they say where it belongs."""
    own = {path: set(members(tree)) for path, tree in code.items() if LIBRARY in path.parents}
    ours = set[str]().union(*own.values())
    for path in own:
        for place, node in nodes({path: code[path]}, ast.Attribute):
            if not isinstance(node.ctx, ast.Store | ast.Del) or node.attr not in ours - own[path]:
                continue
            of, what = ast.unparse(node.value), ast.unparse(node)
            dunder = node.attr.startswith("__")
            told = of in ("error", "fault") and node.attr in ("run", "step")
            if of not in ("self", "cls") and not dunder and not told and what not in NOT_OURS:
                yield f"{place} sets {what}, which belongs to a class of another module"


def members(tree: ast.Module) -> Iterator[str]:
    """Names of the attributes that the classes of a module have."""
    for node in walked(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def line_of(trees: Trees, place: str) -> str:
    """The line at a place."""
    name, _, number = place.rpartition(":")
    return lines_of(next(path for path in trees if str(path).endswith(f"/{name}")))[int(number) - 1]


@cache
def lines_of(path: Path) -> list[str]:
    """The lines of a file."""
    return path.read_text(encoding="utf-8").splitlines()


def long_files(paths: Iterable[Path]) -> Iterator[str]:
    """Files of tests that are too long to be read."""
    for path in paths:
        if len(path.read_text(encoding="utf-8").splitlines()) > 600:
            yield f"{path.parent.name}/{path.name} is longer than 600 lines"


if __name__ == "__main__":
    gc.disable()  # of millions of nodes, all are kept
    code = parsed([*(TESTS.parent / "flowdsl").rglob("*.py"), *(TESTS.parent / "examples").glob("*.py")])
    files = list(TESTS.rglob("test_*.py"))
    tests = parsed(files)
    engine = {path: tree for path, tree in code.items() if ENGINE in path.parents}
    for found in (
        *long_functions(code),
        *long_modules(code),
        *patched_modules(code),
        *tricks(code),
        *blanket_excepts(code),
        *unexplained_types(engine),
        *foreign_attributes(code),
        *silent_tests(tests),
        *sleeps(tests),
        *long_files(files),
    ):
        print(found)
