"""A digest of a function's body. It shows that the body has changed since something was recorded.

The digest is made of the compiled code, so comments, layout, docstrings and line numbers do not count. It
covers the loaded code, not what is on disk by now. Bytecode differs between minor versions of Python. So the
digest names the version, and digests of different versions are not compared. It is no part of any key: a
change is noticed, and ``version=`` makes it count.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from types import CodeType
from typing import Any

__all__ = ["SOURCE", "changed_source", "source_digest", "source_of"]

SOURCE = "@"
"""The name of the digest among the defaults of a call. No parameter has this name."""

_HAS_DOCSTRING = 0x4000000  # a flag of code objects, from Python 3.14 on
_VERSION = f"{sys.version_info.major}{sys.version_info.minor:02d}"


def source_digest(fn: Callable[..., Any]) -> str:
    """Give the digest of *fn*, or of the function that it wraps. ``""`` if there is no Python code.

    >>> def f(x): return x + 1
    >>> def g(x):
    ...     "Add one."
    ...     return x + 1  # the same
    >>> source_digest(f) == source_digest(g), source_digest(f) == source_digest(lambda x: x + 2)
    (True, False)
    """
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return _digest(code) if isinstance(code, CodeType) else ""


def changed_source(recorded: str, current: str) -> bool:
    """Whether two texts of defaults (see :class:`flowdsl.core.bound.Bound`) have different sources.

    >>> changed_source("rate=aa11 @=311.0a0a0a0a", "@=311.0b0b0b0b")
    True
    """
    if recorded == current:
        return False
    before, after = source_of(recorded), source_of(current)
    return before != after and bool(before) and before.partition(".")[0] == after.partition(".")[0]


def source_of(defaults: str) -> str:
    """The digest of the source in a text of defaults; ``""`` if there is none."""
    return defaults.rpartition(f"{SOURCE}=")[2] if f"{SOURCE}=" in defaults else ""


@lru_cache(maxsize=2048)
def _digest(code: CodeType) -> str:
    parts = "\x00".join(_parts(code)).encode("utf-8", "surrogatepass")
    return f"{_VERSION}.{blake2b(parts, digest_size=4).hexdigest()}"


def _parts(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags & ~_HAS_DOCSTRING)
    )
    yield code.co_exceptiontable.hex()
    constants = list(code.co_consts)
    if constants and isinstance(constants[0], str) and _is_docstring(code):
        constants[0] = None
    for constant in constants:
        yield from _constant(constant)


def _is_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    return not code.co_name.startswith("<")  # all other functions have None there


def _constant(value: Any) -> Iterator[str]:
    if isinstance(value, CodeType):
        yield "code"
        yield from _parts(value)
    elif isinstance(value, frozenset):  # its order differs between processes
        yield from ("set", *sorted(repr(item) for item in value), "end")
    elif isinstance(value, tuple):
        yield "tuple"
        for item in value:
            yield from _constant(item)
        yield "end"
    else:
        yield repr(value)
