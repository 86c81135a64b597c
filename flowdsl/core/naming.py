"""The name of ``__main__`` in records: the script's own module, or the notebook.

A notebook has a name that is the same in its next kernel, so that its runs continue. The first of these
counts: ``FLOWDSL_NOTEBOOK``; the name given to :func:`name_notebook`; the file, where the front end tells it.
If nobody tells anything (nbclient, papermill, a bare kernel), the notebook gets a token of its kernel. Its
runs then continue within this kernel only, and no other notebook ever meets them.
"""

import os
import sys
from hashlib import blake2b
from typing import Any

__all__ = [
    "UNNAMED",
    "counted_name",
    "in_notebook",
    "main_name",
    "name_notebook",
    "shown_file",
    "unnamed_notebook",
]

UNNAMED = "notebook:?"
"""The beginning of a notebook's paths when its file is not known."""

_given = ""  # set by name_notebook


def main_name() -> str:
    """Give the name of ``__main__`` for other processes.

    Returns the script's module name (``script`` for ``python script.py``, ``pkg.mod`` for ``python -m
    pkg.mod``). In a notebook it returns ``notebook:<name>``, or ``notebook:?<token>`` if nothing tells its
    name. For ``-c``, stdin and a REPL it returns ``__main__``, which no other process can import.

    >>> isinstance(main_name(), str)
    True
    """
    main = sys.modules.get("__main__")
    worker = sys.modules.get("__mp_main__")
    if getattr(worker, "__name__", "") == "__mp_main__":  # a spawned worker is importing the script
        main = worker
    facts = getattr(main, "__dict__", {})
    if _is_notebook(facts):
        return f"notebook:{_notebook_name(facts)}"
    return _script_name(facts)


def name_notebook(name: str) -> None:
    """Name the notebook that this process executes. See :func:`counted_name`."""
    global _given
    counted_name(name)
    _given = _last_part(name.strip())


def counted_name(name: str) -> str:
    """The name of a notebook that is given *name*: the last part of a path. ``FLOWDSL_NOTEBOOK`` wins if it
    is set.

    Raises ``ValueError`` for an empty name.
    """
    if not isinstance(name, str) or not _last_part(name.strip()).strip("?"):
        raise ValueError(f'a notebook is named by a non-empty string such as "sweep"; got {name!r}')
    return _last_part(os.environ.get("FLOWDSL_NOTEBOOK", "")) or _last_part(name.strip())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose cells execute on an event loop."""
    return _is_notebook(getattr(sys.modules.get("__main__"), "__dict__", {}))


def shown_file(file: str) -> str:
    """The name by which a person knows a source file: its last part. For a cell it is ``In[2]``.

    >>> shown_file("/home/me/shop.py")
    'shop.py'
    """
    shell = getattr(sys.modules.get("__main__"), "get_ipython", None)
    compiler = getattr(shell() if callable(shell) else None, "compile", None)
    name_of = getattr(compiler, "format_code_name", None)
    label = name_of(file) if callable(name_of) else None
    return str(label[1]) if isinstance(label, tuple) and len(label) == 2 else _last_part(file)


def unnamed_notebook(path: str) -> bool:
    """Whether *path* is of a notebook whose file was not known.

    >>> unnamed_notebook("notebook:?3f9a.job"), unnamed_notebook("notebook:sweep.job")
    (True, False)
    """
    return path.startswith(UNNAMED)


def _script_name(facts: dict[str, Any]) -> str:
    file = facts.get("__file__")
    if not isinstance(file, str) or file.startswith("<") or _last_part(os.path.dirname(file)) == "_pyrepl":
        return "__main__"
    spec_name = getattr(facts.get("__spec__"), "name", None)
    if isinstance(spec_name, str) and spec_name not in ("", "__main__"):  # a profiler leaves the latter
        return spec_name
    return os.path.splitext(_last_part(file))[0] or "__main__"


def _is_notebook(facts: dict[str, Any]) -> bool:
    if "__vsc_ipynb_file__" in facts:
        return True
    return _kernel(facts) is not None


def _kernel(facts: dict[str, Any]) -> Any:
    """The kernel that executes the cells. A terminal IPython has none."""
    if "ipykernel" not in sys.modules or not callable(facts.get("get_ipython")):
        return None
    return getattr(facts["get_ipython"](), "kernel", None)


def _notebook_name(facts: dict[str, Any]) -> str:
    told = _last_part(os.environ.get("FLOWDSL_NOTEBOOK", "")) or _given
    if told:
        return told
    for file in (
        os.environ.get("JPY_SESSION_NAME"),
        facts.get("__session__"),
        facts.get("__vsc_ipynb_file__"),
    ):
        # Only the file's own name, so that one notebook is the same through two front ends or mounts. A
        # console session has a made-up name without an extension, which is new each time.
        if isinstance(file, str) and os.path.splitext(_last_part(file))[1]:
            return _last_part(file)
    return f"?{_kernel_token(facts)}"


def _kernel_token(facts: dict[str, Any]) -> str:
    """Twelve hex digits that no other kernel has. Each kernel makes a random session id when it starts."""
    session = getattr(getattr(_kernel(facts), "session", None), "session", None)
    own = session if isinstance(session, str) and session else f"process {os.getpid()}"
    return blake2b(own.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
