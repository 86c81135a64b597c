"""The traceback of an exception that leaves a run: the user's frames, without ours in between.

``FLOWDSL_TRACEBACK=full`` in the environment shows all.
"""

import os
from types import TracebackType

from flowdsl.codecs.exceptions.handling import (
    cause_of,
    context_of,
    exceptions_of,
    set_context,
    set_traceback,
    traceback_of,
)
from flowdsl.engine.callsite import is_ours
from flowdsl.errors import Stopped

__all__ = ["of_the_user", "trim"]


def trim(error: BaseException) -> None:
    """Remove frames that nobody looks for from the traceback of *error*, and from those it was raised
    from."""
    if os.environ.get("FLOWDSL_TRACEBACK") == "full":
        return
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        context = context_of(link)
        if context is not None and _is_internal(context):
            set_context(link, None)
            context = None
        if isinstance(link, BaseExceptionGroup):
            chain.extend(exceptions_of(link))
        chain += [cause_of(link), context]
        set_traceback(link, of_the_user(traceback_of(link)))


def _is_internal(context: BaseException) -> bool:
    """Whether we raised and handled it: none of its frames is the user's."""
    frames = traceback_of(context)
    return isinstance(context, Stopped) or (frames is not None and of_the_user(frames) is None)


def of_the_user(frames: TracebackType | None) -> TracebackType | None:
    """The same traceback without our frames."""
    kept: list[TracebackType] = []
    while frames is not None:
        if not is_ours(frames.tb_frame.f_code.co_filename):
            kept.append(frames)
        frames = frames.tb_next
    found: TracebackType | None = None
    for one in reversed(kept):
        line = -1 if one.tb_lineno is None else one.tb_lineno  # a signal may come where code has no line
        found = TracebackType(found, one.tb_frame, one.tb_lasti, line)
    return found
