"""Definitions: functions that share a name, methods below other decorators, what is patched."""

from unittest import mock

import pytest

from flowdsl import Runtime, step, workflow
from flowdsl.errors import AmbiguousStep


def scaled_by(n):
    """A factory of steps."""

    @step(memo=True)
    def scale(x):
        return x * n

    return scale


def test_two_living_functions_of_one_factory_are_ambiguous(runtime: Runtime):
    """A call of either says to give a name, in a run and by hand."""
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
    """Only living functions count, and only different closures."""
    scaled_by(2)
    triple, again = scaled_by(3), scaled_by(3)
    assert runtime.do(triple, 2) == runtime.do(again, 2) == 6


def test_a_decorator_above_a_step_leaves_self_out(runtime: Runtime):
    """A property too: an object without a key can be the receiver."""

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
