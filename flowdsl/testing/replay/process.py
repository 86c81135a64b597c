"""The other process. It waits for workflows, and executes each in a child of its own. So no workflow finds
anything in memory that another one left there.

The process executes this module, with another hash seed. Messages are pickles, each after its length.

Importing flowdsl takes longest, so it is done once. The process that did it stays as it is. A copy of it (a
*place*) imports the modules of the user, and a copy of that executes one workflow. To begin anew, the place
ends and the next one is made.
"""

import importlib
import importlib.util
import os
import pickle
import struct
import sys
import time
import traceback
from types import ModuleType
from typing import IO, Any

from attrs import evolve

from flowdsl.testing.replay.causes import noticing
from flowdsl.testing.replay.execution import live, unfinished
from flowdsl.testing.replay.observed import Life, Plan, Sight
from flowdsl.testing.replay.report import difference
from flowdsl.testing.replay.surroundings import IMPORTED, another_host, elsewhere
from flowdsl.testing.replay.travel import NotTaken, unpack

__all__ = ["Surroundings", "main", "receive", "send"]

_LENGTH = struct.Struct("!Q")

Surroundings = tuple[str, dict[str, str], list[str]]
"""Working directory, environment, and command line."""


def send(pipe: IO[bytes], message: Any) -> None:
    """Write a message."""
    data = pickle.dumps(message, 5)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read a message. Raises ``EOFError`` if nobody writes any more."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    return pickle.loads(pipe.read(length))


class _Finder:
    """Finds the modules of the test where the test found them, whatever ``sys.path`` says."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find only modules whose file is known."""
        file = self._files.get(name, "")
        if not file or not os.path.exists(file):
            return None
        folders = [os.path.dirname(file)] if os.path.basename(file) == "__init__.py" else None
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)


def _take_over(surroundings: Surroundings) -> None:
    """Begin with what the process of the test has now."""
    directory, environment, sys.argv = surroundings
    if directory:
        os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def _prepare(
    paths: list[str],
    modules: dict[str, tuple[str, float]],
    surroundings: Surroundings,
    changes: tuple[str, ...],
) -> str:
    """Import what is needed, where *changes* have happened. Returns what went wrong, or ``""``."""
    _take_over(surroundings)
    sys.path[:] = map(os.path.abspath, paths)
    finder: Any = _Finder({name: file for name, (file, _) in modules.items() if file})
    sys.meta_path.append(finder)
    try:
        with elsewhere(changes, IMPORTED):
            for name in modules:
                importlib.import_module(name)
    except BaseException as error:  # the user's module may raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def _execute(
    data: bytes, point: int, changes: tuple[str, ...], notice: bool, surroundings: Surroundings
) -> Sight | str:
    """What a continued execution shows. A text if nothing can be concluded."""
    try:
        _take_over(surroundings)
        plan, first = _loaded(data)
        before = first.commits[:point]
        storage = unfinished(before, released=True)
        if storage is None:
            return Sight("", point, changes, True, ())
        noticed: list[tuple[str, str]] = []
        plan = evolve(plan, elsewhere=bool(changes))
        with elsewhere(changes):
            if notice:
                with noticing(noticed):
                    again = live(plan, storage, before, changes)
            else:
                again = live(plan, storage, before, changes)
        return _sight(first, again, point, noticed)
    except NotTaken as error:
        return str(error)
    except BaseException:  # the process that asked is told
        return traceback.format_exc()


def _loaded(data: bytes) -> tuple[Plan, Life]:
    """What the test knows, in this process."""
    code, found = pickle.loads(data)
    workflow, args, kwargs, fakes, by_hand = unpack(code)
    for name, facts in by_hand.items():  # records may name what is in them
        module = ModuleType(name)
        vars(module).update(facts)
        sys.modules[name] = module
    (options, signals, is_async), known, (commits, puts, value, error) = unpack(found)
    begun, outcomes, ended, inner, losers, cut_off = known
    plan = Plan(
        workflow,
        args,
        kwargs,
        is_async,
        fakes,
        options,
        signals,
        begun=begun,
        outcomes=outcomes,
        ended=ended,
        inner=inner,
        losers=losers,
        cut_off=cut_off,
    )
    return plan, Life((), (), error, value, commits, puts=puts)


def _sight(first: Life, again: Life, point: int, noticed: list[tuple[str, str]]) -> Sight | str:
    if isinstance(again.error, NotTaken):
        return str(again.error)
    what = difference(first, again)
    return Sight(what, point, again.changes, True, tuple(again.calls), tuple(noticed))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> int:
    """Be a place until it must begin anew (0), or nobody asks any more (1)."""
    while True:
        try:
            what, *rest = receive(requests)
        except EOFError:
            return 1
        if what == "restart":
            send(answers, None)
            return 0
        if what == "prepare":
            send(answers, _prepare(*rest))
        else:
            child = os.fork()
            if not child:
                send(answers, _execute(*rest))
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                send(answers, "the process ended before it was done")


def main(if_unset: str) -> None:
    """Serve until nobody asks any more."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # user code may read and write; nobody listens
        os.dup2(nothing, stream)
    another_host(if_unset)
    ended = 0
    while not ended:
        place = os.fork()
        if not place:
            os._exit(_serve(requests, answers))
        ended = os.waitpid(place, 0)[1]


if __name__ == "__main__":
    main(sys.argv[1])
