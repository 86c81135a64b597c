"""The house: what holds for all modules and all tests. (Who may import whom, import-linter holds.)"""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import flowdsl

TESTS = Path(__file__).parent
LIBRARY = Path(flowdsl.__file__).parent
NO_MODULE = {  # whom a test is about that is about no module
    "laws": "every program",
    "cli/test_docs.py": "every command, and its page",
    "cli/test_faults.py": "every command, on bad ground",
    "cli/test_json.py": "every command's documents",
    "cli/test_refused.py": "every command that meets a refused record",
    "cli/test_unpickling.py": "every command that executes no code",
    "notebook/test_example_notebooks.py": "the notebooks among the examples",
    "notebook/test_identity.py": "a kernel, its cells and its runs",
    "test_bad_input.py": "every public call",
    "test_canary.py": "every place that people read",
    "test_house.py": "every module and every test",
    "test_logging.py": "every line of the log",
    "test_public_names.py": "every public name",
    "test_recipes.py": "what the recipes show beside Python",
    "test_traps.py": "faults of other libraries",
}
MODULES = sorted(module.name for module in pkgutil.walk_packages(flowdsl.__path__, "flowdsl."))


def test_the_package_exports_its_public_names_and_nothing_else() -> None:
    """``flowdsl.__all__`` is sorted, and lists exactly the public names of ``flowdsl/__init__.py``."""
    public = {
        name
        for name in dir(flowdsl)
        if not name.startswith("_") and not isinstance(getattr(flowdsl, name), ModuleType)
    }
    assert sorted(public) == flowdsl.__all__


def test_names_of_the_package_are_found_where_type_checkers_look_for_them() -> None:
    """The names that are imported on first use are those that type checkers see."""
    tree = ast.parse(Path(flowdsl.__file__).read_text(encoding="utf-8"))
    homes = {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowdsl.")
        for name in node.names
    }
    assert sorted(homes) == flowdsl.__all__
    for name, home in homes.items():
        assert getattr(flowdsl, name) is getattr(importlib.import_module(str(home)), name)


def test_importing_flowdsl_imports_what_is_used() -> None:
    """A module is imported on first use of its name, and an unknown name is an error."""
    code = """
        import sys, flowdsl
        assert "flowdsl.core" not in sys.modules and "asyncio" not in sys.modules
        assert flowdsl.errors.FlowError and "flowdsl.core" not in sys.modules
        assert flowdsl.Retry(attempts=2) and "flowdsl.engine" not in sys.modules
        print(hasattr(flowdsl, "nothing"), flowdsl.step.__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "step"]


def test_a_program_of_steps_imports_nothing_that_it_may_never_use() -> None:
    """What a program with steps and workflows may never use is imported on first use: it starts the sooner."""
    unwanted = (
        "flowdsl.codecs.encrypted flowdsl.codecs.json flowdsl.codecs.typed_json flowdsl.storage.memory "
        "flowdsl.storage.sqlite flowdsl.declared flowdsl.engine.processes flowdsl.engine.runs.fork "
        "flowdsl.engine.runs.schedules flowdsl.engine.runs.stream flowdsl.engine.runs.worker cloudpickle decimal "
        "difflib zoneinfo"
    )
    code = "import sys; from flowdsl import Runtime, step, workflow; "
    code += f"print(*sorted(set({unwanted.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_exports_names_that_it_has(name: str) -> None:
    """Every name in a module's ``__all__`` exists, once."""
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    assert not [one for one in exported if not hasattr(module, one)]


def test_importing_flowdsl_imports_no_face_and_no_optional_library() -> None:
    """``import flowdsl`` imports neither click, rich nor numpy."""
    unwanted = (
        "click rich pytest numpy pandas polars cryptography flowdsl.cli flowdsl.testing flowdsl.web starlette "
        "uvicorn jinja2 flowdsl.notebook IPython matplotlib flowdsl.drawing.run flowdsl.contrib.otel opentelemetry"
    )
    code = "import sys; from flowdsl import *; "
    code += f"print(*sorted(set({unwanted.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_context_manager_of_ours_is_made_by_contextlib() -> None:
    """No context manager of ours comes from contextlib, which would set the traceback of the user's
    exception."""
    found = [
        str(file)
        for file in LIBRARY.rglob("*.py")
        if re.search(r"@(contextlib\.)?contextmanager", file.read_text()) and file.name != "server.py"
    ]
    assert not found  # the web server's overrides a method of uvicorn, through which no run goes


def test_sources_and_tests_can_be_read() -> None:
    """Functions, modules and files of tests have an end. Every test says in one sentence what it shows; none sleeps.

    A blanket ``except`` says why, and so does the engine where it gives up a type. No module sets an attribute of a
    class that another module defines, or changes a name in another one.
    """
    done = subprocess.run([sys.executable, TESTS / "reading.py"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == []


def homes(folder: Path) -> set[str]:
    """The names that a test in this folder may begin with: modules and packages of the same folder of flowdsl, what
    is beside the test, and for the tests at the top what stands beside flowdsl."""
    places = [LIBRARY / folder, LIBRARY / "testing" / folder, TESTS / folder]
    if folder == Path():
        places += [TESTS.parent, TESTS.parent / "docs"]
    names = {path.stem.lstrip("_") for place in places for path in place.glob("[!.]*")}
    return {folder.name, *names} - {""}


def test_a_test_file_says_which_module_it_tests() -> None:
    """A test file is called ``test_<module>.py`` or ``test_<module>_<topic>.py``, in the folder of the module."""
    unnamed = set()
    for path in TESTS.rglob("test_*.py"):
        place, name = path.relative_to(TESTS), path.stem.removeprefix("test_")
        if not any(f"{name}_".startswith(f"{home}_") for home in homes(place.parent)):
            unnamed.add(
                place.as_posix() if place.parent.as_posix() not in NO_MODULE else place.parent.as_posix()
            )
    assert unnamed == set(NO_MODULE)


def test_the_modules_of_the_public_api_come_with_the_package() -> None:
    """``import flowdsl`` is enough for ``flowdsl.aio.sleep``, and rarely used modules are imported on first
    use."""
    code = "import flowdsl as f; print(f.aio.sleep, f.errors.FlowError, f.storage.Storage, f.codecs.Signed)"
    code += "; print(f.testing.VirtualClock); f.nonsense"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'flowdsl' has no attribute 'nonsense'" in done.stderr
    assert "VirtualClock" in done.stdout
