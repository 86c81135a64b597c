"""The pytest plugin, in sessions of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

WORKFLOW = """
from flowdsl import Runtime, configure, current_runtime, sleep, step, workflow
from flowdsl.storage import MemoryStorage

@step
def double(n):
    return 2 * n

@workflow
def patient(n):
    sleep("7 days")
    return double(n)

@workflow
def quick(n):
    return double(n)
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory for a session of its own, with the environment of a user."""
    monkeypatch.delenv("FLOWDSL_STORAGE")
    pytester.makepyfile(shop=WORKFLOW)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.syspathinsert()
    return pytester


def passes(session: pytest.Pytester, *options: str, **outcomes: int) -> None:
    """The session passes, and nothing was written to disk."""
    run = session.runpytest_subprocess if options else session.runpytest_inprocess  # the latter is quicker
    result = run("-p", "no:cacheprovider", *options)
    result.assert_outcomes(**(outcomes or {"passed": 1}))
    assert not (session.path / ".flowdsl").exists()


def test_the_fixtures_belong_together(session: pytest.Pytester) -> None:
    """The runtime is current, over the storage and the clock of the same test."""
    session.makepyfile("""
        from shop import *

        def test_it(flow_runtime, flow_storage, flow_clock):
            before = flow_clock.now()
            assert patient(2) == 4
            assert flow_clock.now() - before == 7 * 86400
            assert current_runtime() is flow_runtime
            assert flow_runtime.storage is flow_storage
            assert len(flow_storage.list_runs()) == 1
    """)
    passes(session)


def test_the_default_runtime_is_fresh_for_each_test(session: pytest.Pytester) -> None:
    """Without any fixture nothing is shared between tests, and nothing is written."""
    session.makepyfile("""
        import asyncio, unittest
        from shop import *

        seen = []

        def check():
            assert quick(1) == 2
            assert len(current_runtime().runs()) == 1
            assert isinstance(current_runtime().storage, MemoryStorage)
            assert all(one.closed and one is not current_runtime() for one in seen)
            seen.append(current_runtime())

        def test_one():
            check()

        def test_two():
            check()

        def test_async():
            async def main():
                check_async = asyncio.to_thread(check)
                await check_async
            asyncio.run(main())

        class TestCase(unittest.TestCase):
            def test_it(self):
                check()
    """)
    passes(session, passed=4)


def test_code_that_runs_at_import_writes_nothing(session: pytest.Pytester) -> None:
    """Collection has a runtime in memory too."""
    session.makepyfile("""
        from shop import *

        quick(1)

        def test_it():
            assert current_runtime().runs() == []
    """)
    passes(session)


def test_an_explicit_runtime_is_left_alone(session: pytest.Pytester) -> None:
    """What a test makes itself is used as it is, a file included."""
    session.makepyfile("""
        from shop import *

        def test_runtime(tmp_path):
            with Runtime(f"sqlite:///{tmp_path}/flow.db") as runtime:
                assert quick(1) == 2
                assert current_runtime() is runtime
            assert (tmp_path / "flow.db").exists()

        def test_configure():
            storage = MemoryStorage()
            mine = configure(storage)
            assert quick(1) == 2
            assert current_runtime() is mine
            assert len(storage.list_runs()) == 1

        def test_after():
            assert current_runtime().runs() == []
    """)
    passes(session, passed=3)


def test_a_runtime_configured_for_the_session_is_left_alone(session: pytest.Pytester) -> None:
    """``configure`` in a conftest or a fixture of wider scope holds for all tests."""
    session.makeconftest("""
        import pytest
        from shop import *

        @pytest.fixture(scope="session", autouse=True)
        def configured():
            return configure("memory://")
    """)
    session.makepyfile("""
        from shop import *

        def test_one(configured):
            quick(1)
            assert current_runtime() is configured

        def test_two(configured):
            assert current_runtime() is configured
            assert len(configured.runs()) == 1
    """)
    passes(session, passed=2)


def test_plain_functions_need_nothing(session: pytest.Pytester) -> None:
    """A step outside a run is a plain call, and every body can be had undecorated."""
    session.makepyfile("""
        from shop import *

        def test_it():
            assert double(2) == 4
            assert double.__wrapped__(2) == 4
    """)
    passes(session)


def test_it_works_under_xdist(session: pytest.Pytester) -> None:
    """Workers have their own runtimes."""
    session.makepyfile("""
        import pytest
        from shop import *

        @pytest.mark.parametrize("n", range(4))
        def test_it(n, flow_runtime):
            assert patient(n) == 2 * n
            assert len(flow_runtime.runs()) == 1
    """)
    passes(session, "-n", "2", passed=4)


def test_it_works_under_hypothesis(session: pytest.Pytester) -> None:
    """``with_storage`` gives each example its own store, and no health check fails."""
    session.makepyfile("""
        from hypothesis import given, strategies as st
        from flowdsl.testing import with_storage
        from shop import *

        @given(st.integers())
        @with_storage()
        def test_it(n):
            assert quick(n) == 2 * n
            assert len(current_runtime().runs()) == 1

        @given(st.integers())
        def test_default(n):
            assert quick(n) == 2 * n
    """)
    passes(session, passed=2)


def test_importing_the_plugin_imports_nothing_else() -> None:
    """Where the package itself is light, the plugin adds nothing but pytest."""
    root = Path(__file__).parent.parent.parent
    code = f"""
import sys, types
package = types.ModuleType("flowdsl")
package.__path__ = [{str(root / "flowdsl")!r}]
sys.modules["flowdsl"] = package
import flowdsl.testing.pytest_plugin
print(*sorted(name for name in sys.modules if name.startswith("flowdsl")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["flowdsl", "flowdsl.testing", "flowdsl.testing.pytest_plugin"]


def test_names_of_flowdsl_testing_come_when_they_are_asked_for() -> None:
    """All are listed, and there is no other."""
    import flowdsl.testing

    assert {"check_replay", "effects"} <= set(dir(flowdsl.testing))
    with pytest.raises(AttributeError, match="nonsense"):
        flowdsl.testing.nonsense
