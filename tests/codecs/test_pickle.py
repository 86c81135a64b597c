"""The pickle codec: objects with a name are stored by name, ``__main__`` included, others by value."""

import os
import pickle
import subprocess
import sys
import textwrap
from enum import Enum
from pathlib import Path

import forked
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import PickleCodec
from flowdsl.codecs.exceptions.pieces import NotStored
from flowdsl.errors import MissingClass, StorageError

CODEC = PickleCodec()


def there_and_back(value):
    """Return value as it is loaded."""
    return CODEC.loads(CODEC.dumps(value))


# ----------------------------------------------------------------------------------------- in this process


@given(
    st.recursive(st.integers() | st.text(), lambda parts: st.tuples(parts, parts) | st.sets(st.integers()))
)
def test_plain_values_are_plain_pickles(value):
    """A value that pickle can store is a plain pickle, which any Python loads without flowdsl."""
    assert pickle.loads(CODEC.dumps(value)) == value == there_and_back(value)


class Point:
    """Found by its name."""

    def __init__(self, x):
        self.x = x


def test_classes_with_a_name_are_stored_by_name():
    """An instance of a module's class loads as an instance of that class."""
    assert type(there_and_back(Point(1))) is Point
    assert there_and_back({"p": [Point(2)]})["p"][0].x == 2
    assert there_and_back(Point) is Point


def test_lambdas_and_local_functions():
    """A function without a name is stored with its code and its closure."""
    offset = 10

    def add(number):
        return number + offset

    assert there_and_back(add)(1) == 11
    assert there_and_back({"f": lambda x: x * 2})["f"](4) == 8


def test_a_class_with_a_name_stays_one_beside_a_lambda():
    """Storing one part by value does not turn other classes into copies."""
    loaded = there_and_back([lambda: 1, Point(3)])
    assert type(loaded[1]) is Point


def local_class():
    """Return a class without a name, and the list that its method writes to."""
    calls = []

    class Local:
        """Counts."""

        total = 0

        def call(self):
            calls.append(self)
            return len(calls)

    return Local, calls


def test_a_local_class_comes_back_as_itself():
    """An instance of a local class loads as an instance of that very class, in the same process."""
    Local, _ = local_class()
    assert type(there_and_back(Local())) is Local


def test_a_local_class_is_not_touched_by_loading():
    """Loading does not change a local class: its closures and later changes stay."""
    Local, calls = local_class()
    call = Local.call
    data = CODEC.dumps(Local())
    Local.total = 5
    loaded = CODEC.loads(data)
    assert Local.total == 5
    assert Local.call is call
    assert (loaded.call(), len(calls)) == (1, 1)


def test_a_local_enum_keeps_its_members():
    """A member of a local enum loads as that very member."""

    class Colour(Enum):
        RED = 1

    assert there_and_back([Colour.RED])[0] is Colour.RED


def test_what_even_cloudpickle_cannot_do_is_raised():
    """The error of cloudpickle is raised as it is."""
    with pytest.raises(TypeError, match="generator"):
        CODEC.dumps([1, (number for number in range(3))])


class Restored:
    """Its __setstate__ raises what it is told to."""

    def __init__(self, error):
        self.error = error

    def __setstate__(self, state):
        raise state["error"]


@pytest.mark.parametrize("error", [ValueError("bad"), AttributeError("bad"), ImportError("bad")])
def test_a_class_that_cannot_be_restored_is_a_storage_error(error):
    """An error while loading is typed, and is MissingClass only if a class is missing."""
    with pytest.raises(StorageError, match=f"{type(error).__name__}: bad") as caught:
        there_and_back(Restored(error))
    assert not isinstance(caught.value, MissingClass)


@given(st.integers(0, 200))
def test_truncated_pickles_are_storage_errors(length):
    """A truncated pickle is a typed error."""
    data = CODEC.dumps({"a": [1, 2, 3], "p": Point("x" * 300)})
    with pytest.raises(StorageError):
        CODEC.loads(data[:length])


def test_a_missing_class_is_named(monkeypatch):
    """The error for a missing class names module and class, in its text and attributes."""
    data = CODEC.dumps(Point(1))
    monkeypatch.delitem(globals(), "Point")
    with pytest.raises(MissingClass, match=rf"{__name__}\.Point, which is not there") as caught:
        CODEC.loads(data)
    assert (caught.value.module, caught.value.name) == (__name__, "Point")


def test_a_missing_module_is_named(monkeypatch):
    """The error for a missing module names the module and the class."""
    data = CODEC.dumps(Point(1)).replace(__name__.encode(), b"q" * len(__name__))
    with pytest.raises(MissingClass) as caught:
        CODEC.loads(data)
    assert (caught.value.module, caught.value.name) == ("q" * len(__name__), "Point")


def test_importing_the_codecs_does_not_import_cloudpickle():
    """Importing the codecs imports neither cloudpickle nor cryptography."""
    code = "import sys, flowdsl.codecs; print('cloudpickle' in sys.modules, 'cryptography' in sys.modules)"
    assert run(["-c", code], start=subprocess.run) == "False False"


