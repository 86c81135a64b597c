"""Decorated functions survive pickle, copy and cloudpickle, in a fresh interpreter too."""

import copy
import inspect
import pickle
import sys
import textwrap
from pathlib import Path

import cloudpickle
import forked
import pytest
from support import python, script

from flowdsl import Retry, Runtime, step, workflow

MODULE = """
    from flowdsl import Retry, step, workflow

    LOG = []

    @step
    def plain(x):
        "Doc of plain."
        LOG.append(x)
        return x + 1

    @step(name="renamed.step", retry=Retry(attempts=7), version=3, timeout="5 min")
    def optioned(x):
        return x + 2

    @step
    async def asynchronous(x):
        return x + 3

    @workflow
    def flow(x):
        return plain(plain(x))

    @workflow(id="flow-{x}")
    async def aflow(x):
        return await asynchronous(x)

    class Shop:
        def __init__(self, name="s"):
            self.name = name

        @step
        def method(self, x):
            return self.name, x

        @classmethod
        @step
        def klass(cls, x):
            return cls.__name__, x

        @step
        @classmethod
        def outer_klass(cls, x):
            return cls.__name__, x

        @staticmethod
        @step
        def static(x):
            return x

        @step
        @staticmethod
        def outer_static(x):
            return x

        @workflow
        def run(self, x):
            return self.method(x)

        class Inner:
            @step
            def deep(self, x):
                return x
"""

FORMS = [
    "plain", "optioned", "asynchronous", "flow", "aflow",
    "Shop('t').method", "Shop.method", "Shop.klass", "Shop().klass", "Shop.outer_klass",
    "Shop.static", "Shop().static", "Shop.outer_static", "Shop().outer_static",
    "Shop('t').run", "Shop.Inner().deep", "Shop.Inner.deep",
]  # fmt: skip

CHECK = """
    import asyncio, pickle, sys
    {imports}
    from flowdsl import Runtime
    from flowdsl.core.records import Run

    def check(form, thing):
        # It is still decorated: called in a run, it records a step, or a run of its own.
        from flowdsl import workflow

        args = ()
        if form in ("Shop.method", "Shop.Inner.deep"):
            return                                          # unbound: checked by its path only
        with Runtime("memory://") as runtime:
            if hasattr(thing, "start"):
                result = thing(1)
                if asyncio.iscoroutine(result):
                    result = asyncio.run(result)
                assert len(runtime.runs()) == 1, form
                return
            if form == "asynchronous":
                async def call():
                    return await thing(1)
            else:
                def call():
                    return thing(1)
            w = workflow(name="check")(call)
            result = w()
            if asyncio.iscoroutine(result):
                result = asyncio.run(result)
            (run,) = runtime.runs()
            (record,) = run.steps()
            assert record.path == thing.path, form
            assert record.result() == result, form
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A folder with the module ``shopping``."""
    script(tmp_path / "shopping.py", MODULE)
    return tmp_path


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_by_reference_from_a_module(module: Path, pickler):
    """Each form of decorated function can be pickled by reference, and is decorated in a new interpreter."""
    dump = f"""
        import sys, {pickler} as pickler
        from shopping import *
        from shopping import Shop
        forms = {FORMS!r}
        sys.stdout.buffer.write(pickler.dumps([(form, eval(form)) for form in forms]))
    """
    data = forked.run(
        [sys.executable, "-c", textwrap.dedent(dump)], cwd=module, capture_output=True, check=True
    ).stdout
    assert len(data) < 3000  # names, not code
    (module / "data").write_bytes(data)
    load = textwrap.dedent(CHECK.format(imports="")) + textwrap.dedent(
        """
        for form, thing in pickle.loads(open("data", "rb").read()):
            assert type(thing).__name__.endswith(("Step", "Workflow")), (form, type(thing))
            check(form, thing)
        import shopping
        assert pickle.loads(pickle.dumps(shopping.plain)) is shopping.plain
        print("fine")
        """
    )
    assert python(load, cwd=module).stdout == "fine\n"


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_by_value_from_main(tmp_path: Path, pickler):
    """Functions of a script are pickled by value, with decorator, options and path."""
    forms = [form for form in FORMS if not form.startswith("Shop")] if pickler == "pickle" else FORMS
    path = script(tmp_path / "main_script.py", MODULE)
    with path.open("a") as file:
        file.write(
            textwrap.dedent(
                f"""
                if __name__ == "__main__":
                    import {pickler} as pickler
                    open("data", "wb").write(pickler.dumps([(form, eval(form)) for form in {forms!r}]))
                """
            )
        )
    forked.run([sys.executable, str(path)], cwd=tmp_path, check=True)
    path.unlink()
    load = textwrap.dedent(CHECK.format(imports="")) + textwrap.dedent(
        """
        for form, thing in pickle.loads(open("data", "rb").read()):
            assert type(thing).__name__.endswith(("Step", "Workflow")), (form, type(thing))
            assert thing.path.startswith("main_script.") or thing.path == "renamed.step", thing.path
            check(form, thing)
        print("fine")
        """
    )
    assert python(load, cwd=tmp_path).stdout == "fine\n"


