"""Notebooks executed by a kernel of their own, as a pipeline does it: nobody tells the kernel their file.

The kernels are forked from a process that has imported what they need.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import jupyter_client.launcher
import nbformat
from nbclient import NotebookClient

__all__ = ["execute", "forking", "texts"]

_Kernel = forked.Popen.importing("tests.notebook.imported")


@contextmanager
def forking() -> Iterator[None]:
    """Fork the kernels that begin in the meantime."""
    started = jupyter_client.launcher.Popen
    jupyter_client.launcher.Popen = _Kernel
    try:
        yield
    finally:
        jupyter_client.launcher.Popen = started


def execute(folder: Path, *cells: str, **environment: str) -> list[list[Any]]:
    """Execute *cells* in a new kernel, with the working directory *folder* and one database there.

    Returns the outputs of each cell. *environment* is added to the kernel's.
    """
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        book,
        timeout=60,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    given = {"FLOWDSL_STORAGE": f"sqlite:///{folder}/flow.db", **environment}
    left_out = {"JPY_SESSION_NAME", "FLOWDSL_NOTEBOOK"}
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    with forking():
        client.execute(env=env | given)
    return [list(cell.outputs) for cell in book.cells]


def texts(outputs: list[Any], kind: str) -> str:
    """What the outputs of one *kind* say, such as ``stderr``, ``error`` or ``text/html``."""
    found = []
    for output in outputs:
        if output.output_type == "stream" and output.name == kind:
            found.append(output.text)
        elif output.output_type == "error" and kind == "error":
            found.append(f"{output.ename}: {output.evalue}")
        elif kind in output.get("data", {}):
            found.append(output.data[kind])
    return "".join(found)
