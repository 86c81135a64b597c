"""One bound call: what counts of it, what is stored of it, and what people can be told about it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from flowdsl.core.keys import content_digest, explain, step_key
from flowdsl.core.preview import preview, preview_call
from flowdsl.core.source import SOURCE

__all__ = ["NO_RECEIVER", "Bound", "Shape", "changed_defaults", "has_identity"]


class _Mark:
    """A value that nobody passes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


NO_RECEIVER: Any = _Mark("NO_RECEIVER")
"""Means that this call has no ``self`` and no ``cls``."""


def has_identity(receiver: object) -> bool:
    """Say whether a call on *receiver* differs from the same call on another one.

    A class does, by its path. An instance does only if its class defines ``__flow_key__``. ``NO_RECEIVER``
    has nothing that could differ.

    >>> has_identity(object()), has_identity(object), has_identity(NO_RECEIVER)
    (False, True, True)
    """
    return isinstance(receiver, type) or receiver is NO_RECEIVER or hasattr(type(receiver), "__flow_key__")


def changed_defaults(recorded: str, current: str) -> list[str]:
    """Name the parameters whose default was changed between two calls of the same key.

    Parameters: ``Bound.defaults`` of both. If only one of them has a parameter, it was added or removed,
    which is no change. Returns names in alphabetical order.

    >>> changed_defaults("rate=aa11", "extra=cc33 rate=bb22")
    ['rate']
    """
    if recorded == current:
        return []
    before = dict(part.split("=") for part in recorded.split())
    after = dict(part.split("=") for part in current.split())
    return sorted(name for name in before if name != SOURCE and after.get(name, before[name]) != before[name])


class Shape(NamedTuple):
    """What all calls of one function have in common. Made by :class:`flowdsl.core.binding.Binder`.

    * ``path``: that of the step; ``ignored``: names that do not count; ``has_key``: whether ``key=`` replaces
      the arguments; ``counts_receiver``: whether a receiver with an identity counts.
    * ``kept``: name and place of each parameter that is not ignored, in the order of the signature. ``bits``:
      the same in the order of the names, each with the bit that says that it was left out.
    * ``variable``: names of ``*args`` and ``**kwargs``. ``keywords``: name of the latter.
    """

    path: str
    ignored: tuple[str, ...]
    has_key: bool
    counts_receiver: bool
    kept: tuple[tuple[str, int], ...]
    bits: tuple[tuple[str, int, int], ...]
    variable: frozenset[str]
    keywords: str

    def counts(self, receiver: object) -> bool:
        """Say whether *receiver* is part of the key."""
        return self.counts_receiver and receiver is not NO_RECEIVER and has_identity(receiver)


class Bound:
    """One bound call of a function.

    ``canonical``: encoding of what counts. ``defaults``: the left-out defaults and the source, which are
    recorded but do not count, as ``name=digest name=digest @=source`` (``""`` for none). They are for
    :func:`changed_defaults` and :func:`~flowdsl.core.source.changed_source`.
    """

    __slots__ = ("_key_value", "_left_out", "_receiver", "_shape", "_values", "canonical", "defaults")

    canonical: bytes
    defaults: str

    def fill(
        self,
        shape: Shape,
        values: tuple[Any, ...],
        canonical: bytes,
        defaults: str,
        left_out: int,
        receiver: Any,
        key_value: Any = None,
    ) -> Self:
        """Let this new object be that call. Returns itself. (A subclass of it may be made by its user.)"""
        self._shape = shape
        self._values = values
        self.canonical = canonical
        self.defaults = defaults
        self._left_out = left_out
        self._receiver = receiver
        self._key_value = key_value
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """Maps each parameter that is not ignored to its value, defaults applied, in the order of the
        signature.

        ``*args`` is a tuple under its name, and ``**kwargs`` a dict under its name. A new dict each time.
        """
        values = self._values
        found = {name: values[place] for name, place in self._shape.kept}
        if self._shape.keywords in found:
            found[self._shape.keywords] = dict(found[self._shape.keywords])
        return found

    def preview(self, limit: int = 200) -> str:
        """Give the arguments as one line, ``a=1, b='x'``, of at most *limit* characters. Never raises."""
        values, kept = self._values, self._shape.kept
        variable = self._shape.variable
        if variable:
            kept = tuple((name, place) for name, place in kept if name not in variable or values[place])
        return preview_call(kept, values, limit)

    def key(self, scope: str = "", version: str = "", occurrence: int = 0) -> str:
        """Give the key of this call, 40 hex digits. The parameters are as in :mod:`flowdsl.core.keys`."""
        return step_key(content_digest(scope, self._shape.path, version, self.canonical), occurrence)

    def explain(
        self,
        scope: str = "",
        version: str = "",
        occurrence: int = 0,
        notes: Sequence[tuple[str, str]] = (),
    ) -> str:
        """Explain in several lines what went into :meth:`key`. See :func:`flowdsl.core.keys.explain`."""
        shape = self._shape
        counted: list[tuple[str, str]] = []
        defaulted: list[tuple[str, str]] = []
        for name, place, bit in shape.bits:
            (defaulted if self._left_out & bit else counted).append((name, preview(self._values[place], 80)))
        if shape.has_key:
            counted, defaulted = [("key()", f"{preview(self._key_value, 80)} in place of the arguments")], []
        receiver = ""
        if self._receiver is not NO_RECEIVER:
            counts = shape.counts(self._receiver)
            receiver = preview(self._receiver, 80) + ("" if counts else " (not counted)")
        return explain(
            path=shape.path,
            canonical=self.canonical,
            counted=counted,
            defaulted=defaulted,
            ignored=shape.ignored,
            receiver=receiver,
            scope=scope,
            version=version,
            occurrence=occurrence,
            notes=notes,
        )
