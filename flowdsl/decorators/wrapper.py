"""The wrapper of decorated functions and methods: a wrapt proxy that can be copied and pickled. Only this
module uses wrapt.

The rules
    A decorated function is the function: name, docstring, signature, types, binding to instances and classes.
    A call goes to the engine. Everything else goes to the function.

The theory
    A wrapt proxy has the class of the object that it wraps, so ``isinstance(f, FunctionType)`` is true.
    Therefore cloudpickle would send the bare function and silently lose the decorator. So the wrapper, and
    that of a bound method, show their own class while they are pickled, and say how they are rebuilt: by
    reference if an import finds this very object, else by value, from the function and its options.

If you edit this
    ``self._self_…`` attributes live on the proxy, all others on the function.
    ``tests/decorators/test_wrapper.py`` loads every form in a fresh interpreter.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import threading
import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any

import wrapt

from flowdsl.codecs.pickle import PickleCodec, dumps_by_value
from flowdsl.engine.definitions import Decorated, Invocation, Parts, receiver_of
from flowdsl.engine.option_checks import unwrap

if TYPE_CHECKING:

    class Function:
        """The wrapt proxy as type checkers see it."""

        __name__: str
        __qualname__: str
        __module__: str
        __doc__: str | None
        _self_defn: Any
        __wrapped__: Any

        def __init__(self, wrapped: Any, wrapper: Any) -> None: ...

    class BoundFunction(Function):
        _self_parent: Any
        _self_instance: Any
        _self_binding: str
else:
    Function = wrapt.FunctionWrapper
    BoundFunction = wrapt.BoundFunctionWrapper

__all__ = ["BoundFunction", "BoundWrapper", "FreeWrapper", "Function", "call_of", "importable", "parts_of"]


class _Guard(threading.local):
    inside = False


_pickling = _Guard()


def _import(module: str, qualname: str) -> Any:
    """Load by reference."""
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    *owners, name = qualname.split(".")
    for owner in owners:
        found = getattr(found, owner)
    static = inspect.getattr_static(found, name)
    if isinstance(static, staticmethod | classmethod) and isinstance(static.__func__, Wrapper):
        return static.__func__
    return static


def importable(wrapper: Any) -> bool:
    """Whether another process finds *wrapper* by its name."""
    module = getattr(wrapper, "__module__", None)
    if module is None or module in ("__main__", "__mp_main__") or module not in sys.modules:
        return False
    try:
        return _import(module, wrapper.__qualname__) is wrapper
    except (AttributeError, ImportError):
        return False


def _load(data: bytes) -> Any:
    """Load by value."""
    return PickleCodec().loads(data)


def _rebuild(kind: type[Any], fn: Any, options: dict[str, Any]) -> Any:
    """Make a wrapper again from its function and options. Unlike decorating, this registers nothing."""
    return kind(fn, kind.definition_type(fn=unwrap(fn), **options))


def _annotations(wrapper: Any) -> dict[str, Any]:
    found: dict[str, Any] = wrapper.__wrapped__.__annotations__
    return found


annotations_of = property(_annotations)
"""``__annotations__`` of a wrapper class: without it, instances show what the body of the class annotates."""


class CallOf:
    """The function that wrapt calls for a wrapper. It does not refer to the wrapper, so an unused decorated
    function is deleted at once, and not only when cycles are collected."""

    __slots__ = ("_wrapper",)

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = weakref.ref(wrapper)

    def __call__(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wrapper: Any = self._wrapper()
        return type(wrapper)._self_call(wrapper, wrapped, instance, args, kwargs)


class Wrapper(Decorated):
    """Copying and pickling of decorated functions, and their representation."""

    definition_type: Any  # makes the definition of a rebuilt one, from its function and options

    if TYPE_CHECKING:
        _self_defn: Any
        _self_original: Any
        _self_patched: tuple[Any, ...]
        __wrapped__: Any
        __module__: str
        __qualname__: str

    def over(self, wrapped: Any) -> Any:
        """The same decoration over *wrapped*."""
        kind: Any = type(self)
        return kind(wrapped, self._self_defn)

    def __setattr__(self, name: str, value: Any) -> None:
        """Remember the earlier ``__wrapped__``, so that patches can be nested."""
        if name == "__wrapped__":
            known = (*self._self_patched, self.__wrapped__)
            at = next((at for at, one in enumerate(known) if one is value), len(known))
            self._self_patched = known[:at]
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Deleting ``__wrapped__`` restores the earlier one, as ``mock.patch.object`` expects."""
        if name == "__wrapped__":
            *before, last = self._self_patched or (self._self_original,)
            super().__setattr__(name, last)
            self._self_patched = tuple(before)
        else:
            super().__delattr__(name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if importable(self):
            return _import, (self.__module__, self.__qualname__)
        rebuild, parts = parts_of(self)
        if _pickling.inside:
            return rebuild, parts
        _pickling.inside = True
        try:
            return _load, (dumps_by_value(_Rebuilt(parts)),)
        finally:
            _pickling.inside = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self._self_defn.path}>"

    def __str__(self) -> str:
        return repr(self)