# ------------------------------------------------------------------------------------ between processes

SCRIPT = """
    import sys
    from pathlib import Path

    with open(Path(__file__).parent / "executed", "a") as log:
        log.write(__name__ + "\\n")

    from flowdsl.codecs import JsonCodec, PickleCodec
    from flowdsl.codecs.payloads import Payloads

    HERE = ("run-1", "k", "step")
    FOLDER = Path(__file__).parent

    class Order:
        class Line:
            pass

        def __init__(self, number):
            self.number, self.line = number, self.Line()

    class Declined(Exception):
        def __init__(self, code, text):
            super().__init__(text)
            self.code = code

    def write():
        values = {"order": [Order(7)], "class": Order, "mixed": [Order(7), lambda: Order]}
        for kind, value in values.items():
            (FOLDER / kind).write_bytes(Payloads(PickleCodec()).pack(value, *HERE)[0])
        for codec in (PickleCodec(), JsonCodec()):
            data, seen = Payloads(codec).pack_error(Declined(402, "no"), *HERE)
            assert type(seen) is Declined
            (FOLDER / codec.id).write_bytes(data)

    def load(kind):
        payloads, data = Payloads(PickleCodec()), (FOLDER / kind).read_bytes()
        return (payloads.unpack_error if kind in ("pickle", "json") else payloads.unpack)(data, *HERE)

    def read():
        order, line = load("order")[0], load("order")[0].line
        assert type(order) is Order and type(line) is Order.Line, type(order).__module__
        assert load("class") is Order, load("class").__module__
        order, function = load("mixed")
        assert type(order) is Order and function() is Order, (type(order).__module__, function().__module__)
        for kind in ("pickle", "json"):
            error = load(kind)
            assert type(error) is Declined and error.code == 402, type(error).__module__

    if __name__ == "__main__":
        globals().get(sys.argv[1], list)()
"""


def run(arguments, folder=None, *, start=forked.run):
    """Run Python in a folder and return what it prints; its errors are shown where it fails."""
    done = start(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path):
    """A folder with the script in it."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    return tmp_path


def executed(folder):
    """Return under which names the script was executed since last asked."""
    log = folder / "executed"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


AS_SCRIPT = ["script.py"]
AS_MODULE = ["-m", "script"]
IMPORTED = ["-c", "import sys, script; getattr(script, sys.argv[1])()"]


@pytest.mark.parametrize("reader", [AS_SCRIPT, AS_MODULE, IMPORTED], ids=["script", "module", "imported"])
@pytest.mark.parametrize("writer", [AS_SCRIPT, IMPORTED], ids=["script", "imported"])
def test_classes_of_a_script_load_everywhere(folder, writer, reader):
    """The script and a process that imports it load what either wrote as their own classes.

    And nobody executes the script a second time for it.
    """
    start = subprocess.run if (writer, reader) == (AS_SCRIPT, AS_MODULE) else forked.run  # both kinds
    run([*writer, "write"], folder, start=start)
    executed(folder)
    run([*reader, "read"], folder, start=start)
    assert len(executed(folder)) == 1


WORKER = """
    import sys
    from pathlib import Path
    from flowdsl.codecs import PickleCodec
    from flowdsl.codecs.payloads import Payloads
    from flowdsl.errors import MissingClass

    class Order:
        pass

    try:
        seen = Payloads(PickleCodec()).unpack(Path(sys.argv[1]).read_bytes(), "run-1", "k", "step")
        print(type(seen[0]).__module__, seen[0].number)
    except MissingClass as error:
        print(error.module, error.name, "import path" in str(error))
"""


def test_a_process_that_never_heard_of_the_script(folder, tmp_path_factory):
    """A process that cannot import the script gets an error that names it and says what to do."""
    run(["script.py", "write"], folder)
    code = textwrap.dedent(WORKER)
    executed(folder)
    assert run(["-c", code, "order"], folder) == "script 7"
    assert executed(folder) == ["script"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert run(["-c", code, str(folder / "order")], elsewhere) == "script Order True"


def test_a_module_run_by_its_dotted_name(folder):
    """``python -m package.job`` and a process that imports the module load each other's objects."""
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (folder / "script.py").rename(package / "job.py")
    imported = ["-c", "import sys, package.job as job; getattr(job, sys.argv[1])()"]
    for writer, reader in ((["-m", "package.job"], imported), (imported, ["-m", "package.job"])):
        run([*writer, "write"], folder)
        executed(package)
        run([*reader, "read"], folder)
        assert len(executed(package)) == 1


def test_a_script_that_was_imported_besides(folder):
    """If the script's module was also imported, its name means that module, not ``__main__``."""
    run([*IMPORTED, "write"], folder)
    with open(folder / "script.py", "a") as file:
        file.write(
            "    import script\n    script.read()\n    assert type(load('order')[0]) is script.Order\n"
        )
    executed(folder)
    run(["script.py", "nothing"], folder)
    assert executed(folder) == ["__main__", "script"]


