"""Definitions: functions that share a name, methods below other decorators, what is patched."""

import asyncio
import functools
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from support import Crash, Mortal

from flowdsl import Runtime, aio, step, workflow
from flowdsl.errors import AmbiguousStep
from flowdsl.storage import MemoryStorage


def scaled_by(n):
    """A factory of steps."""

    @step(memo=True)
    def scale(x):
        return x * n

    return scale


def test_two_living_functions_of_one_factory_are_ambiguous(runtime: Runtime):
    """Two functions of one factory that are both in use are ambiguous, in a run and by hand."""
    double, triple = scaled_by(2), scaled_by(3)

    @workflow
    def both(x):
        return double(x), triple(x)

    with pytest.raises(AmbiguousStep, match="name="):
        both(10)
    for one in (double, triple):
        with pytest.raises(AmbiguousStep):
            runtime.do(one, 1)


def test_what_is_gone_or_alike_is_not_ambiguous(runtime: Runtime):
    """A function that is gone, or has the same closure, is not ambiguous."""
    scaled_by(2)
    triple, again = scaled_by(3), scaled_by(3)
    assert runtime.do(triple, 2) == runtime.do(again, 2) == 6


def test_what_only_a_traceback_holds_is_not_ambiguous(runtime: Runtime):
    """A function that only the traceback of a kept error holds is not ambiguous, as in a notebook."""

    def adding(n):
        return step(lambda x: x + n, name="shop.adding")

    def order(n, fail):
        @workflow
        def sell(x):
            return adding(n)(x)

        result = sell(1)
        if fail:
            raise Crash
        return result

    kept = []
    for n in range(2):
        with pytest.raises(Crash) as caught:
            order(n, True)
        kept.append(caught.value)
    assert order(5, False) == 6
    one_more, two_more = adding(1), adding(2)
    for one in (one_more, two_more):  # held by this function, which has not ended
        with pytest.raises(AmbiguousStep):
            runtime.do(one, 1)


def test_methods_of_two_living_classes_of_one_factory_are_ambiguous(runtime: Runtime):
    """Methods of two classes of one factory are ambiguous, and a class that is gone is replaced."""

    def shop(tax):
        class Shop:
            @step
            def price(self, x):
                super().__init__()
                return x + tax

            @classmethod
            @step
            def named(cls, x):
                return x + tax

        return Shop

    shops = [shop(1), shop(2)]
    for call in (lambda: shops[1]().price(1), lambda: shops[0].named(1)):
        with pytest.raises(AmbiguousStep, match="Shop"):
            workflow(call, name="sell")()
    shops.clear()
    assert workflow(lambda: (shop(5)().price(1), shop(5)().price(1)), name="sell")() == (6, 6)


def logged(fn):
    """A decorator below ``@step``, as people write it."""

    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


def test_under_a_decorator_with_wraps_the_wrapped_functions_are_compared(runtime: Runtime):
    """Below a decorator with ``wraps`` the wrapped functions are compared: an edited one replaces, two of one
    factory are ambiguous."""
    before = step(name="shop.price")(logged(lambda x: x))
    after = step(name="shop.price")(logged(lambda x: x + 1))
    assert runtime.do(after, 1) == 2
    assert runtime.do(before, 5) == 5

    def adding(n):
        return step(name="shop.add")(logged(lambda x: x + n))

    once, again = adding(1), adding(1)
    assert runtime.do(once, 1) == runtime.do(again, 1) == 2
    twice = adding(2)
    with pytest.raises(AmbiguousStep, match="test_definitions.py"):
        runtime.do(twice, 1)


def test_a_logged_error_keeps_no_function_alive(clock, caplog):
    """A logged error holds no frames, so a function that is made again is not ambiguous."""

    def make(found):
        @workflow(name="shop.order", id="order")
        def order():
            scaled_by(1)(1)
            return found

        return order

    for at in (1, 2):
        order = make([at])
        with Runtime(Mortal(MemoryStorage(), at), clock=clock), pytest.raises(Crash):
            order()
    assert any("could not be released" in record.getMessage() for record in caplog.records)


