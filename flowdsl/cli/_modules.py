"""Importing the user's code for ``--app``: a module by its name, or a script by its path.

A script is imported under the name with which its workflows were recorded. Its ``if __name__ == "__main__":``
part is not executed. Classes that it pickled as ``__main__`` are found in it: see
:mod:`flowdsl.codecs.modules`.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from flowdsl.cli._command import Failure
from flowdsl.codecs import PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.runtime import engine_of, set_default

__all__ = ["app_payloads", "load_app"]


def app_payloads(app: str | None) -> Payloads:
    """Packs values as the program *app* does: with the codec of the runtime that it configures, else with the
    default codec."""
    if app is not None:
        load_app(app)
        configured = set_default(None)
        set_default(configured)
        if configured is not None:
            return engine_of(configured).payloads
    secret = os.environ.get("FLOWDSL_SECRET_KEY")
    return Payloads(PickleCodec(), secret.encode() if secret else None)


def load_app(app: str, workflow: str = "") -> ModuleType:
    """Import *app*, a module's name or the path of a file, with the working directory on the import path.

    *workflow* is the path of the wanted workflow. It decides whether a file inside a package is ``mod`` or
    ``package.mod``. Raises :class:`~flowdsl.cli._command.Failure` if the module does not exist or raises.
    """
    _on_path(Path.cwd())
    if not (app.endswith(".py") or os.sep in app):
        return _import(app, app)
    path = Path(app).resolve()
    if not path.is_file():
        raise Failure(f"no file {app}")
    name, root = _name_of(path, workflow)
    _on_path(root)
    if "." in name:
        return _import(name, app)
    known = sys.modules.get(name)
    if known is None:
        return _execute(name, path, app)
    if Path(getattr(known, "__file__", None) or ".").resolve() == path:
        return known
    raise Failure(f"{app} would be module {name!r}, and there is another of that name; rename the file")


def _name_of(path: Path, workflow: str) -> tuple[str, Path]:
    """The name of the module in *path*, and the folder from which it is imported."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    dotted = ".".join(parts)
    if len(parts) > 1 and workflow.startswith(path.stem + ".") and not workflow.startswith(dotted + "."):
        return path.stem, path.parent  # it was executed as `python package/mod.py`
    return dotted, root


def _on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import(name: str, app: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise Failure(
                f"no module {name!r} here; --app takes the module that defines the workflow, or its file"
            ) from error
        raise _failed(app, error) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise _failed(app, error) from error


def _execute(name: str, path: Path, app: str) -> ModuleType:
    """Import a script by its path, because its name may not be valid in an import statement."""
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        del sys.modules[name]
        raise _failed(app, error) from error
    return module


def _failed(app: str, error: BaseException) -> Failure:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and file != __file__:
            place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return Failure(f"importing {app} failed: {type(error).__name__}: {error}{place}")