def test_children_of_multiprocessing(folder):
    """A spawned child, where the script is ``__mp_main__``, and its parent load each other's objects."""
    with open(folder / "script.py", "a") as file:
        file.write(
            "    import multiprocessing\n"
            "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "        pool.apply(write)\n"
            "        read()\n"
            "        write()\n"
            "        pool.apply(read)\n"
            "        pool.apply(write)\n"
        )
    run(["script.py", "write"], folder)
    assert executed(folder) == ["__main__", "__mp_main__"]
    run([*IMPORTED, "read"], folder)


SESSION = """
    {setup}
    import sys
    from pathlib import Path
    from flowdsl.codecs import PickleCodec
    from flowdsl.errors import MissingClass

    codec = PickleCodec()
    if sys.argv[1] != "forgot":
        class Order:
            pass
    if sys.argv[1] == "write":
        Path("payload").write_bytes(codec.dumps([Order(), lambda: Order]))
    else:
        try:
            seen = codec.loads(Path("payload").read_bytes())
            assert type(seen[0]) is Order and seen[1]() is Order
        except MissingClass as error:
            print(error.name, "Define it in this session first" in str(error))
"""
NOTEBOOK = "globals()['__vsc_ipynb_file__'] = '/home/me/analysis.ipynb'"


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), (NOTEBOOK, NOTEBOOK), (NOTEBOOK, "")], ids=["-c", "notebook", "renamed"]
)
def test_sessions_that_nobody_can_import(folder, before, after):
    """Objects of ``-c``, a REPL or a notebook load in the next session that defines the class."""
    run(["-c", textwrap.dedent(SESSION.format(setup=before)), "write"], folder)
    code = textwrap.dedent(SESSION.format(setup=after))
    assert run(["-c", code, "read"], folder) == ""
    assert run(["-c", code, "forgot"], folder) == "Order True"


def test_a_module_as_a_value_is_not_executed_twice(folder):
    """A stored function that uses the script's module finds ``__main__`` where the script runs."""
    code = (
        "import sys, script\n"
        "from flowdsl.codecs import PickleCodec\n"
        "exec('def f(): return script.Order', globals())\n"
        "del script.__dict__['__file__']\n"
        "open('payload', 'wb').write(PickleCodec().dumps([lambda: script.Order, script]))\n"
    )
    run(["-c", code], folder)
    (folder / "script.py").write_text(
        textwrap.dedent(SCRIPT).split("if __name__")[0]
        + "if __name__ == '__main__':\n"
        + "    function, module = PickleCodec().loads((FOLDER / 'payload').read_bytes())\n"
        + "    print(function() is Order, module is sys.modules['__main__'])\n"
    )
    executed(folder)
    assert run(["script.py"], folder) == "True True"
    assert executed(folder) == ["__main__"]


def test_a_local_class_in_another_process(folder):
    """An object stored by value loads without the writer's code, and its class is one class however often it
    loads."""
    write = (
        "from flowdsl.codecs import PickleCodec\n"
        "def make():\n"
        "    class Local:\n"
        "        def double(self): return self.x * 2\n"
        "    return Local\n"
        "one = make()()\n"
        "one.x = 4\n"
        "open('payload', 'wb').write(PickleCodec().dumps(one))\n"
    )
    read = (
        "from flowdsl.codecs import PickleCodec\n"
        "data = open('payload', 'rb').read()\n"
        "one, two = PickleCodec().loads(data), PickleCodec().loads(data)\n"
        "type(one).mark = 1\n"
        "print(one.double(), type(one) is type(two), type(PickleCodec().loads(data)).mark)\n"
    )
    run(["-c", write], folder)
    assert run(["-c", read], folder) == "8 True 1"


def test_without_main_nothing_is_recorded(folder):
    """The script's name is put only before pickles that need it."""
    assert CODEC.dumps([1, Point(1)])[:1] == b"\x80"
    assert CODEC.dumps("__main__")[:1] == b"\x80"
    code = "from flowdsl.codecs import PickleCodec\nclass A: pass\nprint(PickleCodec().dumps(A())[:1])"
    (folder / "job.py").write_text(code)
    assert run(["job.py"], folder) == "b'm'"


def test_this_file_is_where_it_seems(folder):
    """The tests of other processes execute the flowdsl of this checkout."""
    shown = run(["-c", "import flowdsl; print(flowdsl.__file__)"], folder)
    import flowdsl

    assert Path(shown) == Path(flowdsl.__file__ or "")


@pytest.mark.parametrize("module", ["flowdsl.codecs.pieces", "flowdsl.codecs.exceptions.pieces"])
def test_a_module_of_ours_that_moved_is_found_under_both_names(module):
    """A pickle that names an earlier module of flowdsl still loads."""
    data = pickle.dumps(NotStored("x"), 5)
    name = b"flowdsl.codecs.exceptions.pieces"
    assert data.count(name) == 1
    old = data.replace(b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(module)]) + module.encode())
    old = old[:3] + (len(old) - 11).to_bytes(8, "little") + old[11:]
    assert PickleCodec().loads(old) == NotStored("x")
