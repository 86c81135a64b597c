"""The pytest plugin of flowdsl. It is beside the package, not in it. So a session that does not use flowdsl
does not import it: the package is imported when a fixture, a history or a test needs it.
"""

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowdsl.runtime import Runtime
    from flowdsl.storage import MemoryStorage
    from flowdsl.testing.clock import VirtualClock

__all__ = [
    "_flow_default",
    "flow_clock",
    "flow_runtime",
    "flow_storage",
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_configure_node",
    "pytest_sessionstart",
    "pytest_unconfigure",
]

_RUNTIME = "flowdsl.runtime"


class _Session:
    """The default runtime between tests. It is in memory, so code that executes at import or collection
    writes nothing to disk.
    """

    def __init__(self) -> None:
        self.between: Any = None
        self.finder = _WhenImported(self.begin)

    def begin(self) -> None:
        """Set the default runtime, unless flowdsl is not imported or the user has configured one."""
        module: Any = sys.modules.get(_RUNTIME)
        if module is None:
            self.finder.install()
            return
        if self.between is not None:
            return
        before = module.set_default(None)
        if before is None:
            self.between = module.Runtime("memory://", name="between-tests")
            before = self.between
        module.set_default(before)

    def end(self) -> None:
        """Remove it again."""
        self.finder.remove()
        if self.between is None:
            return
        module: Any = sys.modules[_RUNTIME]
        now = module.set_default(None)
        if now is not self.between:
            module.set_default(now)
        self.between.close()
        self.between = None


class _WhenImported:
    """An entry of ``sys.meta_path`` that calls *then* once the runtime has been imported."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def install(self) -> None:
        """Begin to watch."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop watching."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find only the module of the runtime, as the other finders would."""
        if name != _RUNTIME:
            return None
        self.remove()
        spec = find_spec(name)
        if spec is not None:
            loader: Any = _Loader(spec.loader, self._then)
            spec.loader = loader
        return spec


class _Loader:
    """Loads a module as *loader* does, then calls *then*. The loader may load other modules too, as pytest's
    does."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as the loader does. The module keeps the original loader."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then()


_SESSION = pytest.StashKey[_Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Set the default runtime before anything is collected."""
    session.config.stash.setdefault(_SESSION, _Session()).begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the default runtime at the end."""
    found = config.stash.get(_SESSION, None)
    if found is not None:
        found.end()


@pytest.fixture(autouse=True)
def _flow_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give each test a default runtime of its own, in memory. A runtime that the user configured is not
    changed."""
    session = request.config.stash[_SESSION]
    session.begin()
    module: Any = sys.modules.get(_RUNTIME)
    if module is None:
        yield
        return
    before = module.set_default(None)
    configured = before is not None and before is not session.between
    module.set_default(before if configured else module.Runtime("memory://", name="test"))
    yield
    mine = module.set_default(before)
    if mine is not None and mine is not before:
        mine.close()


@pytest.fixture
def flow_storage() -> "Iterator[MemoryStorage]":
    """A fresh storage in memory."""
    from flowdsl.storage import MemoryStorage

    with MemoryStorage() as storage:
        yield storage


@pytest.fixture
def flow_clock() -> "VirtualClock":
    """A virtual clock: sleeps end at once."""
    from flowdsl.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def flow_runtime(flow_storage: "MemoryStorage", flow_clock: "VirtualClock") -> "Iterator[Runtime]":
    """The current runtime, over ``flow_storage`` and ``flow_clock``."""
    from flowdsl.runtime import Runtime

    with Runtime(flow_storage, clock=flow_clock) as runtime:
        yield runtime


# Recorded histories -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options ``--flowdsl-histories`` and ``flowdsl_histories``."""
    group = parser.getgroup("flowdsl")
    group.addoption(
        "--flowdsl-histories",
        action="append",
        metavar="DIR",
        help="replay every history (a .json that `flowdsl export` made) in this folder against today's code",
    )
    parser.addini("flowdsl_histories", "folders with recorded histories to replay", type="paths", default=[])


def _folders(config: pytest.Config) -> list[Path]:
    """The folders that were named, by option or in the configuration."""
    given = [
        config.invocation_params.dir / folder for folder in config.getoption("--flowdsl-histories") or ()
    ]
    found = [Path(folder).resolve() for folder in [*given, *config.getini("flowdsl_histories")]]
    for folder in found:
        if not folder.is_dir():
            raise pytest.UsageError(f"flowdsl histories: there is no folder {folder}")
    return found


def _all_wanted(config: pytest.Config) -> bool:
    """Whether all histories are replayed. They are not if the user selected some tests."""
    known: dict[str, Any] | None = getattr(config, "workerinput", None)
    if known is not None:
        return bool(known["flowdsl_all_histories"])
    asked = config.args_source is pytest.Config.ArgsSource.ARGS
    return bool(config.getoption("--flowdsl-histories")) or not asked


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist what only this process knows."""
    node.workerinput["flowdsl_all_histories"] = _all_wanted(node.config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect each ``.json`` file in one of the folders as a history."""
    if file_path.suffix != ".json":
        return None
    if not any(folder in file_path.resolve().parents for folder in _folders(parent.config)):
        return None
    from flowdsl.testing.history.collect import HistoryFile

    return HistoryFile.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add histories from folders outside the tests."""
    folders = _folders(config)
    if folders and _all_wanted(config):
        from flowdsl.testing.history.collect import missing_items

        items += missing_items(session, folders, items)
