"""Finding a class or module that was stored by name, in this process.

``__main__`` is another module in every process. So a payload names the script's own module instead
(:func:`flowdsl.core.naming.main_name`), and a reader translates this name:

* to ``__main__``, if that script is what runs here and it was not imported besides (to import it would
  execute it a second time);
* to the session's ``__main__``, if a notebook or a REPL wrote the payload, because nobody can import that;
* to the module of that name in all other cases.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from flowdsl.core.naming import main_name
from flowdsl.errors import MissingClass, StorageError

__all__ = [
    "MAIN_NAMES",
    "find_exception",
    "find_module",
    "found_by_name",
    "missing",
    "module_now",
    "own_main_name",
]

MAIN_NAMES = ("__main__", "__mp_main__")  # the second is the script in a spawned child process

_MOVED = {
    "flowdsl.codecs.pieces": "flowdsl.codecs.exceptions.pieces",
    "flowdsl.codecs.rebuild": "flowdsl.codecs.exceptions.rebuild",
    "flowdsl.core.encoders": "flowdsl.core.unkeyable",
}
"""Earlier names of our modules that stored pickles contain, and their present names."""

_here: tuple[object, str] | None = None


def own_main_name() -> str:
    """Return :func:`main_name`. It is computed once per ``__main__``, because each load needs it."""
    global _here
    main = sys.modules.get("__main__")
    if _here is None or _here[0] is not main:
        _here = (main, main_name())
    return _here[1]


def module_now(module: str, written_as: str) -> str:
    """Return the name under which *module* is found here.

    *written_as* is the module that was ``__main__`` in the process that stored it.
    """
    if module in MAIN_NAMES:
        module = written_as
    if module in MAIN_NAMES or module.startswith("notebook:"):
        return "__main__"
    if module not in sys.modules and module == own_main_name():
        return "__main__"
    return _MOVED.get(module, module)


def found_by_name(obj: Any) -> bool:
    """Say whether following the module and qualified name of *obj* leads to *obj* itself."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    for part in getattr(obj, "__qualname__", "<locals>").split("."):
        found = getattr(found, part, None)
    return found is obj


def missing(module: str, name: str, error: Exception | None) -> MissingClass:
    """Return the error for a class or function that was stored by name and no longer exists."""
    what = f"{module}.{name}" if name else f"module {module}"
    why = f" ({type(error).__name__}: {error})" if error is not None else ""
    todo = (
        "Define it in this session first"
        if module in MAIN_NAMES or module.startswith("notebook:")
        else "Bring it back under that name (an alias is enough), or put its folder on the import path"
    )
    return MissingClass(
        f"a stored payload names {what}, which is not there{why}. {todo}", module=module, name=name
    )


def find_module(module: str) -> ModuleType:
    """Return the module that was stored as *module*. Raises ``MissingClass``."""
    try:
        return import_module(module_now(module, module))
    except ImportError as error:
        raise missing(module, "", error) from error


def find_exception(module: str, name: str) -> type[BaseException]:
    """Return the exception class that is stored by its names only.

    Anybody may have written the names. So they are looked up through modules and classes only: no attribute
    is computed, and nothing is called. Raises ``MissingClass`` if nothing is found, and ``StorageError`` if
    it is not an exception class.
    """
    found: Any = find_module(module)
    for part in name.split("."):
        try:
            found = vars(found)[part]
        except (KeyError, TypeError):
            raise missing(module, name, None) from None
        if not isinstance(found, type):
            break
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise StorageError(f"a stored exception names {module}.{name}, which is no exception class; refused")
    return found
