"""Python processes that start at once: copies of one that has imported flowdsl already.

Importing takes most of the time of a test that starts ``flowdsl`` or a script. :class:`Popen` and :func:`run`
are those of ``subprocess``, for commands that begin with ``sys.executable``. Their process is forked from one
that serves a whole test session. It begins as a new one would: ``__main__``, arguments, environment, directory,
streams and warnings are its own. What needs another interpreter (a hash seed, a change before the import)
takes ``subprocess``. ``Popen.importing(...)`` makes a class whose processes have imported more, or begin with
other variables, such as a library to preload.
"""

import atexit
import ctypes
import gc
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import warnings
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

__all__ = ["Popen", "run"]

_HEAD = struct.Struct("!Q")
_LATE = {"bench", "ui"}  # commands that import what few tests need


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is forked; see ``subprocess.Popen``."""

    imports: ClassVar[tuple[str, ...]] = ()
    begins: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def importing(cls, *modules: str, **variables: str) -> "type[Popen]":
        """A class whose processes are forked from one of their own, which has imported these *modules* too. That
        one was started with *variables* in its environment; a fork has only those that it is given."""
        return type("Popen", (cls,), {"imports": modules, "begins": tuple(variables.items())})

    def _execute_child(self, args: Any, *rest: Any) -> None:
        _, _, _, _, cwd, env, _, _, _, child_in, to_child, from_child, child_out, errors, child_err, *more = (
            rest
        )
        assert args[0] == sys.executable, args
        streams = [child_in, child_out, child_err]
        given = [n if fd == -1 else fd for n, fd in enumerate(streams)]
        told, answers = os.pipe()
        asked = {
            "args": [os.fspath(arg) for arg in args[1:]],
            "cwd": os.path.abspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": more[-2],
        }
        _server(self.imports, self.begins).ask(asked, [*given, answers])
        os.close(answers)
        self._answers = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told())
        self._child_created = True
        self._close_pipe_fds(child_in, to_child, from_child, child_out, errors, child_err)

    def _told(self) -> bytes:
        return self._answers.readline().strip()

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        status = int(self._told() or signal.SIGKILL)  # nothing: whoever would have told was killed
        self._answers.close()
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(
    command: list[Any],
    *,
    input: Any = None,
    timeout: float = 60,
    check: bool = False,
    start: type[Popen] = Popen,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Execute *command* to its end; see ``subprocess.run``. *start* is what makes the process."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with start(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


# The process that is copied ----------------------------------------------------------------------------


class _Server:
    def __init__(self, imports: tuple[str, ...], begins: tuple[tuple[str, str], ...]) -> None:
        self._lock = threading.Lock()
        self._requests, other = socket.socketpair()
        command = [sys.executable, __file__, str(other.fileno()), *imports]
        self._process = subprocess.Popen(
            command,
            pass_fds=[other.fileno()],
            start_new_session=True,
            env={**os.environ, **dict(begins)},
        )
        other.close()
        atexit.register(self.close)

    def ask(self, asked: dict[str, Any], fds: list[int]) -> None:
        data = json.dumps(asked).encode()
        with self._lock:
            socket.send_fds(self._requests, [_HEAD.pack(len(data))], fds)
            self._requests.sendall(data)

    def close(self) -> None:
        self._requests.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open
        self._requests.close()
        self._process.wait()


@cache
def _server(imports: tuple[str, ...], begins: tuple[tuple[str, str], ...]) -> _Server:
    return _Server(imports, begins)


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns what a copy is asked to be, and ``None`` when nobody asks any more."""
    while True:
        head, fds, *_ = socket.recv_fds(requests, _HEAD.size, 4)
        if not head:
            return None
        (length,) = _HEAD.unpack(head)
        data = requests.recv(length, socket.MSG_WAITALL)
        if not os.fork():  # this one waits for the copy, and tells how it ended
            pid = os.fork()
            if not pid:
                requests.close()
                found: dict[str, Any] = json.loads(data)
                if found["session"]:
                    os.setsid()
                os.write(fds[3], b"%d\n" % os.getpid())
                os.close(fds.pop())
                for number, fd in enumerate(fds):
                    os.dup2(fd, number)
                    os.close(fd)
                return found
            try:
                for fd in (0, 1, 2, *fds[:3]):
                    os.close(fd)
                os.write(fds[3], b"%d\n" % os.waitpid(pid, 0)[1])
            finally:  # whatever happens: it is not to serve
                os._exit(0)
        for fd in fds:
            os.close(fd)
        while True:  # what has ended by now
            try:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    break
            except ChildProcessError:
                break


def _become(asked: dict[str, Any], paths: list[str]) -> NoReturn:
    """Do what a new interpreter does with these arguments."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    _open_streams()
    args: list[str] = asked["args"]
    sys.warnoptions[:] = []
    while args[0] == "-W":
        sys.warnoptions.append(args[1])
        warnings.simplefilter(args[1])
        args = args[2:]
    more = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if args[0] == "-m":
        sys.argv, sys.path[:] = args[1:], [os.getcwd(), *more, *paths]
        import runpy

        runpy._run_module_as_main(args[1])  # what ``python -m`` calls
    elif args[0] == "-c":
        sys.argv, sys.path[:] = ["-c", *args[2:]], ["", *more, *paths]
        exec(compile(args[1], "<string>", "exec"), main.__dict__)
    else:
        path = os.path.abspath(args[0])
        sys.argv, sys.path[:] = args, [os.path.dirname(path), *more, *paths]
        main.__file__ = path
        exec(compile(Path(path).read_bytes(), path, "exec"), main.__dict__)
    sys.exit()


def _open_streams() -> None:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    through = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        buffering = 0 if through and number else -1
        buffer: Any = open(number, "wb" if number else "rb", buffering, closefd=False)
        stream = io.TextIOWrapper(
            buffer,
            encoding or "utf-8",
            "backslashreplace" if number == 2 else errors or "strict",
            line_buffering=number == 2 or buffer.isatty(),
            write_through=through and bool(number),
        )
        stream.mode = "w" if number else "r"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _without_our_frames(kind: Any, error: BaseException, frames: types.TracebackType | None) -> None:
    while frames is not None and frames.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        frames = frames.tb_next
    sys.__excepthook__(kind, error.with_traceback(frames), frames)


def _import(modules: list[str]) -> None:
    import asyncio  # noqa: F401
    import importlib

    from flowdsl.cli._app import COMMANDS

    importlib.import_module("flowdsl.storage.sqlite")
    for name in COMMANDS:
        if name not in _LATE:
            importlib.import_module(f"flowdsl.cli.{name}")
    for name in modules:
        importlib.import_module(name)


_NEEDED = frozenset("__main__ builtins sys warnings linecache tokenize traceback io os codecs".split())
_imported: list[str] = []


def _leave() -> None:
    """Let the end of a copy take apart what is its own. To do so with what was imported before takes most of the
    time of a short process, because each page of it is copied first."""
    left = [sys.modules.pop(name) for name in _imported if name in sys.modules]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))


if __name__ == "__main__":
    _folder, *_paths = sys.path
    _paths = [path for path in _paths if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    # The installed flowdsl is found first, as any process would find it; at the end stands what tests import.
    sys.path[:] = [*sys.path[1:], str(Path(__file__).parent.parent)]
    atexit.register(_leave)  # before all others, so it is called after them
    _import(sys.argv[2:])
    _imported += sys.modules.keys() - _NEEDED
    gc.freeze()
    _asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if _asked is not None:
        sys.excepthook = _without_our_frames
        _become(_asked, _paths)
