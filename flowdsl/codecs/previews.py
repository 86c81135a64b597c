"""Previews: readable texts that are stored beside payloads, so that people can read them without loading
anything.

:func:`flowdsl.core.preview.preview` makes the previews of arguments, results and messages. An error has up to
three lines: its type and text, the innermost frame of the user's code, and the source line there.
:func:`flowdsl.core.preview.error_lines` splits them.

If previews are off (``Runtime(previews=False)``, or a codec that hides values), every text is empty, and of
an error only the type is shown. Code that writes a value into a log line uses this module too.
"""

import linecache
import os
import re
from collections.abc import Callable, Iterator
from traceback import format_exception
from types import TracebackType
from typing import Protocol

from attrs import field, frozen

from flowdsl.codecs.exceptions.handling import dict_of, text_of
from flowdsl.codecs.exceptions.rebuild import TRACE, original_type
from flowdsl.core.naming import shown_file
from flowdsl.core.preview import one_line, preview

__all__ = ["Previews"]

_TEXT = 500  # characters of an error's text
_SOURCE = 160  # characters of a source line

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)

_Frame = tuple[str, int, str]
"""File, line, and name of the function."""


class _Bound(Protocol):
    def preview(self, limit: int = 200) -> str: ...


@frozen(eq=False, repr=False)
class Previews:
    """Makes previews, or none.

    * *shown*: whether people who read the storage or the log may see values.

    >>> Previews().value([1, 2]), Previews(shown=False).value([1, 2])
    ('[1, 2]', '')
    >>> Previews(shown=False).error(ValueError("4111 1111 1111 1111"))
    'ValueError'
    """

    shown: bool = True
    value: Callable[..., str] = field(init=False)
    """Return one line for a value, of at most *limit* (200) characters."""

    def __attrs_post_init__(self) -> None:
        # Each step shows a value. So the choice is made once.
        object.__setattr__(self, "value", preview if self.shown else _nothing)

    def call(self, bound: _Bound, limit: int = 200) -> str:
        """Return one line for the arguments of a call."""
        return bound.preview(limit) if self.shown else ""

    def text(self, text: str, limit: int = _TEXT) -> str:
        """Return *text*, which may contain values of the user, on one line."""
        return one_line(text, limit) if self.shown else ""

    def error(self, error: BaseException) -> str:
        """Return type, text, and place of *error*. Never raises an ``Exception``."""
        name = original_type(error).__name__
        if not self.shown:
            return name
        try:
            where = _where(error)
        except Exception:  # code of the user may run when a frame's source is looked up
            where = ""
        return f"{self.error_line(error)}\n{where}" if where else self.error_line(error)

    def exc_info(self, error: BaseException) -> BaseException | None:
        """Return *error* for ``exc_info=`` of a log call, so that its traceback is logged. Return nothing if
        values are not shown, or if Python cannot show this exception."""
        if not self.shown:
            return None
        try:
            format_exception(error)
        except Exception:  # with it, a handler of the log would drop the whole line
            return None
        return error

    def error_line(self, error: BaseException) -> str:
        """Return type and text of *error*, on one line."""
        name = original_type(error).__name__
        return f"{name}: {one_line(text_of(error), _TEXT)}" if self.shown else name


def _nothing(*_: object) -> str:
    return ""


def _where(error: BaseException) -> str:
    """The user's innermost frame and its source line, on two lines; ``""`` if none is known."""
    frames = list(_frames(error.__traceback__))
    if not any(map(_is_users, frames)):
        # It was raised in another process, or loaded. Then the traceback is a text.
        stored = dict_of(error).get(TRACE)
        if isinstance(stored, str):
            frames = [(m["file"], int(m["line"]), m["name"]) for m in _FRAME.finditer(stored)]
    best = next(filter(_is_users, reversed(frames)), None) or next(
        (frame for frame in reversed(frames) if not frame[0].startswith(_OURS)), None
    )
    if best is None:
        return ""
    file, line, name = best
    source = one_line(linecache.getline(file, line).strip(), _SOURCE)
    return f"{one_line(f'{shown_file(file)}:{line} in {name}')}\n{source}".rstrip("\n")


def _frames(trace: TracebackType | None) -> Iterator[_Frame]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, trace.tb_lineno or code.co_firstlineno, code.co_name
        trace = trace.tb_next


def _is_users(frame: _Frame) -> bool:
    """Whether *frame* is user code: not flowdsl, not the standard library, not an installed package."""
    file = frame[0]
    if file.startswith((_OURS, "<frozen")):
        return False
    return not (file.startswith(_STDLIB) or any(part in file for part in _INSTALLED))
