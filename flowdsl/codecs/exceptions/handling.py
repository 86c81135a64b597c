"""Reading and changing exceptions of users, in ways that their classes cannot make fail.

A class may refuse assignment (a frozen dataclass does), compute ``args`` or ``__dict__``, and raise in
``__str__``, ``add_note``, ``__eq__``, ``__bool__`` or ``__getattr__``. So this module never uses the class.
It reads and sets the fields of every exception by the descriptors of ``BaseException``.
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

__all__ = [
    "add_note",
    "args_of",
    "carry_history",
    "cause_of",
    "context_of",
    "dict_of",
    "exceptions_of",
    "set_args",
    "set_cause",
    "set_context",
    "set_traceback",
    "suppresses_context",
    "text_of",
    "traceback_of",
    "walk",
]

_NOTES = 20  # an exception that leaves a hundred nested steps does not need a hundred
_FIELDS: Any = vars(BaseException)
_EXCEPTIONS: Any = vars(BaseExceptionGroup)["exceptions"]


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or a replacement if that raises.

    >>> text_of(KeyError("k"))
    "'k'"
    """
    try:
        return str.__str__(str(error))  # a plain one: str() passes subclasses on
    except Exception:  # whatever the user's __str__ raises
        return f"<unprintable {type(error).__qualname__} object>"


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the ``args`` of *error*, even if its class hides them."""
    return _FIELDS["args"].__get__(error)  # type: ignore[no-any-return]


def set_args(error: BaseException, args: tuple[Any, ...]) -> None:
    """Set the ``args`` of *error*."""
    _FIELDS["args"].__set__(error, args)


def dict_of(error: BaseException) -> dict[str, Any]:
    """Return the ``__dict__`` of *error*, even if its class hides it."""
    return _FIELDS["__dict__"].__get__(error)  # type: ignore[no-any-return]


def cause_of(error: BaseException) -> BaseException | None:
    """Return the exception from which *error* was raised (``raise … from``)."""
    return _FIELDS["__cause__"].__get__(error)  # type: ignore[no-any-return]


def context_of(error: BaseException) -> BaseException | None:
    """Return the exception that was being handled when *error* was raised."""
    return _FIELDS["__context__"].__get__(error)  # type: ignore[no-any-return]


def suppresses_context(error: BaseException) -> bool:
    """Say whether *error* was raised by ``raise … from``, ``from None`` included."""
    return bool(_FIELDS["__suppress_context__"].__get__(error))


def exceptions_of(error: BaseException) -> tuple[BaseException, ...]:
    """Return the members of an exception group. Other exceptions have none."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return _EXCEPTIONS.__get__(error)  # type: ignore[no-any-return]


def walk(
    error: BaseException | None, *ways: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """Yield *error*, the members of groups, and the exceptions to which *ways* lead (:func:`cause_of`,
    :func:`context_of`). Each is yielded once.

    >>> [str(one) for one in walk(ExceptionGroup("both", [KeyError(1), KeyError(2)]))]
    ['both (2 sub-exceptions)', '2', '1']
    """
    seen: set[int] = set()
    chain = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        chain += [*exceptions_of(link), *(way(link) for way in ways)]


def set_cause(error: BaseException, cause: BaseException | None, *, suppress: bool | None = None) -> None:
    """Set the cause of *error*. *suppress*: its context is no longer shown."""
    _FIELDS["__cause__"].__set__(error, cause)
    if suppress is not None:
        _FIELDS["__suppress_context__"].__set__(error, suppress)


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set the context of *error*: the exception that was being handled when it was raised."""
    _FIELDS["__context__"].__set__(error, context)


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error*."""
    return _FIELDS["__traceback__"].__get__(error)  # type: ignore[no-any-return]


def set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    """Set the traceback of *error*."""
    _FIELDS["__traceback__"].__set__(error, trace)


def carry_history(error: BaseException, loaded: BaseException) -> None:
    """Give *loaded*, which replaces *error*, the traceback, cause and context of *error*."""
    if loaded is error:
        return
    set_traceback(loaded, traceback_of(error))
    if cause_of(loaded) is None:
        set_cause(loaded, cause_of(error))
    set_context(loaded, context_of(error))
    set_cause(loaded, cause_of(loaded), suppress=suppresses_context(error))


def add_note(error: BaseException, note: str) -> None:
    """Add *note* to *error*, once. Nothing is added if its class stores notes in its own way, or if it has
    many.

    >>> error = ValueError("no")
    >>> add_note(error, "at step shop.charge"); add_note(error, "at step shop.charge")
    >>> error.__notes__
    ['at step shop.charge']
    """
    notes = dict_of(error).setdefault("__notes__", [])
    if (
        isinstance(notes, list)
        and len(notes) < _NOTES
        and not any(known is note or known == note for known in notes)
    ):
        notes.append(note)
