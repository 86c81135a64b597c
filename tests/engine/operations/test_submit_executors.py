"""Submitted steps on executors of one's own, and in other processes."""

import asyncio
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import pytest
from support import ONCE, Declined, Effects

from flowdsl import Runtime, step, workflow


class Immediate(Executor):
    """Executes at once, in the thread that submits."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Scrambled(Executor):
    """Executes in a random order, one after the other, when somebody waits."""

    def __init__(self, seed):
        import random

        self.random = random.Random(seed)
        self.waiting = []

    def submit(self, fn, /, *args, **kwargs):
        executor = self

        class Lazy(Future):
            def result(self, timeout=None):
                executor.work()
                return super().result(timeout)

            def exception(self, timeout=None):
                executor.work()
                return super().exception(timeout)

        future = Lazy()
        self.waiting.append((future, fn, args, kwargs))
        return future

    def work(self):
        while self.waiting:
            future, fn, args, kwargs = self.waiting.pop(self.random.randrange(len(self.waiting)))
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)


@pytest.mark.parametrize("make", [Immediate, lambda: Scrambled(1), lambda: Scrambled(2)])
def test_executors_of_ones_own(runtime: Runtime, effects: Effects, make):
    """Any object with ``submit`` that returns a future works as an executor."""

    @step
    def inner(x):
        return x

    @step(executor=make())
    def f(x):
        effects("f", x)
        return inner(x)

    @workflow
    def w():
        return f.map(range(5)), f.submit(9).result()

    assert w() == ([0, 1, 2, 3, 4], 9)
    (run,) = runtime.runs()
    assert len(run.steps()) == 12


@step(name="futures.in_process", retry=ONCE)
def in_process(x):
    """Executed in another process."""
    if x < 0:
        raise Declined(x)
    return x * 2, os.getpid()


class Scale:
    """Its methods are sent with their object."""

    def __init__(self, factor):
        self.factor = factor

    @step(retry=ONCE)
    def times(self, x):
        return self.factor * x, os.getpid()

    @classmethod
    @step(retry=ONCE)
    def named(cls, x):
        return cls.__name__, x


@pytest.fixture(scope="module")
def processes():
    """Two processes, started by spawn: a forked one would copy the threads' locks."""
    import multiprocessing

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


def test_a_process_pool(runtime: Runtime, processes, effects: Effects):
    """A body executes in the process pool, and everything durable here."""
    stop = [True]
    there = in_process.options(executor=processes)

    @workflow
    def w():
        found = there.map(range(4))
        effects(*[pid == os.getpid() for _, pid in found])
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        again = there.map(range(4))
        try:
            there.submit(-1).result()
        except Declined as error:
            return [value for value, _ in found], len(again), error.args

    with pytest.raises(KeyboardInterrupt):
        w()
    assert w() == ([0, 2, 4, 6], 4, (-1,))
    assert effects.log[0] == (False, False, False, False)


def test_methods_in_a_process_pool(runtime: Runtime, processes):
    """``self`` and ``cls`` are sent to the process pool."""
    scale = Scale(3)

    @workflow
    def w():
        times = scale.times.options(executor=processes).submit(5).result()
        return times[0], times[1] != os.getpid(), Scale.named.options(executor=processes).submit(1).result()

    assert w() == (15, True, ("Scale", 1))


def test_a_process_pool_in_async_code(runtime: Runtime, processes):
    """In async code a step on a process pool is awaited like any future."""

    @workflow
    async def w():
        there = in_process.options(executor=processes)
        return [value for value, _ in await there.map([1, 2])], (await there.submit(3))[0]

    assert asyncio.run(w()) == ([2, 4], 6)


def test_a_local_function_in_a_process_pool(runtime: Runtime, processes):
    """A function that a worker cannot import is sent by value."""
    offset = 100

    def local(x):
        return x + offset

    there = step(retry=ONCE, executor=processes)(local)

    @workflow
    def w():
        return there.map([1, 2])

    assert w() == [101, 102]
