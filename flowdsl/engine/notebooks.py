"""Names of notebooks. Runs of an unnamed notebook continue only in the same kernel. That is said once."""

import logging

from flowdsl.core.naming import (
    UNNAMED,
    counted_name,
    in_notebook,
    main_name,
    name_notebook,
    unnamed_notebook,
)
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.errors import FlowError

__all__ = ["how_to_name", "name", "notice_unnamed"]

logger = logging.getLogger("flowdsl")

_begun = _told = False

_HOW = 'set FLOWDSL_NOTEBOOK, or call flowdsl.notebook.name("…") in its first cell'


def notice_unnamed(path: str, run_id: str | None) -> None:
    """Report, at the first run of this process, that it belongs to a notebook without a name."""
    global _begun, _told
    _begun = True
    if not path.startswith(UNNAMED) or _told:
        return
    _told = True
    logger.warning(
        "the front end does not say which notebook this is, so its runs continue in this kernel only. To "
        "continue them in the next one too, name the notebook: %s",
        _HOW,
        extra={"run": run_id, "step": None},
    )


def how_to_name(path: str) -> str:
    """What to do about a run of *path* that another kernel has begun; ``""`` if it is no such run."""
    return f". It was begun by a notebook without a name: {_HOW}" if unnamed_notebook(path) else ""


def name(name: str) -> str:
    """Name this notebook before its first run. Its runs then continue in the next kernel that gives it the
    same name. Functions that were decorated before are renamed with it. Outside a notebook this does nothing.

    Parameters: *name*, such as ``"sweep"``; of a path, the last part counts. Returns the name that counts:
    ``FLOWDSL_NOTEBOOK`` wins if it is set. Raises ``ValueError`` for an empty name, and
    :class:`~flowdsl.errors.FlowError` after a run was begun under another name.

    >>> import flowdsl.notebook
    >>> flowdsl.notebook.name("sweep")
    'sweep'
    """
    counts = counted_name(name)
    before, after = main_name(), f"notebook:{counts}"
    if not in_notebook() or before == after:
        return counts
    if _begun:
        raise FlowError(
            f"a run of this kernel was begun as {before!r}; name the notebook before its first run: restart "
            f"the kernel, and call flowdsl.notebook.name({name!r}) in the first cell"
        )
    name_notebook(name)
    for registry in (STEPS, WORKFLOWS):
        registry.rename(before, after)
    return counts
