"""Steps and workflows as functions, methods, classmethods and staticmethods."""

import asyncio
import functools
import threading
from dataclasses import dataclass
from enum import Enum

import pytest
from support import Effects, Flavour

from flowdsl import RunStatus, Runtime, schedule, step, workflow


class Plain:
    """No identity of its own."""

    def __init__(self, name):
        self.name = name


def make_class(flavour: Flavour, effects: Effects, identity: bool):
    """A class with steps of every kind."""

    class Shop(Plain):
        if identity:

            def __flow_key__(self):
                return self.name

        @step
        @flavour.body
        def price(self, item):
            effects("price", self.name, item)
            return self.name, item

        @classmethod
        @step
        @flavour.body
        def named(cls, item):
            effects("named", cls.__name__, item)
            return cls.__name__, item

        @staticmethod
        @step
        @flavour.body
        def tax(item):
            effects("tax", item)
            return item

        @workflow
        @flavour.body
        def sell(self, item):
            a = yield self.price(item)
            b = yield self.named(item)
            c = yield self.tax(item)
            return a, b, c

        @classmethod
        @workflow
        @flavour.body
        def sell_class(cls, item):
            return (yield cls.named(item))

        @staticmethod
        @workflow
        @flavour.body
        def sell_static(item):
            return (yield Shop.tax(item))

    return Shop


@pytest.mark.parametrize("identity", [False, True])
def test_all_kinds_work_outside_and_inside_runs(
    runtime: Runtime, flavour: Flavour, effects: Effects, identity
):
    """Steps and workflows of all kinds give the same results outside and inside runs, under their own
    paths."""
    Shop = make_class(flavour, effects, identity)
    shop = Shop("a")
    assert flavour.call(shop.price, 1) == ("a", 1)
    assert flavour.call(Shop.named, 1) == flavour.call(shop.named, 1) == ("Shop", 1)
    assert flavour.call(Shop.tax, 1) == flavour.call(shop.tax, 1) == 1
    assert runtime.runs() == []
    assert flavour.call(shop.sell, 2) == (("a", 2), ("Shop", 2), 2)
    assert flavour.call(Shop.sell_class, 3) == ("Shop", 3)
    assert flavour.call(Shop.sell_static, 4) == 4
    runs = {r.workflow.rpartition(".")[2]: r for r in runtime.runs()}
    assert [s.path.rpartition(".")[2] for s in runs["sell"].steps()] == ["price", "named", "tax"]


