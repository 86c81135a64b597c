"""Steps that are called outside any run while a run executes in this process: in a thread that a body has
started by itself, or in a forked child. The run does not reach there, so the call leaves no record."""

import os
import threading
import warnings

from flowdsl.engine.callsite import user_level
from flowdsl.engine.engine import Engine, engines

__all__ = ["say_if_outside"]


class _Process:
    """What this process knows: whether a run executed at the last fork, whether the process is the child of
    such a fork, and whether it has warned."""

    forks_inside = False
    child = False
    warned = False


_process = _Process()


def _executing() -> list[Engine]:
    return [engine for engine in engines() if engine.owned.executions()]


def _before_fork() -> None:
    _process.forks_inside = bool(_executing())


def _in_child() -> None:
    _process.child = _process.forks_inside


os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def say_if_outside(path: str) -> None:
    """Step *path* is called outside any run. If it may have been meant as part of one, warn once in a
    process, and tell the hooks each time."""
    thread = threading.current_thread()
    executing = _executing()
    if thread.name.startswith("flowdsl-"):  # our own threads know their run
        return
    if not (executing and thread is not threading.main_thread()) and not _process.child:
        return
    for engine in executing:
        engine.hooks.fire("called_outside", path)
    if _process.warned:
        return
    _process.warned = True
    name = path.rpartition(".")[2]
    warnings.warn(
        f"step {path} is called outside any run, in a thread or process that no run reaches into, while a "
        f"run executes here: the call is not recorded. In a body use {name}.submit(…) or {name}.map(…)",
        RuntimeWarning,
        stacklevel=user_level(),
    )
