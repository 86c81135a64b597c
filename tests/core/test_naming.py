"""What ``__main__`` is called."""

import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from flowdsl.core.naming import counted_name, main_name, name_notebook, shown_file, unnamed_notebook


def as_main(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    main = types.ModuleType("__main__")
    main.__dict__.update(facts)
    monkeypatch.setitem(sys.modules, "__main__", main)


class Session:
    session = "ba127c1e-397a8ba64becba23566c9feb"


class Kernel:
    session = Session


class Shell:
    kernel = Kernel


class TerminalShell:
    pass


@pytest.fixture
def front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with ipykernel in which nobody has said which notebook it executes."""
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("flowdsl.core.naming._given", "")
    for variable in ("JPY_SESSION_NAME", "FLOWDSL_NOTEBOOK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("facts", "session", "expected"),
    [
        ({"__vsc_ipynb_file__": "/home/me/Sales.ipynb"}, None, "notebook:Sales.ipynb"),
        ({"__vsc_ipynb_file__": "c:\\Users\\me\\Sales.ipynb"}, None, "notebook:Sales.ipynb"),
        ({"get_ipython": Shell, "__session__": "work/Sales.ipynb"}, None, "notebook:Sales.ipynb"),
        ({"get_ipython": Shell}, "/home/me/Sales.ipynb", "notebook:Sales.ipynb"),
        ({"get_ipython": Shell}, "console-1-5ab3", "notebook:?caecad22fc34"),
        ({"get_ipython": Shell}, None, "notebook:?caecad22fc34"),
        ({"get_ipython": TerminalShell}, None, "__main__"),
    ],
)
@pytest.mark.usefixtures("front_end")
def test_notebooks_are_known_by_their_file(
    facts: Any, session: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook has the name of its file if the front end tells it, else a token of its kernel; a terminal
    has none."""
    if session:
        monkeypatch.setenv("JPY_SESSION_NAME", session)
    as_main(monkeypatch, **facts)
    assert main_name() == expected
    assert unnamed_notebook(main_name()) is ("?" in expected)


@pytest.mark.usefixtures("front_end")
def test_what_a_person_says_wins_over_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable wins over the name given in the notebook, and that over the file."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/Sales.ipynb")
    as_main(monkeypatch, get_ipython=Shell)
    assert counted_name("folder/sweep") == "sweep"
    name_notebook("folder/sweep")
    assert main_name() == "notebook:sweep"
    monkeypatch.setenv("FLOWDSL_NOTEBOOK", "/jobs/nightly.ipynb")
    assert main_name() == "notebook:nightly.ipynb"
    assert counted_name("other") == "nightly.ipynb"


@pytest.mark.usefixtures("front_end")
def test_a_name_is_for_notebooks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that inherits the variable keeps its own name."""
    monkeypatch.setenv("FLOWDSL_NOTEBOOK", "nightly")
    as_main(monkeypatch, __file__="/home/me/job.py")
    assert main_name() == "job"


@pytest.mark.parametrize("name", ["", "  ", "?", "/", None, 3])
@pytest.mark.usefixtures("front_end")
def test_an_empty_name_is_refused(name: Any) -> None:
    """An empty name is refused."""
    with pytest.raises(ValueError, match="non-empty"):
        name_notebook(name)


def test_a_cell_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the kernel made up for a cell does not count; any other file counts by its last part."""

    class Compiler:
        def format_code_name(self, name: str) -> tuple[str, str] | None:
            return ("Cell", "In[2]") if name == "/made/up/123.py" else None

    class Cells:
        compile = Compiler()

    as_main(monkeypatch, get_ipython=Cells)
    assert shown_file("/made/up/123.py") == "In[2]"
    assert shown_file("/home/me/shop.py") == "shop.py"
    as_main(monkeypatch)
    assert shown_file("/made/up/123.py") == "123.py"


@pytest.mark.usefixtures("front_end")
def test_two_kernels_have_two_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels have two tokens, whatever their directories."""
    as_main(monkeypatch, get_ipython=Shell)
    first = main_name()
    monkeypatch.setattr(Session, "session", "another")
    assert main_name() != first


def test_a_repl_stays_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A REPL stays ``__main__``, because no other process can import it."""
    as_main(monkeypatch)
    assert main_name() == "__main__"
    as_main(
        monkeypatch,
        __file__="/usr/lib/python3.13/_pyrepl/__main__.py",
        __spec__=ModuleSpec("_pyrepl.__main__", None),
    )
    assert main_name() == "__main__"


def test_a_profiled_script_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script under a profiler or debugger keeps the name of its file."""
    as_main(monkeypatch, __file__="/home/me/job.py", __spec__=ModuleSpec("__main__", None))
    assert main_name() == "job"


SCRIPT = """
from flowdsl.core.keys import object_path
from flowdsl.core.naming import main_name
def task(): ...
if __name__ == "__main__":
    print(main_name(), object_path(task))
"""

SPAWNING = """
import multiprocessing
from flowdsl.core.keys import object_path
class Result: ...
def work(queue):
    queue.put(object_path(Result))
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=work, args=(queue,))
    child.start()
    print(object_path(Result), queue.get())
    child.join()
"""


def run_python(*arguments: str, cwd: Path, stdin: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[:2]


@pytest.mark.parametrize(
    ("arguments", "stdin", "name"),
    [
        (["job.py"], "", "job"),
        (["pkg/mod.py"], "", "mod"),
        (["-m", "job"], "", "job"),
        (["-m", "pkg.mod"], "", "pkg.mod"),
        (["-m", "pkg"], "", "pkg.__main__"),
        (["-c", SCRIPT], "", "__main__"),
        (["-"], SCRIPT, "__main__"),
        ([], SCRIPT, "__main__"),
    ],
    ids=["script", "script in a folder", "-m", "-m dotted", "-m package", "-c", "-", "stdin"],
)
def test_main_is_known_by_what_was_started(
    arguments: list[str], stdin: str, name: str, tmp_path: Path
) -> None:
    """A script or module that is run has its import name; ``-c`` and stdin have none."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    for file in ("job.py", "pkg/mod.py", "pkg/__main__.py"):
        (tmp_path / file).write_text(SCRIPT)
    assert run_python(*arguments, cwd=tmp_path, stdin=stdin) == [name, f"{name}.task"]


def test_a_spawned_child_knows_the_script_by_the_same_name(tmp_path: Path) -> None:
    """In a child of multiprocessing, ``__mp_main__`` has the name of the parent's script."""
    (tmp_path / "job.py").write_text(SPAWNING)
    assert run_python("job.py", cwd=tmp_path) == ["job.Result", "job.Result"]
