"""The example notebooks, executed as a pipeline does it."""

import contextlib
import importlib.util
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
if (
    importlib.util.find_spec("sklearn") is None
):  # only found: the notebooks import it in a process of their own
    pytest.skip("could not import 'sklearn'", allow_module_level=True)

from kernels import forking  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
BOOKS = sorted(EXAMPLES.glob("*.ipynb"))
of_each = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)

STARTED = "first_steps"
"""The notebook whose kernel is started as Jupyter does it; those of the others are forked."""

LESS = {
    "RandomForestClassifier(120,": "RandomForestClassifier(5,",
    "cv=5": "cv=2",
    "images[:600], digits[:600]": "images[:100], digits[:100]",
    "initial=0.3": "initial=0.01",
}
"""What a reader may wait for, and what a test makes of it."""

PATHS = re.compile(r"/home/|/root/|/tmp/|/work/|/usr/|/Users/|site-packages|[A-Z]:\\\\")


def raises(cell) -> bool:
    """Whether a cell is to raise."""
    return "raises-exception" in cell.metadata.get("tags", [])


def results(book) -> list[tuple[str, list[str]]]:
    """What each code cell shows: errors, results and pictures, of which kinds."""
    found = []
    for cell in book.cells:
        if cell.cell_type == "code":
            for one in cell.outputs:
                kinds = sorted(one.get("data", ()))
                picture = any(kind.startswith("image/") for kind in kinds)  # live progress is none
                if picture or one.output_type in ("error", "execute_result"):
                    found.append((one.get("ename", ""), kinds))
    return found


def test_there_are_four() -> None:
    """There are four example notebooks, one for each topic, and what a test makes less is in one of them."""
    assert [book.stem for book in BOOKS] == ["debugging", "first_steps", "pipeline", "sweep"]
    said = "".join(book.read_text(encoding="utf-8") for book in BOOKS)
    assert [much for much in LESS if much not in said] == []


@of_each
def test_a_notebook_executes_and_shows_what_is_stored(book: Path, tmp_path: Path) -> None:
    """Each notebook executes in an empty directory, with less to compute, and only marked cells raise."""
    stored = nbformat.read(book, as_version=4)
    fresh = nbformat.read(book, as_version=4)
    for cell in fresh.cells:
        for much, less in LESS.items():
            cell.source = cell.source.replace(much, less)
    client = nbclient.NotebookClient(
        fresh, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")}
    with contextlib.nullcontext() if book.stem == STARTED else forking():
        client.execute(env=env | {"OMP_NUM_THREADS": "1"})  # more of them cost more than they help here
    assert results(fresh) == results(stored)
    for cell in fresh.cells:
        if raises(cell):
            assert any(one.output_type == "error" for one in cell.outputs)


@of_each
def test_the_outputs_are_kept_and_name_no_machine(book: Path) -> None:
    """Each cell of a stored notebook was executed in order, and no output names the author's machine."""
    cells = [one for one in nbformat.read(book, as_version=4).cells if one.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not PATHS.search(str(cell.outputs))
