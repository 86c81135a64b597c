"""Fixtures of all tests: storages, runtimes on virtual time, and nothing left over between tests."""

import compileall
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support import FLAVOURS, Crash, Effects, Flavour, Recorder, sqlite_storage

import flowdsl
from flowdsl import Runtime
from flowdsl.core.encoders import ENCODERS
from flowdsl.runtime import set_default
from flowdsl.storage import MemoryStorage, Storage
from flowdsl.testing import VirtualClock

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell does for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

for module in ("contract", "keeping", "lists", "messages", "records", "runs", "agreement", "samples"):
    pytest.register_assert_rewrite(f"flowdsl.testing.storage.{module}")

os.environ.pop("PYTEST_ADDOPTS", None)  # said to this session, not to those that tests start

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "default", deadline=None, max_examples=40, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile("campaign", deadline=None, max_examples=2000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once: most tests of processes spend their time on importing it, and where
    ``PYTHONDONTWRITEBYTECODE`` is set, each would compile it anew."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(flowdsl.__file__).parent, quiet=2)
        if config.getoption("numprocesses", None) and config.args == config.getini("testpaths"):
            _rewrite_tests(config)
        _use_memory(config)


def _rewrite_tests(config: pytest.Config) -> None:
    """Write what pytest makes of the assertions of each test file, in two processes. Each worker would do it
    anew, which takes twice as long as all else that it does before its first test."""
    try:
        from _pytest.assertion.rewrite import (
            PYC_TAIL,
            _read_pyc,
            _rewrite_test,
            _write_pyc,
            assertstate_key,
            get_cache_dir,
            try_makedirs,
        )
    except ImportError:  # another pytest names them otherwise; then the workers do it
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    other = os.fork() if hasattr(os, "fork") else None
    try:
        for path in files if other is None else files[0 if other else 1 :: 2]:
            pyc = get_cache_dir(path) / (path.stem + PYC_TAIL)
            if _read_pyc(path, pyc) is None and try_makedirs(pyc.parent):
                stat, code = _rewrite_test(path, config)
                _write_pyc(config.stash[assertstate_key], code, stat, pyc)
    finally:
        if other == 0:
            os._exit(0)
    if other:
        os.waitpid(other, 0)


def _use_memory(config: pytest.Config) -> None:
    """Let temporary files be in memory, those of workers and child processes too: on a disk, most of the time
    of the tests is waiting for it. ``TMPDIR`` says otherwise."""
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    if shutil.disk_usage(memory).free < 4 << 30:  # as in a container: 64 MB
        return
    folder = tempfile.TemporaryDirectory(prefix="flowdsl-", dir=memory, ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.chmod(folder.name, 0o755)  # run by root, some tests are another user for a moment
    os.environ["TMPDIR"] = tempfile.tempdir = folder.name


_FIRST = ("campaigns/", "web/test_browser.py", "notebook/", "contrib/test_dask.py", "test_benchmarks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First comes what takes long, or starts a process for a whole file. Of several workers, none is left with it
    at the end, and none takes the rest of such a file from another one, which comes from behind."""
    here = f"{Path(__file__).parent}/"
    items.sort(key=lambda item: not str(item.path).removeprefix(here).startswith(_FIRST))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: without it the collections that tests cause take no time."""
    gc.collect()
    gc.freeze()
    gc.callbacks.append(_time_collections)


_LONG = 0.003  # seconds that a full collection may take
_LOOKED_AFTER = 1000  # tests: a look at all objects takes as long as a few tests
_since = 0
_began = 0.0
_slow = False


def _time_collections(phase: str, info: dict[str, int]) -> None:
    """Note that full collections have become slow."""
    global _began, _slow
    if info["generation"] < 2:
        return
    if phase == "start":
        _began = time.thread_time()
    elif time.thread_time() - _began > _LONG:
        _slow = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """What tests have imported stays too. A function that is defined again, as in each case of a parametrised
    test, causes collections. Late in a session they took most of the time of such a test."""
    global _since, _slow
    result = yield
    _since += 1
    if _since >= _LOOKED_AFTER and nextitem is not None and nextitem.path != item.path:
        _since = 0
        gc.unfreeze()  # what has become garbage since
        _slow = True
    if _slow:
        ENCODERS.reset()  # it remembers classes of tests
        gc.collect()
        gc.freeze()
        _slow = False
    return result


@pytest.fixture(scope="session", autouse=True)
def _dead_threads() -> Iterator[None]:
    """A thread that a :class:`support.Crash` ends is one of a dead process, which nobody hears of."""
    before = threading.excepthook
    threading.excepthook = lambda args: None if issubclass(args.exc_type, Crash) else before(args)
    yield
    threading.excepthook = before


@pytest.fixture(autouse=True)
def _flow_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default runtime of a test is its own, in memory. That of the plugin, in whose place this is, is made for
    each test; this one only for a test that has no other, which few are."""
    monkeypatch.setenv("FLOWDSL_STORAGE", "memory://")
    monkeypatch.delenv("FLOWDSL_SECRET_KEY", raising=False)
    before = set_default(None)
    yield
    mine = set_default(before)
    if mine is not None:
        mine.close()


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A storage of each kind."""
    made: Storage = MemoryStorage() if request.param == "memory" else sqlite_storage(tmp_path / "flow.db")
    yield made
    made.close()


@pytest.fixture
def clock() -> VirtualClock:
    """Time that passes by itself."""
    return VirtualClock()


@pytest.fixture
def hooks() -> Recorder:
    """Hooks of the ``runtime`` fixture, which note all events."""
    return Recorder()


@pytest.fixture
def runtime(storage: Storage, clock: VirtualClock, hooks: Recorder) -> Iterator[Runtime]:
    """The current runtime."""
    with Runtime(storage, clock=clock, hooks=hooks) as made:
        yield made


@pytest.fixture
def another(storage: Storage, clock: VirtualClock) -> Iterator[Callable[..., Runtime]]:
    """Makes further runtimes on the same storage and clock; they are closed in the end."""
    made: list[Runtime] = []

    def make(on: Any = None, **options: Any) -> Runtime:
        made.append(Runtime(storage if on is None else on, **{"clock": clock, **options}))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


@pytest.fixture
def effects() -> Effects:
    """An empty effect log."""
    return Effects()


@pytest.fixture(params=FLAVOURS, ids=repr)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Sync, then async."""
    found: Flavour = request.param
    return found
