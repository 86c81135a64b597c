"""The pytest plugin, in sessions of its own."""

import sys
from pathlib import Path

import forked
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


INI = "[pytest]\nfilterwarnings = error\naddopts = -p no:asyncio -p no:anyio\n"


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory for a session of its own, with the environment of a user."""
    monkeypatch.delenv("FLOWDSL_STORAGE")
    pytester.makepyfile(shop=WORKFLOW)
    pytester.makeini(INI)
    pytester.syspathinsert()
    return pytester


QUICK = ("-p", "no:hypothesispytest")
"""Of a process of its own: half of the time of a short session is importing Hypothesis."""


def passes(session: pytest.Pytester, *options: str, **outcomes: int) -> None:
    """The session passes, and nothing was written to disk."""
    if options:
        result = session.runpytest_subprocess("-p", "no:cacheprovider", *QUICK, *options)
    else:  # which is quicker
        result = session.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**(outcomes or {"passed": 1}))
    assert not (session.path / ".flowdsl").exists()


def test_the_fixtures_belong_together(session: pytest.Pytester) -> None:
    """``flow_runtime`` is current, over the storage and clock of the same test."""
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
    """Without a fixture tests share nothing, and nothing is written."""
    session.makepyfile("""
        import asyncio, unittest
        from shop import *

        seen = []

        def check():
            assert quick(1) == 2
            assert len(current_runtime().runs()) == 1
            assert isinstance(current_runtime().storage, MemoryStorage)
            assert all(one is not current_runtime() for one in seen)
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
    """During collection the default runtime is in memory."""
    session.makepyfile("""
        from shop import *

        quick(1)

        def test_it():
            assert current_runtime().runs() == []
    """)
    passes(session)


def test_an_explicit_runtime_is_left_alone(session: pytest.Pytester) -> None:
    """A runtime that a test makes is used as it is, with a file too."""
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
    """``configure`` in a conftest or a wider fixture holds for all tests."""
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
    """Outside a run a step is a plain call, and ``__wrapped__`` is the plain function."""
    session.makepyfile("""
        from shop import *

        def test_it():
            assert double(2) == 4
            assert double.__wrapped__(2) == 4
    """)
    passes(session)


def test_it_works_with_async_tests(session: pytest.Pytester) -> None:
    """pytest-asyncio and anyio on asyncio find the fixtures and the default runtime."""
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("anyio")
    session.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
        "markers =\n    anyio\n    asyncio\n"
    )
    session.makeconftest("""
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
    """)
    session.makepyfile("""
        import pytest
        from flowdsl import Runtime, aio, current_runtime, step, workflow
        from flowdsl.storage import MemoryStorage
        from flowdsl.testing import VirtualClock, replay_test, with_storage

        @step
        async def double(n):
            return 2 * n

        @workflow
        async def patient(n):
            await aio.sleep("7 days")
            return await double(n)

        runner = pytest.mark.parametrize("n", [1, 2])

        async def check(runtime):
            assert current_runtime() is runtime
            assert isinstance(runtime.storage, MemoryStorage)
            assert await double(1) == 2  # outside of any run
            return len(runtime.runs())

        @pytest.mark.asyncio
        @runner
        async def test_fixture_of_asyncio(flow_runtime, n):
            assert await patient(n) == 2 * n
            assert await check(flow_runtime) == 1

        @pytest.mark.anyio
        @runner
        async def test_fixture_of_anyio(flow_runtime, n):
            assert await patient(n) == 2 * n
            assert await check(flow_runtime) == 1

        @pytest.mark.asyncio
        @runner
        async def test_default_of_asyncio(n):
            assert await check(current_runtime()) == 0

        @pytest.mark.anyio
        @runner
        async def test_default_of_anyio(n):
            assert await check(current_runtime()) == 0

        @pytest.mark.asyncio
        @with_storage()
        async def test_store():
            assert await patient(1) == 2

        @pytest.mark.anyio
        @replay_test
        async def test_replay():
            assert await double(1) == 2

        @pytest.mark.asyncio
        async def test_by_hand():
            clock = VirtualClock(autoskip=False)
            async with Runtime("memory://", clock=clock):
                run = patient.start(1)
                await clock.aadvance("6 days")
                assert run.status == "running"
                await clock.aadvance("1 day")
                assert await run == 2
    """)
    passes(session, "-p", "no:xdist", passed=11)


def test_it_works_under_hypothesis(session: pytest.Pytester) -> None:
    """Under hypothesis ``with_storage`` gives each example a storage, and no health check fails."""
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


LIGHT = ("-p", "no:flowdsl", "-p", "_flowdsl_pytest", "-p", "no:xdist", "-p", "no:anyio")
"""The plugin as it is found where the package is installed, without others that import much."""


