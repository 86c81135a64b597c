"""What makes a workflow differ from one execution to the next, and what to do about each."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowdsl.testing.replay.surroundings import in_workflow_body, user_frame

__all__ = [
    "ADVICE",
    "ANYTHING",
    "ARGUMENT",
    "CHANCE",
    "CLOCK",
    "ENVIRONMENT",
    "IDS",
    "MEMORY",
    "ORDER",
    "OUTSIDE",
    "SETS",
    "UNRECORDED",
    "noticing",
]

CLOCK = "the wall clock"
CHANCE = "random numbers"
IDS = "new ids"
OUTSIDE = "what is outside (files, processes)"
ENVIRONMENT = "the environment"
SETS = "the order of a set"
MEMORY = "what is kept in memory (globals, caches)"
ORDER = "the order in which concurrent steps end"
ARGUMENT = "an argument that a step changes"
UNRECORDED = "a step that leaves no record"
ANYTHING = "something that is different at each execution"

ADVICE = {
    CLOCK: "Take the time from flowdsl.now(), or from a step: both are recorded.",
    CHANCE: "Draw random numbers from flowdsl.rng(), which replays, or in a step.",
    IDS: "Make ids with flowdsl.uuid4(), which replays, or in a step.",
    OUTSIDE: "Look at what is outside in a step.",
    ENVIRONMENT: "Read settings in a step, or give them to the workflow as arguments.",
    SETS: "Sort it: another process has another order.",
    MEMORY: "Keep state in flowdsl.store or in what steps return. @step(memo=True) is a cache that replays.",
    ORDER: "Take results in the order of the calls, as gather(), map() and asyncio.gather() give them.",
    ARGUMENT: "Let the step return the changed value: a replay does not execute it, and misses it.",
    UNRECORDED: "Such a step is executed again at each resume: make it mode 'do', whose result is recorded.",
    ANYTHING: (
        "Whatever can differ has to come from a step (or from now(), uuid4(), rng(), store): times, random "
        "numbers, ids, settings, the order of a set, what was read from outside, what is kept in memory. In "
        "a step, store.get() reads what is there now: change values with increment() and push()."
    ),
}
"""What to do, by cause."""

_CALLS = {
    "time": (CLOCK, None),
    "datetime": (CLOCK, {"now", "utcnow", "today"}),
    "_random": (CHANCE, None),
    "random": (CHANCE, None),
    "secrets": (CHANCE, None),
    "uuid": (IDS, {"uuid1", "uuid4"}),
    "posix": (OUTSIDE, {"urandom", "getpid", "listdir", "scandir", "getcwd", "stat"}),
}
"""Modules whose functions give something else each time; ``None`` for all of them."""


def _cause(module: str | None, name: str) -> str | None:
    cause, names = _CALLS.get(module or "", (None, None))
    return cause if cause is not None and (names is None or name in names) else None


@contextmanager
def noticing(found: list[tuple[str, str]]) -> Iterator[None]:
    """Note the calls that the bodies of workflows make of what gives something else each time: cause and
    place.
    """

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call":
            owner = getattr(arg, "__self__", None)
            module = getattr(arg, "__module__", None) or type(owner).__module__
            if isinstance(owner, type):
                module = owner.__module__
            caller, name = frame, arg.__name__
        elif event == "call" and frame.f_back is not None:
            module, name, caller = frame.f_globals.get("__name__"), frame.f_code.co_name, frame.f_back
        else:
            return
        cause = _cause(module, name)
        if cause is None or not in_workflow_body() or user_frame(2) is not caller:
            return
        place = f"{module.lstrip('_')}.{name}() at {_place(caller)}"
        if (cause, place) not in found:
            found.append((cause, place))

    before: Callable[..., Any] | None = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def _place(frame: Any) -> str:
    import linecache

    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    return f"{name}:{line}" + (f": {text}" if text else "")
