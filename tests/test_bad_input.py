"""Bad input: a typed error that says what was wrong and what to do, and nothing is lost."""

import contextlib
import sqlite3
import sys
from pathlib import Path

import forked
import pytest
from support import Effects, Flavour, script

from flowdsl import Hooks, Retry, Runtime, on, step, workflow
from flowdsl.errors import FlowError, StorageError, StorageFull, StorageUnavailable, UnkeyableArgument
from flowdsl.storage import SQLiteStorage


def refuses(error, match, call):
    """The call raises, and its message helps."""
    with pytest.raises(error, match=match) as caught:
        call()
    assert len(str(caught.value)) > 15


# Decorating


def test_generators_are_refused_and_told_what_to_do():
    """Generators, sync and async, functions and methods, are refused with advice, as steps and workflows."""

    def generator():
        yield 1

    async def agenerator():
        yield 1

    class Shop:
        def items(self):
            yield 1

    for decorator in (step, workflow):
        for fn in (generator, agenerator, Shop.items, classmethod(generator), staticmethod(agenerator)):
            refuses(TypeError, r"generator.*list", lambda: decorator(fn))


@pytest.mark.parametrize("thing", [5, "name", None, [], object()])
def test_what_is_no_function_is_refused(thing):
    """Something that is no function is refused as the argument of a decorator."""
    if thing is not None:
        refuses(TypeError, "function|decorates", lambda: step(thing))
        refuses(TypeError, "function|decorates", lambda: workflow(thing))


def test_a_class_is_refused():
    """A class is refused, with the hint that its methods can be decorated."""

    class Shop: ...

    refuses(TypeError, "methods", lambda: step(Shop))
    refuses(TypeError, "methods", lambda: workflow(Shop))


def test_a_lambda_needs_a_name(runtime: Runtime):
    """A lambda needs ``name=``, and then works."""
    refuses(TypeError, "name=", lambda: step(lambda x: x))
    refuses(TypeError, "name=", lambda: workflow(lambda x: x))
    double = step(name="lambdas.double")(lambda x: 2 * x)
    flow = workflow(name="lambdas.flow")(lambda x: double(x))
    assert flow(4) == 8


def test_a_callable_without_a_name_needs_one():
    """A callable without a name is refused, and the message says what to give."""
    import functools

    refuses(TypeError, "name", lambda: step(functools.partial(print, 1)))


