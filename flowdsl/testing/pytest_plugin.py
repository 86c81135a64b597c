"""The pytest plugin: fixtures, and a default runtime that never touches the disk. It imports nothing until
that is needed.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowdsl.runtime import Runtime
    from flowdsl.storage import MemoryStorage
    from flowdsl.testing.clock import VirtualClock

__all__ = ["flow_clock", "flow_runtime", "flow_storage"]


class _Session:
    """The default runtime between tests: in memory, so that code that runs at import or collection writes
    nothing either.
    """

    def __init__(self) -> None:
        self.between: Any = None

    def begin(self) -> None:
        """Put one in place, unless flowdsl is not imported or the user has configured one."""
        module = sys.modules.get("flowdsl.runtime")
        if module is None or self.between is not None:
            return
        before = module.set_default(None)
        if before is None or before.closed:
            self.between = module.Runtime("memory://", name="between-tests")
            before = self.between
        module.set_default(before)

    def end(self) -> None:
        """Take it away again."""
        if self.between is None:
            return
        module = sys.modules["flowdsl.runtime"]
        now = module.set_default(None)
        if now is not self.between:
            module.set_default(now)
        self.between.close()
        self.between = None


_SESSION = pytest.StashKey[_Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before anything is collected."""
    session.config.stash[_SESSION] = _Session()
    session.config.stash[_SESSION].begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After everything."""
    found = config.stash.get(_SESSION, None)
    if found is not None:
        found.end()


@pytest.fixture(autouse=True)
def _flow_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """The default runtime of a test is its own, in memory; one that the user configured is left alone."""
    session = request.config.stash[_SESSION]
    session.begin()
    module = sys.modules.get("flowdsl.runtime")
    if module is None:
        yield
        return
    before = module.set_default(None)
    configured = before is not None and not before.closed and before is not session.between
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