def test_by_value_from_the_command_line(tmp_path: Path):
    """Functions of ``python -c`` are pickled by value, because nobody can import them."""
    data = tmp_path / "data"
    python(
        """
        import cloudpickle, sys
        from flowdsl import step
        offset = 5
        @step(version=2)
        def f(x):
            return x + offset
        open(sys.argv[1], "wb").write(cloudpickle.dumps(f))
        """,
        str(data),
    )
    out = python(
        """
        import pickle, sys
        f = pickle.loads(open(sys.argv[1], "rb").read())
        keys = [f.options(version=version).key(1) for version in (1, 2)]
        print(type(f).__name__, f.path, f(1), keys.index(f.key(1)))
        """,
        str(data),
    )
    assert out.stdout == "Step __main__.f 6 1\n"


def test_options_travel(module: Path):
    """Retry, version, timeout and name are pickled with the function."""
    out = python(
        """
        import cloudpickle, pickle
        source = open("shopping.py").read()
        namespace = {"__name__": "not_importable"}
        exec(source, namespace)
        f = pickle.loads(cloudpickle.dumps(namespace["optioned"]))
        d = f.definition if hasattr(f, "definition") else f._self_defn
        print(f.path, d.retry.attempts, d.version, d.timeout, f(1))
        """,
        cwd=module,
    )
    assert out.stdout == "renamed.step 7 3 300.0 3\n"


@step
def module_step(x, y=2):
    """Doc."""
    return x + y


@workflow
def module_flow(x):
    """Doc of flow."""
    return module_step(x)


class Holder:
    """An object with a step."""

    def __init__(self, n):
        self.n = n

    @step
    def get(self):
        return self.n


def test_copy_and_deepcopy_give_the_function_itself():
    """``copy`` and ``deepcopy`` of a decorated function return the function itself."""
    for thing in (module_step, module_flow):
        assert copy.copy(thing) is thing
        assert copy.deepcopy(thing) is thing
        assert copy.deepcopy([thing])[0] is thing
        assert pickle.loads(pickle.dumps(thing)) is thing


def test_deepcopy_of_a_bound_step_binds_the_copy():
    """A deep copy of a bound step is bound to the copied object."""
    holder = Holder([1])
    other = copy.deepcopy(holder.get)
    holder.n.append(2)
    assert (holder.get(), other()) == ([1, 2], [1])


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_a_bound_step_travels_with_its_object(dumps):
    """A bound step is pickled with its object."""
    loaded = pickle.loads(dumps(Holder(5).get))
    assert type(loaded).__name__ == "BoundStep"
    assert loaded() == 5
    assert loaded.path == Holder.get.path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(protocol):
    """Every protocol of pickle works."""
    assert pickle.loads(pickle.dumps(module_step, protocol)) is module_step
    local = step(Retry and (lambda x: x + 1), name="lambda.step")
    assert pickle.loads(pickle.dumps(local, protocol))(1) == 2


