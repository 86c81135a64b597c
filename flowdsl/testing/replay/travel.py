"""How a workflow gets into another process: as names where that process can import them, else by value.

The rules
    Code of modules that have a file goes by name: the other process imports it, and finds everything in it
    as it is at the beginning. Code of ``__main__``, of local functions, and of modules without a file goes by
    value, with what it refers to. What cannot go at all (a lock, an open file) is :class:`LeftBehind` there:
    code that uses it ends that execution, and nothing is concluded from it.
"""

import functools
import io
import os
import pickle
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

import cloudpickle

from flowdsl.codecs.exceptions.handling import (
    args_of,
    cause_of,
    context_of,
    dict_of,
    set_cause,
    set_context,
    suppresses_context,
)
from flowdsl.codecs.exceptions.rebuild import HEAP_TYPE, members_of, put_together
from flowdsl.decorators.steps import Step
from flowdsl.decorators.wrapper import BoundWrapper, Wrapper, importable, parts_of
from flowdsl.engine.registry import STEPS, WORKFLOWS

__all__ = ["LeftBehind", "NotTaken", "modules_without_file", "pack", "unpack"]


class NotTaken(BaseException):
    """Something was needed that does not exist in this process."""


class LeftBehind:
    """Stands for an object that could not be taken along; whatever is done with it raises."""

    def __init__(self, what: str) -> None:
        object.__setattr__(self, "what", what)

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise NotTaken(f"{object.__getattribute__(self, 'what')} cannot be taken to another process")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._raise()

    __call__ = __iter__ = __len__ = __getitem__ = __enter__ = __bool__ = __setattr__ = _raise


def _cached(fn: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(fn)


def _decorated(rebuild: Any, parts: tuple[Any, ...]) -> Any:
    """A decorated function made again, and registered as decorating does: an undo is found by its name."""
    made = rebuild(*parts)
    registry: Any = STEPS if isinstance(made, Step) else WORKFLOWS
    registry.add(made.definition)
    return made


def _chain(error: BaseException, links: tuple[Any, Any, bool]) -> None:
    """Hang on *error* what it hung on: its cause, its context, and whether that is shown."""
    cause, context, error.__suppress_context__ = links
    set_context(error, context)
    if cause is not None:
        set_cause(error, cause)


def _reduced(error: BaseException) -> Any:
    """*error* in its parts, as a run records it: pickle would call its ``__init__`` with other arguments than
    it was made with, and would lose its cause."""
    parts = (type(error), args_of(error), dict(dict_of(error)), members_of(error))
    links = (cause_of(error), context_of(error), suppresses_context(error))
    return put_together, parts, links, None, None, _chain


def _pickles_itself(error: BaseException) -> bool:
    """Whether its class says how it is pickled."""
    own = (
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__setstate__",
        "__getnewargs__",
        "__getnewargs_ex__",
    )
    written = [vars(kind) for kind in type(error).__mro__ if kind.__flags__ & HEAP_TYPE]
    return any(name in names for names in written for name in own)


def _can_import(name: str | None) -> bool:
    """Whether another process finds module *name*."""
    if not name or name in ("__main__", "__mp_main__"):
        return False
    module = sys.modules.get(name)
    return isinstance(module, ModuleType) and (
        getattr(module, "__file__", None) is not None or name in sys.builtin_module_names
    )


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """``modules`` are those that the other process has to import."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.modules: dict[str, None] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Wrapper) and not isinstance(obj, BoundWrapper):
            if not (_can_import(obj.__module__) and importable(obj)):
                return _decorated, parts_of(obj)
            self.modules[obj.__module__] = None
            return obj.__reduce_ex__(5)
        if isinstance(obj, functools._lru_cache_wrapper) and not _can_import(obj.__module__):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, ModuleType | type | FunctionType):
            name = obj.__name__ if isinstance(obj, ModuleType) else obj.__module__
            if _can_import(name):
                self.modules[name] = None
            if not isinstance(obj, ModuleType):
                return super().reducer_override(obj)
        if (
            isinstance(obj, BaseException)
            and not isinstance(obj, BaseExceptionGroup)
            and not _pickles_itself(obj)
        ):
            return _reduced(obj)
        try:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented:
                reduce = self.dispatch_table.get(type(obj))
                reduced = reduce(obj) if reduce is not None else obj.__reduce_ex__(5)
        except Exception as error:  # whatever its own code for pickling raises
            return LeftBehind, (f"{type(obj).__name__} ({error})",)
        if isinstance(obj, CodeType):  # it goes without its file, which the story shows
            kind, parts = cast("tuple[Any, tuple[Any, ...]]", reduced)
            return kind, tuple(obj.co_filename if part == "<dynamic-code>" else part for part in parts)
        return reduced


def modules_without_file(*modules: str) -> dict[str, dict[str, Any]]:
    """Classes of *modules* that another process cannot import, by module and name: records may name them."""
    found = {}
    for name in modules:
        module = sys.modules.get(name)
        if module is not None and not _can_import(name):
            kinds = {key: one for key, one in vars(module).items() if isinstance(one, type)}
            facts = {key: vars(module).get(key) for key in ("__file__", "__package__")}
            found[name] = facts | {key: one for key, one in kinds.items() if one.__module__ == name}
    return found


def pack(value: Any) -> tuple[bytes, dict[str, tuple[str, float]]]:
    """*value* as bytes, and the modules to import beforehand, each with its file and when that was written.

    Raises what pickling raises for what cannot be taken.
    """
    file = io.BytesIO()
    packer = _Packer(file)
    by_value = [module for module in _without_file() if module.__name__ not in ("__main__", "__mp_main__")]
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        packer.dump(value)
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)
    modules = {}
    for name in packer.modules:
        path = getattr(sys.modules[name], "__file__", None) or ""
        modules[name] = (path, os.stat(path).st_mtime if os.path.exists(path) else 0.0)
    return file.getvalue(), modules


def _without_file() -> list[ModuleType]:
    """Modules that were made by hand: no file, no package, not built in."""
    return [
        module
        for name, module in list(sys.modules.items())
        if type(module) is ModuleType
        and module.__name__ == name
        and getattr(module, "__spec__", None) is None
        and getattr(module, "__file__", None) is None
        and not hasattr(module, "__path__")
    ]


def unpack(data: bytes) -> Any:
    """What :func:`pack` packed."""
    return pickle.loads(data)
