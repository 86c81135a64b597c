"""Pools of processes: which executor is one, and what replaces one that takes no more work."""

import importlib
from concurrent.futures import Executor, ThreadPoolExecutor
from types import ModuleType
from typing import Any

from flowdsl.engine.engine import Engine
from flowdsl.threads import ThreadPool

__all__ = ["coordinators", "elsewhere", "working"]


def elsewhere(executor: Executor | None) -> bool:
    """Whether *executor* may execute in another process, so that work has to be pickled for it."""
    return executor is not None and not isinstance(executor, ThreadPoolExecutor | ThreadPool)


def coordinators(engine: Engine, executor: Executor) -> ThreadPool:
    """Threads that wait for the workers of *executor*, as many as it has."""
    with engine.lock:
        found = engine.coordinators.get(id(executor))
        if found is None:
            workers = getattr(executor, "_max_workers", None) or 32
            found = ThreadPool(int(workers), "flowdsl-coordinator")
            engine.coordinators[id(executor)] = found
    return found


def _processes() -> ModuleType:
    """The module of process pools. Its import takes 10 ms, so only users of a pool pay for it."""
    return importlib.import_module("concurrent.futures.process")


def _is_broken(executor: Executor) -> bool:
    """Whether a pool of the standard library or of loky has lost a worker and takes no more work."""
    flags = getattr(executor, "_flags", None)
    return bool(getattr(executor, "_broken", False) or getattr(flags, "broken", None))


def _is_full(engine: Engine, executor: Executor) -> bool:
    """Whether every worker of a pool of the standard library hangs in a body that was given up."""
    hung = [future for future in engine.hung.pop(id(executor), ()) if not future.done()]
    if not hung or not isinstance(executor, _processes().ProcessPoolExecutor):
        return False
    engine.hung[id(executor)] = hung
    facts: Any = executor  # pools do not tell what they are made of
    return len(hung) >= int(facts._max_workers)


def working(engine: Engine, executor: Executor) -> Executor:
    """*executor*, or the replacement of a pool of processes that takes no more work: a worker of it was
    killed, or all of them hang."""
    with engine.lock:
        live = engine.replaced.get(id(executor), executor)
        if not _is_broken(live) and not _is_full(engine, live):
            return live
        facts: Any = executor  # pools do not tell what they are made of
        if type(executor).__module__.partition(".")[0] == "loky":
            loky = importlib.import_module("loky")
            live = loky.get_reusable_executor(max_workers=facts._max_workers)
        elif isinstance(executor, _processes().ProcessPoolExecutor):
            live = _processes().ProcessPoolExecutor(
                facts._max_workers,
                facts._mp_context,
                initializer=facts._initializer,
                initargs=facts._initargs,
            )
        engine.replaced[id(executor)] = live
        return live
