"""Pickle that other processes can load. Only this module uses cloudpickle.

Plain pickle stores a class by name. That is right for stored results: they load with the present code. This
module adds four things:

* **``__main__``.** Pickle stores a class of the running script as ``__main__.Order``. That name means
  something else in every process. So the name of the script's module is put in front of such a pickle, and a
  reader in another process looks there. In turn, if a pickle names module ``script``, and ``script`` is what
  runs, the reader uses ``__main__``, and does not execute the script a second time. See
  :mod:`flowdsl.codecs.modules`.
* **Objects without a name.** Lambdas, local functions and local classes go to cloudpickle, which stores them
  by value. Everything that has a name is stored by name, in ``__main__`` too. A class that is stored by value
  would be another class in the next process, and ``isinstance`` would be false.
* **Local classes come back as themselves.** cloudpickle finds a class that still exists in this process, but
  then overwrites its attributes with copies, so that methods lose their closures. Here such a class is not
  changed.
* **Exceptions without tblib.** Dask activates tblib, which makes pickle store frames and causes. Only a
  process with tblib could load that. So the functions of tblib are not used.
"""

import copyreg
import io
import pickle
from collections import ChainMap
from functools import lru_cache
from typing import Any
from weakref import WeakSet

from flowdsl.codecs.base import Codec
from flowdsl.codecs.modules import MAIN_NAMES, find_module, found_by_name, missing, module_now, own_main_name
from flowdsl.errors import StorageError

__all__ = ["PickleCodec", "plain_loads"]

PROTOCOL = 5

_PLAIN_START = 0x80  # the first byte of every pickle of protocol 2 or later
_MAIN_HEADER = b"m"  # so this is the first byte if the script's name is in front
_BY_NAME = (
    b"\x93"  # the opcode STACK_GLOBAL: a pickle without it names no class, so nothing needs to be looked up
)
_MAIN_TOKEN = b"_main__"
_TBLIB = "tblib.pickling_support"
_TBLIB_TOKEN = _TBLIB.encode()


class PickleCodec(Codec):
    """Stores nearly every Python object. Only Python can read it. This is the default codec.

    Loading a pickle can execute code. Open only storages that you trust, or set ``FLOWDSL_SECRET_KEY``.

    >>> PickleCodec().loads(PickleCodec().dumps({"total": (1, 2.5)}))
    {'total': (1, 2.5)}
    """

    id = "pickle"
    exact = frozenset({type(None), bool, int, float, str, bytes})
    stores_objects = True

    def dumps(self, value: Any) -> bytes:
        """Pickle *value*. Use cloudpickle if pickle cannot."""
        try:
            data = pickle.dumps(value, PROTOCOL)
        except Exception:  # whatever the user's classes raise
            data = _dumps_by_value(value)
        # find() is twice as fast as "in" here, and every stored step passes this line.
        if data.find(_BY_NAME) < 0:
            return data
        if data.find(_TBLIB_TOKEN) >= 0:
            data = _dumps_by_value(value)
        if data.find(_MAIN_TOKEN) >= 0:
            name = own_main_name().encode("utf-8", "surrogatepass")
            return _MAIN_HEADER + len(name).to_bytes(2, "big") + name + data
        return data

    def loads(self, data: bytes) -> Any:
        """Load *data*. Raises ``MissingClass`` if a class is gone, and ``StorageError`` for any other
        reason."""
        try:
            if data.find(_BY_NAME) < 0 or (
                data[0] == _PLAIN_START and data.find(_spelled(own_main_name())) < 0
            ):
                return pickle.loads(data)
        except (ImportError, AttributeError):
            pass  # nearly always a class is gone; the slow load below finds out which
        except Exception as error:  # whatever the user's classes raise
            raise _not_loadable(error) from error
        if data[:1] == _MAIN_HEADER:
            start = 3 + int.from_bytes(data[1:3], "big")
            return _careful_loads(data[start:], data[3:start].decode("utf-8", "surrogatepass"))
        return _careful_loads(data, own_main_name())