def test_a_decorator_above_a_step_leaves_self_out(runtime: Runtime):
    """A decorator above a step leaves ``self`` out of the key, a property too."""

    class Shop:
        def __init__(self):
            self.secret = object()

        @property
        @step
        def rate(self):
            return 5

        @workflow
        def look(self):
            return self.rate

    assert Shop().look() == 5


def test_what_is_patched_in_place_of_the_function_can_be_undone():
    """``mock.patch.object(step, "__wrapped__")`` ends with its block."""

    @step
    def charge(x):
        return x

    original = charge.__wrapped__
    with mock.patch.object(charge, "__wrapped__", return_value="mocked"):
        assert charge(1) == "mocked"
    assert charge(1) == 1
    assert charge.__wrapped__ is original


def test_patches_of_the_function_can_be_nested(monkeypatch):
    """Nested patches restore what was there before, and so does pytest's ``monkeypatch``."""

    @step
    def charge(x):
        return x

    with mock.patch.object(charge, "__wrapped__", return_value="outer"):
        with mock.patch.object(charge, "__wrapped__", return_value="inner"):
            assert charge(1) == "inner"
        assert charge(1) == "outer"
        with monkeypatch.context() as patch:
            patch.setattr(charge, "__wrapped__", lambda x: "other")
            assert charge(1) == "other"
        assert charge(1) == "outer"
    assert charge(1) == 1


def test_a_method_is_patched_at_its_class():
    """``mock.patch.object(Class.method, "__wrapped__")`` works for all instances, and ends."""

    class Shop:
        @step
        def rate(self, x):
            return x

    with mock.patch.object(Shop.rate, "__wrapped__", lambda self, x: ("mocked", x)):
        assert Shop().rate(1) == ("mocked", 1)
    assert Shop().rate(1) == 1


@pytest.mark.parametrize("name", ["sleep", "wait_for", "receive"])
def test_a_forgotten_await_names_the_verb(name):
    """Python's warning about a forgotten ``await`` names the verb."""

    @workflow(name="forgets")
    async def forgets():
        getattr(aio, name)(1 if name == "sleep" else "letter")

    with Runtime("memory://"), pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        asyncio.run(forgets())


def call_at_once(pool, w):
    """What eight threads get that call *w* at the same moment."""
    start = threading.Barrier(8)
    return list(pool.map(lambda x: (start.wait(60), w(x))[1], range(8)))


def test_threads_that_ask_at_once_are_no_rivals_holders(runtime):
    """A function that only a traceback holds is no rival when eight threads call its successor."""

    def made(number):
        @workflow(id="n-{number}-{x}")
        def w(x, number=number):
            return number

        return w

    def fails():
        kept = made(-1)
        raise ValueError(kept)

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            try:
                fails()
            except ValueError as error:
                error.args = ()
                held = error.__traceback__
            assert call_at_once(pool, made(number)) == [number] * 8
            del held


def made_each_time(kind):
    """A factory of workflows, which makes a step each time."""

    def plain(n):
        added = step(lambda x: x + n, name="shop.added")
        return workflow(lambda x: added(x), name="shop.order")

    def nested(n):
        inner = plain(n)
        return workflow(lambda x: inner(x), name="shop.outer")

    def awaited(n):
        @step(name="shop.added")
        async def added(x):
            return x + n

        @workflow(name="shop.order")
        async def order(x):
            return await added(x)

        return lambda x: asyncio.run(order(x))

    return {"plain": plain, "nested": nested, "awaited": awaited}[kind]


@pytest.mark.parametrize("kind", ["plain", "nested", "awaited"])
def test_a_run_that_has_ended_holds_no_function(runtime: Runtime, monkeypatch, kind):
    """A function whose run has ended is gone as soon as nobody has it, so no garbage has to be collected before
    one that replaces it is called."""
    make = made_each_time(kind)
    monkeypatch.setattr(gc, "collect", lambda *_: pytest.fail("garbage was collected"))
    gc.disable()  # it would hide what is held
    try:
        assert [make(n)(1) for n in range(3)] == [1, 2, 3]
    finally:
        gc.enable()
