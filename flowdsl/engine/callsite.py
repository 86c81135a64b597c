"""Where the user's code called us. Messages show it."""

import linecache
import os
import sys
from pathlib import Path
from types import FrameType

__all__ = ["is_ours", "source_line", "user_level"]

_OURS = str(Path(__file__).resolve().parent.parent) + os.sep
_WRAPT = f"{os.sep}wrapt{os.sep}"


def is_ours(file: str) -> bool:
    """Whether a file holds flowdsl's own code, which no user looks for."""
    return file.startswith(_OURS) or _WRAPT in file


def _user_frame(depth: int) -> tuple[FrameType | None, int]:
    """The innermost frame that is not ours, and how many levels up it is from the frame at *depth*."""
    frame: FrameType | None = sys._getframe(depth)
    level = 1
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_ours(name):
            break
        frame, level = frame.f_back, level + 1
    return frame, level


def user_level() -> int:
    """``stacklevel=`` of a warning that points at the user's code."""
    return _user_frame(2)[1]


def source_line() -> str:
    """``file:line`` of the innermost frame that is not ours, with its text."""
    frame, _ = _user_frame(2)
    if frame is None:
        return "unknown"
    name = frame.f_code.co_filename
    text = linecache.getline(name, frame.f_lineno).strip()
    return f"{name}:{frame.f_lineno}" + (f": {text}" if text else "")