def plain_loads(data: bytes) -> Any:
    """Load a pickle of plain values (dicts, lists, numbers, text, bytes). Nothing is imported or called.

    Raises ``StorageError`` for a pickle that names a class or a function.

    >>> plain_loads(pickle.dumps({"how": "text"}))
    {'how': 'text'}
    """
    start = 3 + int.from_bytes(data[1:3], "big") if data[:1] == _MAIN_HEADER else 0
    try:
        return _PlainUnpickler(io.BytesIO(data[start:])).load()
    except StorageError:
        raise
    except Exception as error:  # whatever pickle makes of damaged bytes
        raise _not_loadable(error) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise StorageError(
            f"a pickle that may hold only plain values names {module}.{name}; it was not loaded"
        )


@lru_cache(maxsize=8)
def _spelled(name: str) -> bytes:
    """Return the bytes with which protocol 5 writes *name*. Text that only contains the same letters does not
    match."""
    text = name.encode("utf-8", "surrogatepass")
    return b"\x8c%c%b" % (len(text), text) if len(text) < 256 else text


def _careful_loads(data: bytes, written_as: str) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), written_as).load()
    except StorageError:
        raise
    except ModuleNotFoundError as error:
        raise missing(error.name or "?", "", error) from error
    except Exception as error:  # whatever the user's classes raise
        raise _not_loadable(error) from error


def _not_loadable(error: Exception) -> StorageError:
    return StorageError(f"a stored payload does not load: {type(error).__name__}: {error}")


class _Unpickler(pickle.Unpickler):
    """Looks up classes of ``__main__`` in the module where they are now."""

    def __init__(self, file: io.BytesIO, written_as: str) -> None:
        super().__init__(file)
        self._written_as = written_as

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "cloudpickle.cloudpickle" and name == "subimport":
            return find_module
        module = module_now(module, self._written_as)
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise missing(module, name, error) from error


# --------------------------------------------------------------------------------------------------- by value


def dumps_by_value(value: Any) -> bytes:
    """Pickle *value* as cloudpickle does: objects of ``__main__``, and those without a name, by value."""
    import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


_Pickler: Any = None

_alive: WeakSet[type] = WeakSet()
"""Classes without a name that exist in this process."""


def _dumps_by_value(value: Any) -> bytes:
    file = io.BytesIO()
    (_Pickler or _make_pickler())(file, PROTOCOL).dump(value)
    return file.getvalue()


def _make_pickler() -> Any:
    """Make the pickler class on first use, because cloudpickle is slow to import."""
    global _Pickler
    import cloudpickle

    tables: Any = cloudpickle.Pickler.dispatch_table  # a ChainMap of its own table and copyreg's
    given = [table for table in tables.maps if table is not copyreg.dispatch_table]

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle's pickler, but objects of ``__main__`` are stored by name, and existing classes are not
        changed."""

        @property
        def dispatch_table(self) -> Any:
            return ChainMap(*given, _reducers())

        def reducer_override(self, obj: Any) -> Any:
            if getattr(obj, "__module__", None) in MAIN_NAMES and found_by_name(obj):
                return NotImplemented
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6:
                _alive.add(obj)
                return (*reduced[:5], set_class_state)
            return reduced

    _Pickler = Pickler
    return Pickler


def _reducers() -> dict[type, Any]:
    """How pickle reduces objects in this process, without the functions that tblib adds for exceptions when
    Dask is imported. Only a process with tblib could load what they store."""
    return {
        cls: reduce
        for cls, reduce in copyreg.dispatch_table.items()
        if not (issubclass(cls, BaseException) and getattr(reduce, "__module__", None) == _TBLIB)
    }


def set_class_state(cls: type, state: Any) -> type:
    """Fill a class that was stored by value, unless it exists in this process. Stored pickles name this
    function."""
    if cls not in _alive:
        from cloudpickle import cloudpickle

        # It is private, but every pickle of cloudpickle names it, so cloudpickle has to keep it.
        cloudpickle._class_setstate(cls, state)  # pyright: ignore[reportAttributeAccessIssue]
        _alive.add(cls)
    return cls