STEP_OPTIONS = [
    ({"mode": "doo"}, "mode"),
    ({"retry": 3}, "Retry"),
    ({"retry": Retry}, "Retry"),
    ({"timeout": "soon"}, "soon"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": -5}, "negative|above"),
    ({"timeout": "1 month"}, "month"),
    ({"key": "order_id"}, "key="),
    ({"ignore": 5}, "ignore|iterable"),
    ({"ignore": (1,)}, "ignore"),
    ({"version": 1.5}, "version"),
    ({"version": True}, "version"),
    ({"in_doubt": "maybe"}, "in_doubt"),
    ({"undo": "refund"}, "undo"),
    ({"executor": "pool"}, "executor"),
    ({"on_divergence": "ignore"}, "on_divergence"),
    ({"name": ""}, "name"),
    ({"name": "  "}, "name"),
    ({"name": 5}, "name"),
    ({"memo": True, "expires": "soon"}, "soon"),
    ({"expires": "1 h"}, "memo"),
    ({"memo": "yes"}, "memo"),
    ({"retries": 3}, "retries"),
]


@pytest.mark.parametrize(("options", "match"), STEP_OPTIONS, ids=lambda value: str(value)[:40])
def test_wrong_options_of_a_step(options, match):
    """A wrong option of a step is refused by name when it is decorated."""

    def plain(): ...

    refuses((TypeError, ValueError), match, lambda: step(**options)(plain))


@pytest.mark.parametrize(("options", "match"), [row for row in STEP_OPTIONS if "name" not in row[0]], ids=str)
def test_wrong_options_of_a_call(options, match):
    """``s.options(…)`` checks as the decorator does."""

    @step
    def f(): ...

    refuses((TypeError, ValueError), match, lambda: f.options(**options))


WORKFLOW_OPTIONS = [
    ({"id": ""}, "id"),
    ({"id": 5}, "id"),
    ({"timeout": "soon"}, "soon"),
    ({"timeout": 0}, "timeout"),
    ({"version": 1.5}, "version"),
    ({"on_complete": "hook"}, "on_complete"),
    ({"on_error": 5}, "on_error"),
    ({"tags": 5}, "tags"),
    ({"tags": {"a": 1}}, "tags"),
    ({"tags": [1]}, "tags"),
    ({"ignore": (1,)}, "ignore"),
    ({"name": ""}, "name"),
    ({"retry": Retry()}, "retry"),
]


@pytest.mark.parametrize(("options", "match"), WORKFLOW_OPTIONS, ids=str)
def test_wrong_options_of_a_workflow(options, match):
    """A wrong option of a workflow is refused by name when it is decorated."""

    def plain(): ...

    refuses((TypeError, ValueError), match, lambda: workflow(**options)(plain))


@pytest.mark.parametrize("option", ["on_complete", "on_error"])
def test_an_async_callback_of_a_sync_workflow(option):
    """A sync workflow refuses an async callback, and an async workflow takes both kinds."""

    async def callback(*args): ...

    def plain(): ...

    async def awaited(): ...

    refuses(TypeError, f"{option}= of workflow .*async", lambda: workflow(**{option: callback})(plain))
    assert workflow(**{option: callback})(awaited).path


def test_wrong_options_of_a_run():
    """``w.options(…)`` checks its options."""

    @workflow
    def w(): ...

    refuses((TypeError, ValueError), "id", lambda: w.options(id=""))
    refuses((TypeError, ValueError), "soon", lambda: w.options(timeout="soon"))
    refuses((TypeError, ValueError), "tags", lambda: w.options(tags=5))
    with pytest.raises(TypeError):
        w.options(retry=Retry())
    refuses(ValueError, "fresh", lambda: w.options(id="one", fresh=True))
    refuses(ValueError, "fresh", lambda: w.options(id="one").options(fresh=True))
    refuses(ValueError, "fresh", lambda: workflow(id="one")(w.__wrapped__).options(fresh=True))


def test_ignoring_a_parameter_that_is_not_there():
    """Ignoring an unknown parameter is refused, and the message lists the parameters."""

    def f(client): ...

    for refused in (
        lambda: step(ignore=("clinet",))(f),
        lambda: workflow(ignore="clinet")(f),
        lambda: step(f).options(ignore=["clinet"]),
    ):
        refuses(ValueError, r"clinet.*client", refused)


@pytest.mark.parametrize("bad", [5, ["x"], object(), Hooks])
def test_what_is_no_hook_is_refused(bad, tmp_path: Path):
    """Something that is no hook is refused, alone or among others, before a storage is opened."""
    refuses(TypeError, "hooks=.*Hooks", lambda: Runtime(f"sqlite:///{tmp_path}/flow.db", hooks=bad))
    refuses(
        TypeError, "hooks=.*Hooks", lambda: Runtime(f"sqlite:///{tmp_path}/flow.db", hooks=[Hooks(), bad])
    )
    assert not list(tmp_path.iterdir())


def test_a_hook_that_would_have_to_be_awaited_is_refused():
    """An ``async def`` hook method is refused, because nobody would await it."""

    class Late(Hooks):
        async def on_run_start(self, run): ...

    refuses(TypeError, "on_run_start.*plain function", lambda: Runtime("memory://", hooks=Late()))


def test_an_empty_name_of_a_step_is_refused(runtime: Runtime):
    """An empty name of a step is refused, and not looked up as an unknown one."""
    refuses(ValueError, "non-empty", lambda: runtime.do(""))
    assert runtime.runs() == []


def test_positional_options_are_refused():
    """Positional options are refused."""
    with pytest.raises(TypeError):
        step("do")
    with pytest.raises(TypeError):
        workflow("name")


# Calling


def test_arguments_that_do_not_fit(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Arguments that do not fit raise Python's message with the step; nothing is recorded or retried."""

    @flavour.step
    def f(x, *, y):
        effects("f")

    @flavour.workflow
    def w(how):
        if how == 1:
            yield f()
        elif how == 2:
            yield f(1, 2, y=3)
        else:
            yield f(1, y=2, z=3)

    for how, match in [(1, "x"), (2, "positional"), (3, "z")]:
        with pytest.raises(TypeError, match=match) as caught:
            flavour.call(w, how)
        assert "f" in str(caught.value)
    assert effects == []
    assert all(run.steps() == [] for run in runtime.runs())
    with pytest.raises(TypeError, match="how"):
        flavour.call(w)
    with pytest.raises(TypeError, match="other"):
        flavour.call(w, 1, other=2)
    assert len(runtime.runs()) == 3


def test_an_unkeyable_argument_names_step_parameter_and_path(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """The error for an argument without an encoding names step, parameter and path, and the remedies."""

    class Client: ...

    @flavour.step
    def fetch(request):
        effects("f")

    @flavour.workflow
    def w():
        yield fetch({"url": "u", "session": [Client()]})

    with pytest.raises(UnkeyableArgument) as caught:
        flavour.call(w)
    text = str(caught.value)
    for part in ("fetch", "request", "['session'][0]", "Client", "ignore", "key="):
        assert part in text
    assert effects == []
    assert flavour.call(runtime.do, fetch.options(ignore="request"), object()) is None


def test_a_key_function_that_raises(runtime: Runtime):
    """An exception of a ``key=`` function is raised as it is, before anything is recorded."""

    @step(key=lambda order: order["id"])
    def f(order): ...

    @workflow
    def w():
        f({})

    with pytest.raises(KeyError, match="id"):
        w()
    (run,) = runtime.runs()
    assert run.steps() == []


# Asking


@pytest.mark.parametrize("bad", ["", " ", None, 5, b"x"])
def test_ids_that_are_none(runtime: Runtime, bad):
    """Each method that takes an id refuses a wrong one, and says what an id is."""
    for method in (runtime.run, runtime.cancel, runtime.resume, runtime.retry, runtime.delete):
        refuses((TypeError, ValueError), "run id", lambda: method(bad))


def test_filters_that_make_no_sense(runtime: Runtime):
    """A filter that makes no sense is refused by name."""
    from datetime import datetime

    naive = datetime(2026, 1, 1)
    refuses(ValueError, "'pending', 'running'", lambda: runtime.runs(status="done"))
    refuses(TypeError, "workflow", lambda: runtime.runs(workflow=5))
    refuses(TypeError, "tags", lambda: runtime.runs(tags=5))
    refuses(ValueError, "aware", lambda: runtime.runs(created_after=naive))
    refuses(TypeError, "created_before", lambda: runtime.runs(created_before="yesterday"))
    for limit in (-1, 1.5, "3", True):
        refuses(ValueError, "limit", lambda: runtime.runs(limit=limit))
    refuses(ValueError, "prune", lambda: runtime.prune("1 day", status="running"))
    refuses(ValueError, "cannot read", lambda: runtime.prune("soon"))


def test_wrong_options_of_a_runtime():
    """A wrong option of a runtime is refused by type and name, before anything is opened."""
    for options, match in [
        ({"retry": 3}, "Retry"),
        ({"codec": "json"}, "Codec"),
        ({"clock": 5}, "clock"),
        ({"executor": "pool"}, "executor"),
        ({"on_divergence": "ignore"}, "on_divergence"),
        ({"name": 5}, "name"),
        ({"lease": 0}, "lease"),
        ({"lease": -1}, "lease=.*negative"),
    ]:
        refuses((TypeError, ValueError), match, lambda: Runtime("memory://", **options))
    with pytest.raises(TypeError):
        Runtime("memory://", nonsense=1)


@pytest.mark.parametrize("event", ["", " ", None, 5])
def test_events_without_a_name(event):
    """``@on`` without a name is refused."""
    refuses((TypeError, ValueError), "event", lambda: on(event))


@pytest.mark.parametrize(
    ("url", "error", "match"),
    [
        ("flow.db", ValueError, "sqlite:///flow.db"),
        ("mysql://x", ValueError, "mysql"),
        ("sqlite://flow.db", ValueError, "sqlite:///"),
        ("sqlite:///", ValueError, "sqlite:///"),
        ("sqlite:///x.db?speed=11", ValueError, "speed"),
        ("memory://name", ValueError, "memory://"),
        ("", ValueError, "storage"),
        (5, TypeError, "storage"),
    ],
)
def test_storages_that_are_none(url, error, match, tmp_path, monkeypatch):
    """Something that is no storage is refused, and the message shows a storage URL."""
    monkeypatch.chdir(tmp_path)
    refuses(error, match, lambda: Runtime(url))


# The world


def in_a_process(tmp_path: Path, code: str, *args: str) -> str:
    """What a script prints that is run as nobody, where that matters."""
    path = script(tmp_path / "check.py", code)
    done = forked.run([sys.executable, str(path), *args], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_path_that_cannot_be_opened(tmp_path: Path):
    """A directory, and a path below a file, cannot be opened, and the error says so."""
    (tmp_path / "file").write_text("x")
    refuses(StorageUnavailable, "flow", lambda: Runtime(f"sqlite:///{tmp_path}/file/flow.db"))
    (tmp_path / "flow").mkdir()
    refuses(StorageUnavailable, "flow", lambda: Runtime(f"sqlite:///{tmp_path}/flow"))


def test_a_file_that_is_not_a_database(tmp_path: Path):
    """A file that is no database is refused and not changed."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"This is a text, and no database. " * 100)
    before = path.read_bytes()
    refuses(StorageError, "notes.txt", lambda: Runtime(f"sqlite:///{path}"))
    assert path.read_bytes() == before


def test_a_database_of_somebody_else(tmp_path: Path):
    """The SQLite file of another program is refused and not changed."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table runs (name text)")
        connection.execute("insert into runs values ('theirs')")
    connection.close()
    before = path.read_bytes()
    refuses(StorageError, "other.db", lambda: Runtime(f"sqlite:///{path}"))
    assert path.read_bytes() == before


def test_a_read_only_directory(tmp_path: Path):
    """A read-only directory is named, with the reason."""
    folder = tmp_path / "locked"
    folder.mkdir()
    out = in_a_process(
        tmp_path,
        """
        import os, sys
        from flowdsl import Runtime
        from flowdsl.errors import StorageUnavailable
        if os.getuid() == 0:  # whom no permission holds back
            os.setgid(65534)
            os.setuid(65534)
        try:
            Runtime("sqlite:///" + sys.argv[1] + "/flow.db")
        except StorageUnavailable as error:
            print("locked" in str(error), len(str(error)) > 20)
        """,
        str(_read_only(folder)),
    )
    assert out == "True True\n"


def _read_only(folder: Path) -> Path:
    folder.chmod(0o555)
    for parent in [folder, *folder.parents]:
        try:
            parent.chmod(parent.stat().st_mode | 0o055)
        except OSError:
            break
    folder.chmod(0o555)
    return folder


def test_a_full_disk(tmp_path: Path, flavour: Flavour, effects: Effects):
    """A full disk raises ``StorageFull``, nothing acknowledged is lost, and with space the run continues."""

    @flavour.step
    def f(x):
        effects("f", x)
        return b"x" * 200_000 if x else "small"

    @flavour.workflow(id="full")
    def w():
        yield f(0)
        return len((yield f(1)))

    storage = SQLiteStorage(tmp_path / "flow.db")
    with Runtime(storage) as runtime:
        (handles,) = storage._open
        writer = handles.writer.connection
        pages = writer.execute("pragma page_count").fetchone()[0]
        writer.execute(f"pragma max_page_count = {pages + 10}")
        with pytest.raises(StorageFull):
            flavour.call(w)
        assert runtime.run("full").interrupted
        writer.execute("pragma max_page_count = 1073741823")
        assert flavour.call(w) == 200_000
    assert effects == [("f", 0), ("f", 1), ("f", 1)]
    storage.close()


def test_the_errors_are_one_tree():
    """Each error of ours is a ``FlowError``, storage errors are ``StorageError``, and ``Stopped`` is no
    ``Exception``."""
    import flowdsl.errors as errors

    classes = [getattr(errors, name) for name in errors.__all__ if name != "Stopped"]
    assert all(issubclass(cls, FlowError) for cls in classes)
    assert not issubclass(errors.Stopped, Exception)
    for name in ("StorageFull", "StorageUnavailable", "SchemaMismatch", "CorruptPayload", "MissingClass"):
        assert issubclass(getattr(errors, name), StorageError)
    for name in ("RunTimeout", "StepTimeout", "WaitTimeout"):
        assert issubclass(getattr(errors, name), TimeoutError)
    assert issubclass(UnkeyableArgument, TypeError)


def test_a_schema_of_the_future_is_refused(tmp_path: Path):
    """A newer schema is refused, and the message has both versions."""
    from flowdsl.errors import SchemaMismatch

    path = tmp_path / "flow.db"
    SQLiteStorage(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 999")
    connection.close()
    refuses(SchemaMismatch, "999", lambda: Runtime(f"sqlite:///{path}"))


def test_a_file_that_vanishes_is_a_typed_error(tmp_path: Path, effects: Effects):
    """Deleting the file of an open runtime is a typed error, and loses nothing silently."""
    path = tmp_path / "flow.db"

    @step
    def f(x):
        if x == 1:
            for one in tmp_path.iterdir():
                one.unlink()
        return effects("f", x)

    @workflow
    def w():
        return [f(x) for x in range(3)]

    with Runtime(f"sqlite:///{path}"):
        with contextlib.suppress(FlowError):
            assert w() == [1, 1, 1]