def test_a_function_local_to_a_function_travels_by_value(runtime: Runtime):
    """A function local to a function is pickled by value, with its closure."""
    base = 10

    @step
    def local(x):
        return x + base

    loaded = pickle.loads(pickle.dumps(local))
    assert loaded is not local
    assert loaded.path == local.path

    @workflow
    def w():
        return loaded(1)

    assert w() == 11
    (run,) = runtime.runs()
    assert len(run.steps()) == 1


def test_loading_by_value_registers_nothing(runtime: Runtime):
    """Loading a function by value registers nothing, so its name still means what was decorated here."""

    def make(value):
        @step(name="pickled.name")
        def f():
            return value

        return f

    old = make("old")
    data = pickle.dumps(old)
    del old
    new = make("new")
    loaded = pickle.loads(data)
    assert runtime.do("pickled.name") == "new"
    assert (loaded(), new()) == ("old", "new")


def test_a_step_that_was_replaced_in_its_module_travels_by_value(monkeypatch):
    """A step that was replaced in its module is pickled by value, because an import would find another
    object."""
    old = module_step
    monkeypatch.setitem(globals(), "module_step", step(lambda x: -x, name="other"))
    loaded = pickle.loads(pickle.dumps(old))
    assert loaded is not module_step
    assert loaded(1) == 3


def test_steps_are_results_and_arguments(runtime: Runtime):
    """A decorated function can be returned by a step and stored."""

    @step
    def give():
        return module_step

    @workflow
    def w():
        return give()

    assert w() is module_step


def test_name_docstring_signature_and_module_are_kept():
    """A decorated function keeps name, docstring, signature and module."""
    assert module_step.__name__ == "module_step"
    assert module_step.__qualname__ == "module_step"
    assert module_step.__doc__ == "Doc."
    assert module_step.__module__ == __name__
    assert str(inspect.signature(module_step)) == "(x, y=2)"
    assert inspect.unwrap(module_step) is module_step.__wrapped__
    assert module_step.__wrapped__(1) == 3
    assert callable(module_step)
    assert module_flow.__doc__ == "Doc of flow."
    assert str(inspect.signature(Holder(1).get)) == "()"


def test_coroutine_functions_are_seen_as_such():
    """``inspect`` and ``asyncio`` see that an async step is async."""
    import asyncio

    @step
    async def a(): ...

    @step
    def s(): ...

    assert inspect.iscoroutinefunction(a)
    assert asyncio.iscoroutinefunction(a)
    assert not inspect.iscoroutinefunction(s)


def test_use_in_a_process_pool_outside_a_run(module: Path):
    """In a process pool a step is pickled by reference, and is a plain call there."""
    path = script(
        module / "pools.py",
        """
        import multiprocessing
        from shopping import plain, Shop
        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert pool.map(plain, [1, 2]) == [2, 3]
                    assert pool.map(Shop("t").method, [1]) == [("t", 1)]
            print("fine")
        """,
    )
    done = forked.run([sys.executable, str(path)], cwd=module, capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"


def test_values_of_a_scripts_own_classes_load_in_another_process(tmp_path: Path):
    """A value of a class in a script's ``__main__`` loads in another process."""
    path = script(
        tmp_path / "script_with_class.py",
        """
        from dataclasses import dataclass
        from flowdsl import Runtime, step, workflow

        @dataclass
        class Order:
            n: int

        class Declined(Exception):
            pass

        @step
        def make(n):
            return Order(n)

        @workflow(id="made")
        def w():
            return make(1)

        @workflow(id="failed")
        def v():
            raise Declined("no")

        if __name__ == "__main__":
            with Runtime("sqlite:///flow.db"):
                w()
                try:
                    v()
                except Declined:
                    pass
        """,
    )
    forked.run([sys.executable, str(path)], cwd=tmp_path, check=True)
    out = python(
        """
        from flowdsl import Runtime
        import script_with_class as s
        with Runtime("sqlite:///flow.db") as runtime:
            order = runtime.run("made").result()
            error = runtime.run("failed").exception()
            print(type(order) is s.Order, order.n, type(error) is s.Declined)
            print(s.w() == s.Order(1))
        """,
        cwd=tmp_path,
    )
    assert out.stdout == "True 1 True\nTrue\n"
