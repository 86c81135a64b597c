"""The house: what holds for all modules and all tests. (Who may import whom, import-linter holds.)"""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import flowdsl

TESTS = Path(__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(flowdsl.__path__, "flowdsl."))
LONGEST = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    """All functions of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def found_tests(path: Path) -> list[Function]:
    """The test functions of a file."""
    return [node for node in functions(path) if node.name.startswith("test")]


def test_the_package_exports_its_public_names_and_nothing_else() -> None:
    """``flowdsl.__all__`` is sorted and lists exactly what stands in ``flowdsl/__init__.py``."""
    public = {
        name
        for name, value in vars(flowdsl).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert sorted(public) == flowdsl.__all__


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_exports_names_that_it_has(name: str) -> None:
    """Every name in a module's ``__all__`` exists, once."""
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    assert not [one for one in exported if not hasattr(module, one)]


def test_importing_flowdsl_imports_no_face_and_no_optional_library() -> None:
    """click and rich come with the command line, numpy and its kin when they are used."""
    unwanted = "click rich pytest numpy pandas polars cryptography flowdsl.cli flowdsl.testing"
    code = f"import sys, flowdsl; print(*sorted(set({unwanted.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_functions_fit_on_a_screen() -> None:
    """No function of the library or the examples is longer than sixty lines."""
    library = Path(flowdsl.__file__).parent
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in [*library.rglob("*.py"), *(TESTS.parent / "examples").glob("*.py")]
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= LONGEST
    ]
    assert not long


def test_every_test_says_what_it_shows() -> None:
    """Every test has a docstring that begins with one sentence."""
    silent = []
    for path in TESTS.rglob("test_*.py"):
        for node in found_tests(path):
            said = (ast.get_docstring(node) or "").partition("\n\n")[0].strip()
            if not said.endswith((".", "!", "?")):
                silent.append(f"{path.relative_to(TESTS)}:{node.lineno} {node.name}")
    assert not silent


def test_no_test_sleeps() -> None:
    """Tests pass their time in, or wait for what they wait for."""
    sleeping = []
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
                sleeping.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert not sleeping
