"""Other processes, each with another hash seed. They continue a workflow as another machine would.

They start when they are first needed, and serve all checks of this process, because starting Python costs
more than a check.
"""

import atexit
import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flowdsl.testing.replay.process as other
from flowdsl.testing.replay.observed import Life, Plan, Sight
from flowdsl.testing.replay.travel import modules_without_file, pack

__all__ = ["Elsewhere", "Unreachable"]

_SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
_IF_UNSET = ("1", "elsewhere")  # a number too, because whoever wants one may take no text in silence
_PATIENCE = 60.0  # seconds that one execution may take in such a process
_TO_IMPORT = 300.0  # seconds for the modules of the user, and for Python itself
_ROOT = str(Path(__file__).parents[3])


class Unreachable(Exception):
    """A workflow cannot execute in another process. The text says why."""


class _Process:
    """A process of one hash seed."""

    def __init__(self, seed: int) -> None:
        if not hasattr(os, "fork"):
            raise Unreachable("other processes need os.fork, which this system does not have")
        self._seed = seed
        self._owner = os.getpid()
        self._modules: dict[str, Any] = {}
        self._imported: tuple[str, ...] = ()
        self._only_plainly: set[str] = set()
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path}
        environment.pop("PYTHONSTARTUP", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", other.__name__, _IF_UNSET[seed % 2]],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it can be ended with what it started, and Ctrl-C is not for it
        )

    def serves(self) -> bool:
        """Whether it can still be asked."""
        return self._owner == os.getpid() and self._process.poll() is None

    def prepare(self, modules: dict[str, Any], imported: tuple[str, ...]) -> None:
        """Import *modules* there, as they are now, under the changes *imported*. Raises
        :class:`Unreachable`. Modules that cannot be imported under any change are imported without."""
        if self._only_plainly & modules.keys():
            imported = ()
        changed = any(self._modules.get(name, found) != found for name, found in modules.items())
        if changed or imported != self._imported:
            self.restart()
            self._imported = imported
        new = {name: found for name, found in modules.items() if name not in self._modules}
        if not new:
            return
        fault = self._ask("prepare", list(sys.path), new, _surroundings(), imported)
        if not fault:
            self._modules |= new
        elif imported:
            self._only_plainly |= new.keys()
            self.prepare(modules, ())
        else:
            raise Unreachable(f"its modules cannot be imported there: {fault}")

    def restart(self) -> None:
        """Forget what was imported there."""
        self._ask("restart")
        self._modules = {}

    def execute(self, data: bytes, point: int, changes: tuple[str, ...], notice: bool) -> Sight:
        """Continue there. Raises :class:`Unreachable` if nothing can be concluded from it."""
        found = self._ask("execute", data, point, changes, notice, _surroundings())
        if isinstance(found, str):
            raise Unreachable(found)
        sight: Sight = found
        return sight

    def _ask(self, *message: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            other.send(process.stdin, message)
            patience = _PATIENCE if message[0] == "execute" else _TO_IMPORT
            if not select.select([process.stdout], [], [], patience)[0]:
                self.close()
                raise Unreachable(f"it did not end there within {patience:g} seconds")
            return other.receive(process.stdout)
        except (EOFError, OSError) as error:
            self.close()
            raise Unreachable(f"the other process ended: {error or 'without a word'}") from error

    def close(self) -> None:
        """End it."""
        if self._owner != os.getpid():
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _surroundings() -> other.Surroundings:
    """What a process inherits at its start, as it is here now. The other processes live long."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it was deleted
        directory = ""
    return directory, dict(os.environ), list(sys.argv)


_processes: dict[int, _Process] = {}


@atexit.register
def _close_all() -> None:
    for process in _processes.values():
        process.close()
    _processes.clear()


class Elsewhere:
    """Continues one workflow in other processes. It is made before the first execution. The processes begin
    with what is in memory then.
    """

    def __init__(self, plan: Plan, main: str) -> None:
        self._plan = plan
        self._by_hand = modules_without_file("__main__", main)
        self._packed, self._modules = pack((plan.workflow, plan.args, plan.kwargs, plan.fakes, self._by_hand))
        self._data = b""
        next(self.numbers(2))  # they start while the workflow is executed here

    def has_happened(self, first: Life) -> None:
        """Take along what the *first* execution found out."""
        plan = self._plan
        options = {key: one for key, one in plan.options.items() if key not in ("hooks", "executor", "clock")}
        asked = (options, plan.signals, plan.is_async)
        found = (plan.begun, plan.outcomes, plan.ended, plan.inner, plan.losers, plan.cut_off)
        seen = (first.commits, first.puts, first.value, first.error)
        more, modules = pack((asked, found, seen))
        self._modules |= modules
        self._data = pickle.dumps((self._packed, more), 5)

    def sight(
        self,
        number: int,
        point: int,
        changes: tuple[str, ...],
        *,
        notice: bool = False,
        imported: tuple[str, ...] = (),
    ) -> Sight:
        """What the workflow shows in process *number*, continued after *point* commits. Its modules were
        *imported* under some of the changes. Raises :class:`Unreachable`."""
        return self._process(_SEEDS[number], imported).execute(self._data, point, changes, notice)

    def _process(self, seed: int, imported: tuple[str, ...]) -> _Process:
        process = _processes.get(seed)
        if process is None or not process.serves():
            if process is not None:
                process.close()
            process = _processes[seed] = _Process(seed)
        process.prepare(self._modules, imported)
        return process

    def restart(self, number: int) -> None:
        """Begin the process *number* anew, with the same hash seed."""
        process = _processes.get(_SEEDS[number])
        if process is not None and process.serves():
            process.restart()

    def numbers(self, wanted: int) -> Iterator[int]:
        """Numbers of processes. While one is asked, the next one starts."""
        count = min(wanted, len(_SEEDS))
        for number in range(count):
            for ahead in range(number, min(number + 2, count)):
                if _SEEDS[ahead] not in _processes:
                    _processes[_SEEDS[ahead]] = _Process(_SEEDS[ahead])
            yield number
