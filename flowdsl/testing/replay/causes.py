"""What makes a workflow differ from one execution to the next, and what to do about each."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flowdsl.blocks import block
from flowdsl.testing.user_code import in_workflow_body, is_asked_by_user, line_of, user_frame

__all__ = ["ADVICE", "noticing"]

CLOCK = "the wall clock"
CHANCE = "random numbers"
IDS = "new ids"
OUTSIDE = "what is outside (files, processes)"
PROCESS = "what is each process's own (its id, its host, addresses, hashes of texts)"
ENVIRONMENT = "the environment"
ZONE = "the time zone or the locale"
DIRECTORY = "the working directory"
SETS = "the order of a set"
MEMORY = "what is kept in memory (globals, caches)"
ORDER = "the order in which concurrent steps end"
SAME_ORDER = "concurrent steps end in the order of the first execution"
ARGUMENT = "an argument that a step changes"
UNRECORDED = "a step that leaves no record"
THREADS = "steps in threads that the run does not know"
ANYTHING = "something that is different at each execution"

ADVICE = {
    CLOCK: "Take the time from flowdsl.now(), or from a step: both are recorded.",
    CHANCE: "Draw random numbers from flowdsl.rng(), which replays, or in a step.",
    IDS: "Make ids with flowdsl.uuid4(), which replays, or in a step.",
    OUTSIDE: "Look at what is outside in a step.",
    PROCESS: "Another process has another one. Take it in a step, or make ids with flowdsl.uuid4().",
    ENVIRONMENT: "Read settings in a step, or give them to the workflow as arguments.",
    ZONE: "Name the time zone and the format, or look at them in a step.",
    DIRECTORY: "Give the workflow whole paths, or look at the working directory in a step.",
    SETS: "Sort it: another process has another order.",
    MEMORY: "Keep state in flowdsl.store or in what steps return. @step(memo=True) is a cache that replays.",
    ORDER: (
        "Take results in the order of the calls, as gather(), map() and asyncio.gather() give them. For the "
        "first of several, use race(): it records which one won."
    ),
    ARGUMENT: "Let the step return the changed value: a replay does not execute it, and misses it.",
    UNRECORDED: "Such a step is executed again at each resume: make it mode 'do', whose result is recorded.",
    THREADS: "Call step.submit(…) or step.map(…): these threads know the run.",
    ANYTHING: (
        "Whatever can differ has to come from a step (or from now(), uuid4(), rng(), store): times, random "
        "numbers, ids, settings, the order of a set or of ends, what was read from outside, what is kept in "
        "memory. In a step, store.get() reads what is there now: change values with increment() and push()."
    ),
}
"""What to do, by cause."""

_ALL = frozenset[str]()
_CALLS: dict[str, tuple[str, frozenset[str]]] = {
    "time": (CLOCK, _ALL),
    "datetime": (CLOCK, frozenset({"now", "utcnow", "today"})),
    "asyncio.base_events": (CLOCK, frozenset({"time"})),
    "resource": (CLOCK, frozenset({"getrusage"})),
    "email.utils": (CLOCK, frozenset({"formatdate", "localtime", "make_msgid"})),
    "pandas._libs.tslibs.timestamps": (CLOCK, frozenset({"now", "today", "utcnow"})),
    "_random": (CHANCE, _ALL),
    "random": (CHANCE, _ALL),
    "secrets": (CHANCE, _ALL),
    "numpy.random.mtrand": (CHANCE, _ALL),
    "uuid": (IDS, frozenset({"uuid1", "uuid4", "uuid6", "uuid7"})),
    "os": (ENVIRONMENT, frozenset({"getenv", "__getitem__", "__iter__", "__len__"})),
    "socket": (PROCESS, frozenset({"gethostname", "getfqdn"})),
    "_socket": (PROCESS, frozenset({"gethostname"})),
    "platform": (PROCESS, _ALL),
    "flowdsl.testing.replay.surroundings": (PROCESS, frozenset({"uname", "gethostname", "cpu_count"})),
    "getpass": (PROCESS, frozenset({"getuser"})),
    "builtins": (PROCESS, frozenset({"id", "hash"})),
    "gc": (PROCESS, _ALL),
    "_asyncio": (PROCESS, frozenset({"get_name"})),
    "_thread": (PROCESS, frozenset({"get_ident", "get_native_id"})),
    "tempfile": (OUTSIDE, _ALL),
    "asyncio.tasks": (ORDER, frozenset({"as_completed", "wait"})),
    "concurrent.futures._base": (ORDER, frozenset({"as_completed", "wait"})),
}
"""Modules whose functions give something else each time. An empty set means all functions of a module."""

_POSIX = {
    "urandom": CHANCE,
    "getrandom": CHANCE,
    "times": CLOCK,
    "getpid": PROCESS,
    "getppid": PROCESS,
    "getpgid": PROCESS,
    "getpgrp": PROCESS,
    "getsid": PROCESS,
    "uname": PROCESS,
    "cpu_count": PROCESS,
    "getcwd": DIRECTORY,
    "listdir": OUTSIDE,
    "scandir": OUTSIDE,
    "stat": OUTSIDE,
    "lstat": OUTSIDE,
    "access": OUTSIDE,
    "statvfs": OUTSIDE,
    "getloadavg": OUTSIDE,
}


def _cause(module: str, name: str) -> str | None:
    if module in ("posix", "nt"):
        return _POSIX.get(name)
    if name in ("sleep", "seed", "<module>"):
        return None
    cause, names = _CALLS.get(module, (None, _ALL))
    return cause if not names or name in names else None


@block
def noticing(found: list[tuple[str, str]]) -> Iterator[None]:
    """Note when bodies of workflows call something that gives another result each time: its cause and
    place.
    """

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call":
            owner = getattr(arg, "__self__", None)
            module = getattr(arg, "__module__", None) or type(owner).__module__
            if isinstance(owner, type):  # of a subclass it is still the class that has the method
                module = next((one for one in owner.__mro__ if arg.__name__ in vars(one)), owner).__module__
            caller, name = frame, arg.__name__
        elif event == "call" and frame.f_back is not None:
            module, name, caller = frame.f_globals.get("__name__"), frame.f_code.co_name, frame.f_back
        else:
            return
        if name == "hash" and caller.f_code.co_name == "__hash__":
            return  # a set or dictionary asks
        cause = _cause(str(module), name)
        if cause is None or not in_workflow_body(2):
            return
        user = user_frame(2)
        if user is caller or (user is not None and cause is ENVIRONMENT and is_asked_by_user(2)):
            where = f"at {line_of(user)}"
        elif caller.f_globals.get("__name__") == "concurrent.futures.thread":
            where = "in a thread of its own"
        else:
            return
        place = f"{str(module).lstrip('_')}.{name}() {where}"
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
