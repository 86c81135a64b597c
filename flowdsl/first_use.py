"""Names of a package that are imported at their first use. So who needs one does not pay for all."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["from_homes"]


def from_homes(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of *package*. *homes* says in which of its modules each name is.

    >>> from_homes("flowdsl.codecs", {"JsonCodec": "json"})("JsonCodec").__module__
    'flowdsl.codecs.json'
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