def test_a_session_without_flowdsl_does_not_import_it(session: pytest.Pytester) -> None:
    """Nothing of flowdsl is imported until a fixture is used."""
    session.makepyfile("""
        import sys

        HEAVY = {"flowdsl", "wrapt", "attr", "attrs", "cloudpickle", "sqlite3", "asyncio"}
        before = HEAVY & set(sys.modules)

        def test_nothing():
            assert not HEAVY & set(sys.modules)

        def test_storage(flow_storage):
            assert "flowdsl.storage" in sys.modules
            assert "flowdsl.testing.clock" not in sys.modules
    """)
    passes(session, *LIGHT, passed=2)


def test_a_test_that_imports_flowdsl_late_writes_nothing(session: pytest.Pytester) -> None:
    """If a test imports flowdsl in its body, the default runtime is in memory."""
    session.makepyfile("""
        def check():
            from shop import MemoryStorage, current_runtime, quick
            assert quick(1) == 2
            assert len(current_runtime().runs()) == 1
            assert isinstance(current_runtime().storage, MemoryStorage)

        def test_one():
            check()

        def test_two():
            check()
    """)
    passes(session, *LIGHT, passed=2)


@pytest.fixture
def histories(session: pytest.Pytester) -> Path:
    """A folder beside the tests with the history of a run that today's code can continue."""
    session.makepyfile(orders=RECORDED)
    code = "import orders, json; print(json.dumps(orders.recorded()))"
    done = forked.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.dont_write_bytecode = True; " + code,
        ],  # it soon has other code
        cwd=session.path,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = session.mkdir("recorded")
    (folder / "order.json").write_text(done.stdout)
    session.makepyfile("def test_it():\n    pass")
    return folder


RECORDED = """
from flowdsl import Runtime, step, wait_for, workflow
from flowdsl.testing import VirtualClock

@step
def charge(amount):
    return f"paid {amount}"

@workflow(id="order-{n}")
def order(n):
    charge(5)
    wait_for("approved")

def recorded():
    with Runtime("memory://", clock=VirtualClock(autoskip=False)) as runtime:
        run = order.start(7)
        while not any(step.kind == "wait" for step in run.steps()):
            pass
        return runtime.export(run.id)
"""


def test_histories_are_tests(session: pytest.Pytester, histories: Path) -> None:
    """Each history of the folder is a test with an id."""
    result = session.runpytest_inprocess("-v", "--flowdsl-histories", "recorded")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*recorded/order.json::replay PASSED*"])


def test_it_works_under_xdist(session: pytest.Pytester, histories: Path) -> None:
    """Under pytest-xdist each worker has its own runtimes, and each history is a test."""
    session.makepyfile("""
        import pytest
        from shop import *

        @pytest.mark.parametrize("n", range(4))
        def test_it(n, flow_runtime):
            assert patient(n) == 2 * n
            assert len(flow_runtime.runs()) == 1
    """)
    passes(session, "-n", "2", "--flowdsl-histories", "recorded", passed=5)


def test_histories_of_the_configuration_are_tests(session: pytest.Pytester, histories: Path) -> None:
    """Histories belong to a whole session, and not to one with selected tests."""
    session.makeini(f"{INI}flowdsl_histories = recorded\n")
    session.runpytest_inprocess().assert_outcomes(passed=2)
    session.runpytest_inprocess("-k", "replay").assert_outcomes(passed=1, deselected=1)
    (test,) = session.path.glob("test_*.py")
    session.runpytest_inprocess(test.name).assert_outcomes(passed=1)
    session.runpytest_inprocess("recorded/order.json::replay").assert_outcomes(passed=1)


def test_a_deploy_that_strands_a_run_is_red_with_a_diff(session: pytest.Pytester, histories: Path) -> None:
    """A history that today's code cannot continue fails, with the difference and without a traceback."""
    session.makepyfile(orders=RECORDED.replace("charge(5)", "charge(6)"))
    (histories / "other.json").write_text("{}")
    result = session.runpytest_subprocess(*QUICK, "--flowdsl-histories", "recorded")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*order-7*", "*- amount=5", "*+ amount=6", "*orders.py:*: charge(6)*"])
    result.stdout.fnmatch_lines(["*flowdsl export*"])
    assert "Traceback" not in result.stdout.str()


def test_a_folder_that_is_not_there_is_an_error(session: pytest.Pytester) -> None:
    """A folder of histories that does not exist is an error."""
    session.makepyfile("def test_it():\n    pass")
    result = session.runpytest_inprocess("--flowdsl-histories", "recrded")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no folder*recrded*"])


def test_names_of_flowdsl_testing_come_when_they_are_asked_for() -> None:
    """The names of ``flowdsl.testing`` are imported on first use, and all are listed."""
    import flowdsl.testing

    assert {"check_replay", "effects"} <= set(dir(flowdsl.testing))
    with pytest.raises(AttributeError, match="nonsense"):
        flowdsl.testing.nonsense
