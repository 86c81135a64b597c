"""The readable texts that are stored beside payloads: what people see without anything being loaded.

Arguments, results and messages are shown by :func:`flowdsl.core.preview.preview`. An error is shown in up to
three lines: its type and text, the innermost frame that is the user's own, and the source line there;
:func:`flowdsl.core.preview.error_lines` takes them apart.

Where previews are off (``Runtime(previews=False)``, or a codec that hides values), every text is empty, and
an error is known by its type only. Whoever writes a value into a log line asks here too.
"""

import linecache
import os
import re
from collections.abc import Iterator
from traceback import format_exception
from types import TracebackType
from typing import Protocol

from attrs import frozen

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


@frozen
class Previews:
    """Makes previews, or none.

    * *shown*: whether values may be read by whoever reads the storage or the log.

    >>> Previews().value([1, 2]), Previews(shown=False).value([1, 2])
    ('[1, 2]', '')
    >>> Previews(shown=False).error(ValueError("4111 1111 1111 1111"))
    'ValueError'
    """

    shown: bool = True

    def value(self, value: object, limit: int = 200) -> str:
        """Return one line for *value*, of at most *limit* characters."""
        return preview(value, limit) if self.shown else ""

    def call(self, bound: _Bound, limit: int = 200) -> str:
        """Return one line for the arguments of a call."""
        return bound.preview(limit) if self.shown else ""

    def text(self, text: str, limit: int = _TEXT) -> str:
        """Return *text*, which may hold values of the user's, on one line."""
        return one_line(text, limit) if self.shown else ""

    def error(self, error: BaseException) -> str:
        """Return type, text, and place of *error*. Never raises an ``Exception``."""
        name = original_type(error).__name__
        if not self.shown:
            return name
        try:
            where = _where(error)
        except Exception:  # a frame may hold anything, and so may what finds its source
            where = ""
        return f"{self.error_line(error)}\n{where}" if where else self.error_line(error)

    def exc_info(self, error: BaseException) -> BaseException | None:
        """Return what a log line may hold of *error* beside its text: the traceback with it, or nothing,
        where values are not shown, or where its class does not let Python show it."""
        if not self.shown:
            return None
        try:
            format_exception(error)
        except Exception:  # then a handler of the log would drop the whole line
            return None
        return error

    def error_line(self, error: BaseException) -> str:
        """Return type and text of *error*, on one line."""
        name = original_type(error).__name__
        return f"{name}: {one_line(text_of(error), _TEXT)}" if self.shown else name


def _where(error: BaseException) -> str:
    """The user's innermost frame and its source line, on two lines; ``""`` where none is known."""
    frames = list(_frames(error.__traceback__))
    if not any(map(_is_users, frames)):
        # Raised in another process, or loaded: the traceback is there as text.
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
    """Whether *frame* is neither ours, nor of the standard library, nor of an installed package."""
    file = frame[0]
    if file.startswith((_OURS, "<frozen")):
        return False
    return not (file.startswith(_STDLIB) or any(part in file for part in _INSTALLED))