def test_class_dot_method_of_instance(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``Shop.price(shop, 1)`` is the same step with the same key as ``shop.price(1)``."""
    Shop = make_class(flavour, effects, True)
    shop = Shop("a")

    @flavour.workflow
    def w():
        first = yield shop.price(1)
        second = yield Shop.price(shop, 1)
        return first, second

    assert flavour.call(w) == (("a", 1), ("a", 1))
    (run,) = runtime.runs()
    assert [s.occurrence for s in run.steps()] == [0, 1]


def test_self_is_left_out_of_the_key(runtime: Runtime, effects: Effects):
    """Without ``__flow_key__``, ``self`` is no part of the key, and a new object finds the records."""
    Shop = make_class(Flavour(False), effects, False)
    stop = [True]

    @workflow
    def w():
        found = Shop("another object in every execution").price(1)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    w()
    assert len(effects) == 1
    assert Shop("a").price.key(1) == Shop("b").price.key(1)


def test_self_with_an_identity_counts(runtime: Runtime, effects: Effects):
    """With ``__flow_key__`` two objects have different keys."""
    Shop = make_class(Flavour(False), effects, True)
    assert Shop("a").price.key(1) == Shop("a").price.key(1) != Shop("b").price.key(1)


def test_cls_counts(runtime: Runtime, effects: Effects):
    """A classmethod of two classes has two keys."""
    Shop = make_class(Flavour(False), effects, False)

    class Branch(Shop):
        pass

    assert Shop.named.key(1) != Branch.named.key(1)

    @workflow
    def w():
        return Shop.named(1), Branch.named(1)

    assert w() == (("Shop", 1), ("Branch", 1))


def test_a_classmethod_over_a_step_knows_its_class_whatever_the_class(runtime: Runtime):
    """A classmethod over a step knows its class, in slots, enums and subclasses, and leaves nothing
    behind."""

    @dataclass(slots=True)
    class Slots:
        x: int = 1

        @classmethod
        @step
        def named(cls, x):
            return cls.__name__, x

    class Colour(Enum):
        RED = 1

        @classmethod
        @step(timeout=60)
        def named(cls, x):
            return cls.__name__, x

    class Sub(Slots): ...

    @workflow
    def w():
        return [cls.named.submit(1).result() for cls in (Slots, Sub, Colour)] + Slots().named.map([2])

    assert w() == [("Slots", 1), ("Sub", 1), ("Colour", 1), ("Slots", 2)]
    assert not [name for cls in (Slots, Colour) for name in vars(cls) if "flowdsl" in name]
    assert list(Colour) == [Colour.RED]


def test_runs_of_methods_are_told_apart_by_identity(runtime: Runtime, effects: Effects):
    """An interrupted run of one object is not continued by a call on another."""
    stops = []

    class Shop(Plain):
        def __flow_key__(self):
            return self.name

        @workflow
        def sell(self):
            if stops.pop() if stops else False:
                raise KeyboardInterrupt
            return self.name

    stops.append(True)
    with pytest.raises(KeyboardInterrupt):
        Shop("a").sell()
    assert Shop("b").sell() == "b"
    assert sorted(str(r.status) for r in runtime.runs()) == ["completed", "running"]
    assert Shop("a").sell() == "a"


def test_templates_and_options_of_method_workflows(runtime: Runtime):
    """The ``id=`` of a method workflow sees the arguments without ``self``, and ``options`` and ``start``
    work."""

    class Shop(Plain):
        @workflow(id="sale-{item}")
        def sell(self, item):
            return self.name, item

    shop = Shop("a")
    assert shop.sell(7) == ("a", 7)
    assert runtime.run("sale-7") is not None
    assert shop.sell.options(id="mine")(8) == ("a", 8)
    assert shop.sell.start(9).result(60) == ("a", 9)


def test_the_id_of_a_method_workflow_may_come_from_self(runtime: Runtime):
    """The ``id=`` of a method workflow may use ``self``, in a template or as the first parameter of a
    function."""

    class Shop(Plain):
        @workflow(id="{self.name}-{item}")
        def sell(self, item):
            return self.name, item

        @workflow(id=lambda self, item: f"{self.name}/{item}")
        def send(self, item):
            return self.name, item

        @workflow(id=lambda item: f"only-{item}")
        def store(self, item):
            return self.name, item

    shop = Shop("a")
    assert [shop.sell(1), shop.send(2), shop.store(3)] == [("a", 1), ("a", 2), ("a", 3)]
    assert {run.id for run in runtime.runs()} == {"a-1", "a/2", "only-3"}


def test_submit_map_and_options_of_bound_steps(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A bound step has everything that a step has: ``submit``, ``map``, ``options``."""
    Shop = make_class(flavour, effects, False)
    shop = Shop("a")

    @flavour.workflow
    def w():
        if flavour.is_async:
            one = yield shop.price.submit(1)
            many = yield shop.price.map([2, 3])
        else:
            one = shop.price.submit(1).result()
            many = shop.price.map([2, 3])
        other = yield shop.price.options(timeout=60)(4)
        return one, many, other

    assert flavour.call(w) == (("a", 1), [("a", 2), ("a", 3)], ("a", 4))
    (run,) = runtime.runs()
    assert {s.path for s in run.steps()} == {shop.price.path}


def test_dataclass_methods_and_properties_are_untouched(runtime: Runtime):
    """Decorating a method changes nothing else of its class."""
    from dataclasses import dataclass

    @dataclass
    class Order:
        n: int

        @step
        def double(self):
            return 2 * self.n

        @property
        def half(self):
            return self.n / 2

    order = Order(4)

    @workflow
    def w():
        return order.double(), order.half, Order.__doc__

    assert w()[:2] == (8, 2.0)


def test_inheritance_and_super(runtime: Runtime):
    """An overriding step that calls ``super()`` makes two steps, one in the scope of the other."""

    class Base:
        @step
        def f(self, x):
            return x

    class Derived(Base):
        @step
        def f(self, x):
            return super().f(x) + 1

    @workflow
    def w():
        return Derived().f(1)

    assert w() == 2
    (run,) = runtime.runs()
    inner, outer = run.steps()
    assert inner.scope == outer.key
    assert inner.path != outer.path


def test_a_step_over_a_bound_method(runtime: Runtime):
    """``step(obj.method)`` keeps its object."""

    class Api:
        base = "x"

        def get(self, path):
            return self.base + path

    get = step(Api().get)

    @workflow
    def w():
        return get("/1")

    assert (get("/2"), w()) == ("x/2", "x/1")


def test_other_decorators_below_and_above(runtime: Runtime):
    """Other decorators work below a step (``functools.wraps``) and above it."""

    def shout(fn):
        @functools.wraps(fn)
        def inner(*args, **kwargs):
            return fn(*args, **kwargs).upper()

        return inner

    @step
    @shout
    def below(x):
        return x

    @shout
    @step
    def above(x):
        return x

    @workflow
    def w():
        return below("a"), above("b")

    assert w() == ("A", "B")
    (run,) = runtime.runs()
    assert [s.path.rpartition(".")[2] for s in run.steps()] == ["below", "above"]


def test_positional_only_keyword_only_and_variable_arguments(runtime: Runtime, flavour: Flavour):
    """Positional-only, keyword-only and variable arguments bind as in Python."""

    @flavour.step
    def f(a, /, b, *rest, c, d=4, **more):
        return a, b, rest, c, d, more

    @flavour.workflow
    def w(a, /, *rest, c=1, **more):
        return (yield f(a, 2, *rest, c=c, **more))

    assert flavour.call(w, 1, 3, 3, c=5, z=6) == (1, 2, (3, 3), 5, 4, {"z": 6})
    (run,) = runtime.runs()
    assert run.args == {"a": 1, "rest": (3, 3), "c": 5, "more": {"z": 6}}
    assert f.key(1, 2, c=3) == f.key(1, b=2, c=3, d=4) != f.key(1, 2, 2, c=3)


def test_parameters_with_names_of_ours(runtime: Runtime):
    """Parameters named ``self``, ``key``, ``id``, ``timeout``, ``limit``, ``fn`` or ``mode`` are ordinary
    parameters."""

    @step
    def f(key, id, timeout=1, limit=2, fn=3, mode=4, args=5, kwargs=6):
        return key, id, timeout, limit, fn, mode, args, kwargs

    @workflow
    def w(fn, run_id, options):
        return f(key=1, id=2, timeout=3, limit=4, fn=5, mode=6, args=7, kwargs=8), f.submit(
            key=1, id=3
        ).result()

    assert w(fn=1, run_id=2, options=3)[0] == (1, 2, 3, 4, 5, 6, 7, 8)
    assert runtime.do(f, key=1, id=2) == (1, 2, 1, 2, 3, 4, 5, 6)
    assert runtime.try_(f, key=1, id=2) == (1, 2, 1, 2, 3, 4, 5, 6)


def test_async_methods_of_every_kind_can_be_gathered(runtime: Runtime, effects: Effects):
    """Bound async steps can be gathered like any coroutine."""
    Shop = make_class(Flavour(True), effects, False)
    shop = Shop("a")

    @workflow
    async def w():
        return await asyncio.gather(shop.price(1), Shop.named(2), shop.tax(3))

    assert asyncio.run(w()) == [("a", 1), ("Shop", 2), 3]
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_callable_objects_and_partials_are_refused_or_work(runtime: Runtime):
    """A callable object or partial needs ``name=``, and then works."""

    def add(a, b):
        return a + b

    partial = step(functools.partial(add, 1), name="partial.add")

    class Adder:
        def __call__(self, x):
            return x + 10

    adder = step(Adder(), name="adder")

    @workflow
    def w():
        return partial(2), adder(1)

    assert w() == (3, 11)


class Scale(Plain):
    """Multiplies by its name. Nothing of it is decorated."""

    def times(self, x, y=1):
        return self.name * x * y

    @classmethod
    def of_class(cls, x, y=1):
        return cls.__name__, x * y

    @staticmethod
    def of_nobody(x, y=1):
        return x * y

    def __call__(self, x, y=1):
        return self.name * x * y


class KnownScale(Scale):
    """The same, with an identity."""

    def __flow_key__(self):
        return self.name


GIVEN = {
    "a bound method": (Scale(3).times, 6),
    "of an object with an identity": (KnownScale(3).times, 6),
    "a bound classmethod": (KnownScale.of_class, ("KnownScale", 2)),
    "a staticmethod": (Scale.of_nobody, 2),
    "a callable object": (Scale(3), 6),
    "a partial": (functools.partial(Scale.of_nobody, y=5), 10),
    "a partial of a bound method": (functools.partial(Scale(3).times, y=5), 30),
    "a method of a builtin": ("-".join, "a-b"),
}


@pytest.mark.parametrize("what", GIVEN)
def test_a_workflow_made_of_what_is_bound_is_the_same_however_it_is_called(what):
    """A workflow of a bound method, or of anything callable, gets its receiver, and has one key, whether it is
    called, started or enqueued."""
    given, expected = GIVEN[what]
    made = workflow(given, name="made")
    args = (["a", "b"],) if what == "a method of a builtin" else (2,)
    with Runtime("memory://") as rt:
        worker = threading.Thread(target=rt.work)
        worker.start()
        tagged = made.options(tags={"a": "b"})
        assert made(*args) == tagged(*args) == expected
        assert made.start(*args).result(60) == tagged.start(*args).result(60) == expected
        assert made.enqueue(*args).result(60) == tagged.enqueue(*args).result(60) == expected
        assert rt.enqueue(made, *args).result(60) == expected
        assert len({run.record.key for run in rt.runs()}) == 1
        rt.close()
        worker.join()


@pytest.mark.parametrize("what", GIVEN)
def test_a_step_made_of_what_is_bound_is_the_same_however_it_is_called(runtime: Runtime, what):
    """A step of a bound method, or of anything callable, gets its receiver, whether it is called, submitted,
    mapped or scheduled."""
    given, expected = GIVEN[what]
    made = step(given, name="made")
    arg = ["a", "b"] if what == "a method of a builtin" else 2

    @workflow
    def w():
        patient = made.options(timeout=60)
        return [
            *[made(arg), patient(arg), *made.map([arg]), *patient.map([arg])],
            *[made.submit(arg).result(), patient.submit(arg).result(), schedule(made, arg).result()],
        ]

    assert w() == [expected] * 7
    assert made(arg) == expected


def test_a_workflow_of_a_bound_method_is_resumed_on_its_object(runtime: Runtime):
    """A run of ``workflow(obj.method)`` that was interrupted is resumed by its id, on the same object."""
    stops = [True]

    class Shop(Plain):
        def sell(self, item):
            if stops.pop() if stops else False:
                raise KeyboardInterrupt
            return self.name, item

    sell = workflow(Shop("a").sell, name="shop.sell")
    with pytest.raises(KeyboardInterrupt):
        sell.options(id="sale")(7)
    assert runtime.resume("sale").result(60) == ("a", 7)


def test_what_stores_arguments_only_refuses_a_method(runtime: Runtime, effects: Effects):
    """A record has no receiver. So a method is not enqueued, and not scheduled as a branch: nobody could call
    it."""
    Shop = make_class(Flavour(False), effects, True)
    shop = Shop("a")

    @workflow
    def w():
        schedule(shop.price, 1)

    for sell in (shop.sell, Shop.sell_class):
        with pytest.raises(TypeError, match="stores arguments only"):
            sell.enqueue(1)
    with pytest.raises(TypeError, match="stores arguments only"):
        w()
    first, second = (workflow(Scale(n).times, name="times") for n in (3, 5))
    with pytest.raises(TypeError, match=r"name=…"):
        first.enqueue(2)
    assert (first(2), second(2), second.start(2).result(60)) == (6, 10, 10)
    assert [run.status for run in runtime.runs(workflow="times")] == [RunStatus.COMPLETED] * 3
