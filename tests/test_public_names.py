"""The public names: their modules and parameters."""

import inspect
import subprocess
import sys
import typing

import pytest

import flowdsl
from flowdsl import Retry, Runtime, step, workflow

STEP = "mode name retry timeout heartbeat key ignore version memo expires in_doubt undo executor transaction on_divergence"
WORKFLOW = "name id ignore timeout cleanup version on_complete on_error tags"
RUNTIME = "retry codec hooks clock executor on_divergence lease name queues schedules previews"
STORE = {"get": "key default", "set": "key value", "push": "key item", "increment": "key delta"}
STORE |= {"delete": "key", "items": ""}


def _name(value):
    return value if isinstance(value, str) else value.__qualname__


SIGNATURES = [
    (step, "fn", STEP),
    (workflow, "fn", WORKFLOW),
    (Runtime, "storage", RUNTIME),
    (flowdsl.configure, "storage", RUNTIME),
    (Retry, "attempts initial multiplier maximum jitter on never", ""),
    (flowdsl.sleep, "duration", ""),
    (flowdsl.wait_for, "name timeout where", ""),
    (flowdsl.send, "event payload", ""),
    (flowdsl.aio.sleep, "duration", ""),
    (flowdsl.aio.wait_for, "name timeout where", ""),
    (Runtime.run, "self id", ""),
    (Runtime.runs, "self status workflow tags created_after created_before limit newest_first after", ""),
    (Runtime.signal, "self id name payload", "sender key"),
    (Runtime.cancel, "self id", ""),
    (Runtime.resume, "self id", ""),
    (Runtime.retry, "self id", ""),
    (Runtime.delete, "self id", ""),
    (Runtime.export, "self id", ""),
    (Runtime.prune, "self older_than status", ""),
    *((getattr(flowdsl.store, name), names, "") for name, names in STORE.items()),
    *((getattr(flowdsl.aio.store, name), names, "") for name, names in STORE.items()),
]


@pytest.mark.parametrize(("fn", "any_way", "by_name"), SIGNATURES, ids=_name)
def test_parameters_are_what_the_documentation_says(fn, any_way, by_name):
    """Parameters have the documented names and order, and options are keywords only."""
    parameters = inspect.signature(fn).parameters.values()
    kinds = {kind: [p.name for p in parameters if p.kind is kind] for kind in {p.kind for p in parameters}}
    assert kinds.pop(inspect.Parameter.POSITIONAL_OR_KEYWORD, []) == any_way.split()
    assert kinds.pop(inspect.Parameter.KEYWORD_ONLY, []) == by_name.split()
    assert kinds == {}


METHODS = """aio ask cancel close delete do enqueue execute_step export fork prune query queues recover resolve resume
retry run runs schedules send signal storage try_ work workers"""


def test_a_runtime_has_these_methods_and_no_others() -> None:
    """Nothing else is public on it; each method is also awaited by ``rt.aio``."""
    with Runtime("memory://") as rt:
        assert sorted(name for name in dir(rt) if not name.startswith("_")) == METHODS.split()
        methods = [name for name in METHODS.split() if callable(getattr(rt, name))]
        assert all(callable(getattr(rt.aio, name)) for name in methods)


def test_modules_are_reached_from_the_package():
    """``import flowdsl`` is enough for ``flowdsl.aio.sleep`` and ``flowdsl.testing.VirtualClock``."""
    code = """if True:
        import flowdsl
        flowdsl.aio.sleep, flowdsl.errors.FlowError, flowdsl.storage.MemoryStorage
        flowdsl.codecs.PickleCodec, flowdsl.testing.VirtualClock
        try:
            flowdsl.nothing
        except AttributeError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "module 'flowdsl' has no attribute 'nothing'\n", done.stderr


class Shop:
    """Of methods."""

    @step
    def sell(self, item: int) -> str:
        """Sell it."""
        return str(item)

    @classmethod
    @workflow
    async def close(cls, when: float = 0.5) -> None:
        """Close it."""


@step
def weigh(item: int, unit: str = "kg") -> float:
    """Weigh it."""
    return 0.5 * item


@pytest.mark.parametrize(
    ("made", "name", "doc", "hints"),
    [
        (weigh, "weigh", "Weigh it.", {"item": int, "unit": str, "return": float}),
        (Shop.sell, "Shop.sell", "Sell it.", {"item": int, "return": str}),
        (Shop().sell, "Shop.sell", "Sell it.", {"item": int, "return": str}),
        (Shop.close, "Shop.close", "Close it.", {"when": float, "return": type(None)}),
    ],
    ids=["function", "method", "bound", "classmethod"],
)
def test_a_decorated_function_keeps_what_it_is(made, name, doc, hints):
    """A decorated function keeps name, docstring, signature and annotations."""
    plain = made.__wrapped__
    assert (made.__qualname__, made.__module__, made.__doc__) == (name, __name__, doc)
    assert made.__annotations__ == {
        key: None if key == "return" and hint is type(None) else hint for key, hint in hints.items()
    }
    assert typing.get_type_hints(made) == hints
    assert inspect.signature(made) == inspect.signature(plain)
    assert inspect.getsource(made) == inspect.getsource(plain)
    assert inspect.iscoroutinefunction(made) is inspect.iscoroutinefunction(plain)
