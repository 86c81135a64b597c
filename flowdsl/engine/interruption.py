"""Runs that are let go although their code has not failed: their runtime closes, or Python is ending.

When the main thread has ended, the pools of ``concurrent.futures`` refuse work, ``asyncio.to_thread`` too.
Later Python starts no more threads. A run that still executes meets these refusals in its own code or in
ours. It is interrupted then, and can be resumed: the refusal says nothing about its code.
"""

import concurrent.futures

from flowdsl.codecs.exceptions.handling import cause_of, context_of, text_of, walk
from flowdsl.errors import FlowError

__all__ = ["closed", "python_ends", "refused_at_exit"]


def closed(run_id: str) -> FlowError:
    """The error of a run that its runtime let go when it closed."""
    return FlowError(
        f"run {run_id} was interrupted because its runtime was closed; it can be resumed", run=run_id
    )


def python_ends(run_id: str) -> FlowError:
    """The error of a run that could not go on because Python is ending."""
    return FlowError(
        f"run {run_id} was interrupted because Python is ending and begins no more work; it can be resumed",
        run=run_id,
    )


def refused_at_exit(error: BaseException | None) -> bool:
    """Whether *error*, or one that it comes from, is Python's refusal to begin work because it is ending."""
    for link in walk(error, cause_of, context_of):
        if type(link) is RuntimeError and "shutdown" in text_of(link):
            return _python_is_ending()
    return False


def _python_is_ending() -> bool:
    """Whether pools of the standard library take no more work. An old pool does not tell: its user may have
    shut it down. So a new one is asked."""
    try:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        pool.submit(int)
    except RuntimeError:
        return True
    pool.shutdown(wait=False)
    return False