def parts_of(wrapper: Any) -> tuple[Any, tuple[Any, ...]]:
    """How to make *wrapper* again: a function and its arguments, which include the undecorated function."""
    defn = wrapper._self_defn
    stays = ("fn", "executor", "begins_at_once")  # threads and processes cannot be pickled
    names = [name for name in type(defn).__slots__ if not name.startswith("_") and name not in stays]
    return _rebuild, (type(wrapper), wrapper.__wrapped__, {name: getattr(defn, name) for name in names})


class FreeWrapper(Wrapper):
    """A decorated function as it was decorated, not looked up at an instance or a class."""

    if TYPE_CHECKING:
        _self_receiver: Any

    def __init__(self, wrapped: Any, defn: Any) -> None:
        super().__init__(wrapped, CallOf(self))  # type: ignore[call-arg]
        self._self_defn = defn
        self._self_original = wrapped
        self._self_patched = ()
        self._self_receiver = receiver_of(wrapped)

    def invocation(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation[Any]:
        """A call of it with *args* and *kwargs*."""
        return Invocation(*call_of(self, args, kwargs))


def call_of(wrapper: FreeWrapper, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts[Any]:
    """A call of *wrapper* with *args* and *kwargs*. This is no method: to look one up at a proxy makes an
    object."""
    defn: Any = wrapper._self_defn
    fn, receiver = wrapper.__wrapped__, wrapper._self_receiver
    if receiver is None and args and defn.is_receiver(args[0]):  # passed by a property or decorator above
        receiver, args = args[0], args[1:]
        fn = MethodType(fn, receiver)
    return defn, fn, receiver, args, kwargs


class _Rebuilt:
    """Pickles as the wrapper that its parts make."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return _rebuild, self.parts


class BoundWrapper(Wrapper):
    """A decorated method bound to its instance or class."""

    if TYPE_CHECKING:
        _self_parent: Any
        _self_instance: Any
        _self_binding: str

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__wrapped__" and self._is_the_method():
            setattr(self._self_parent, name, value)
        super(Wrapper, self).__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name == "__wrapped__" and self._is_the_method():
            delattr(self._self_parent, name)
        else:
            super(Wrapper, self).__delattr__(name)

    def _is_the_method(self) -> bool:
        """Whether it is the method itself, as ``Class.method`` is, and not a bound method."""
        return self._self_instance is None and inspect.isfunction(self._self_parent._self_original)

    @property
    def _defn(self) -> Any:
        return self._self_parent._self_defn

    def __repr__(self) -> str:
        return f"<bound {self._defn.path} of {self._owner()!r}>"

    def _owner(self) -> Any:
        owner = getattr(self.__wrapped__, "__self__", None)
        return self._self_instance if owner is None else owner

    def __deepcopy__(self, memo: Any) -> Any:
        owner = self._owner()
        return (
            self
            if owner is None or isinstance(owner, type)
            else getattr(copy.deepcopy(owner, memo), self._name)
        )

    @property
    def _name(self) -> str:
        return str(self.__wrapped__.__name__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = self._owner()
        if owner is None:
            return self._self_parent.__reduce_ex__(protocol)
        return getattr, (owner, self._name)

    def invocation(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation[Any]:
        """A call with *args* and *kwargs*."""
        wrapped = self.__wrapped__
        receiver = getattr(wrapped, "__self__", None)
        if receiver is None and self._self_instance is None and self._self_binding != "staticmethod" and args:
            receiver, args = args[0], args[1:]  # Class.method(instance, …)
            wrapped = wrapped.__get__(receiver, type(receiver))
        return Invocation(self._defn, wrapped, receiver, args, kwargs)
