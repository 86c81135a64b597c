"""Where calls are counted: threads share a scope without a lock."""

import gc
import threading

from flowdsl.engine.scope import Scope, UnderWay


def _call() -> UnderWay:
    call = UnderWay()
    call.concurrent = False
    return call


def _numbers(scope: Scope) -> list[tuple[int, int]]:
    """The numbers of one more call: each has its own bytes."""
    content = bytes(bytearray(b"content"))
    first = scope.contents.setdefault(content, content) is content
    return [(0 if first else scope.repeat(content), next(scope.counter("path")))]


def test_a_call_that_begins_while_another_one_is_being_added_knows_that_they_overlap():
    """The body begins a call while another thread has looked at the scope, and is not counted yet. Both calls
    are concurrent."""
    scope = Scope("", None, False, home=threading.get_ident())
    own, other = _call(), _call()

    class Flow:
        def __ne__(self, home: object) -> bool:
            scope.begins(own, home)  # just after the first look
            return True

    scope.begins(other, Flow())
    assert (own.concurrent, other.concurrent) == (True, True)


def test_a_number_is_given_once_though_garbage_is_collected_while_its_counter_is_made():
    """A finalizer takes a number of the same key while the counter is being made. No number is given twice."""

    class Garbage:
        def __init__(self, scope: Scope, given: list[tuple[int, int]]) -> None:
            self.itself, self.scope, self.given = self, scope, given

        def __del__(self) -> None:
            self.given += _numbers(self.scope)

    before, was_on = gc.get_threshold(), gc.isenabled()
    try:
        for allocations in range(1, 9):
            gc.disable()
            gc.collect()
            scope, given = Scope("", None, False), list[tuple[int, int]]()
            Garbage(scope, given)
            gc.set_threshold(allocations)
            gc.enable()
            given += _numbers(scope)
            gc.disable()
            gc.collect()
            assert [sorted(numbers) for numbers in zip(*given, strict=True)] == [[0, 1], [0, 1]]
    finally:
        gc.set_threshold(*before)
        if was_on:
            gc.enable()
