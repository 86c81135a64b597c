"""Notebooks whose file is not known: their runs continue in one kernel only, which is said, once."""

import logging

from flowdsl.core.naming import unnamed_notebook

__all__ = ["how_to_name", "notice_unnamed"]

logger = logging.getLogger("flowdsl")

_told = False

_HOW = 'set FLOWDSL_NOTEBOOK, or call flowdsl.notebook.name("…") in its first cell'


def notice_unnamed(path: str, run_id: str | None) -> None:
    """Say, at the first run of this process, that it belongs to a notebook without a name."""
    global _told
    if _told or not unnamed_notebook(path):
        return
    _told = True
    logger.warning(
        "the front end does not say which notebook this is, so its runs continue in this kernel only. To "
        "continue them in the next one too, name the notebook: %s",
        _HOW,
        extra={"run": run_id, "step": None},
    )


def how_to_name(path: str) -> str:
    """What to do about a run of *path* that another kernel has begun; ``""`` for what is no such run."""
    return f". It was begun by a notebook without a name: {_HOW}" if unnamed_notebook(path) else ""
