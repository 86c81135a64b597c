"""``memo=True``: results that runs share."""

import pytest
from support import Effects, Flavour, Recorder

from flowdsl import Retry, Runtime, step, workflow


def test_memo_shares_results_across_runs(
    runtime: Runtime, flavour: Flavour, effects: Effects, hooks: Recorder
):
    """A memo hit is copied into the run, without an attempt of its own."""

    @flavour.step(memo=True)
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def w(n):
        return (yield f(7))

    assert [flavour.call(w, 1), flavour.call(w, 2)] == [1, 1]
    assert effects.count("f", 7) == 1
    first, second = sorted(runtime.runs(), key=lambda r: r.args["n"])
    assert [first.steps()[0].attempts, second.steps()[0].attempts] == [1, 0]


def test_a_replay_never_depends_on_the_memo_again(runtime: Runtime, effects: Effects):
    """Forgetting a memo does not change a run that has copied it."""
    stop = [False]

    @step(memo=True)
    def f():
        return effects("f")

    @workflow
    def w(n):
        value = f()
        if stop[0]:
            stop[0] = False
            raise KeyboardInterrupt
        return value

    assert w(1) == 1
    stop[0] = True
    with pytest.raises(KeyboardInterrupt):
        w(2)
    f.forget()
    assert w(2) == 1
    assert w(3) == 2


def test_memos_expire(runtime: Runtime, clock, effects: Effects):
    """``expires=`` counts from the moment when the result was recorded."""

    @step(memo=True, expires="1 hour")
    def f():
        return effects("f")

    @workflow
    def w(n):
        return f()

    assert [w(1), w(2)] == [1, 1]
    clock.advance(3599)
    assert w(3) == 1
    clock.advance(2)
    assert w(4) == 2


def test_a_changed_default_is_a_miss_of_the_memo(runtime: Runtime, effects: Effects):
    """A changed default is a miss of the memo."""

    def make(rate):
        @step(memo=True, name="memo.rated")
        def f(x, rate=rate):
            return effects("f", rate)

        return f

    @workflow(ignore=("f",))
    def w(n, f):
        return f(1)

    w(1, make(1))
    w(2, make(2))
    w(3, make(1))
    assert effects == [("f", 1), ("f", 2)]


def test_memo_of_a_method_needs_an_identity(runtime: Runtime):
    """``memo=True`` of a method is refused if ``self`` has no ``__flow_key__``."""
    from flowdsl.errors import UnkeyableArgument

    class Shop:
        @step(memo=True)
        def price(self):
            return 1

    @workflow(ignore=("shop",))
    def w(shop=None):
        return shop.price()

    with pytest.raises(UnkeyableArgument, match="__flow_key__"):
        w(Shop())


def test_a_failure_is_not_memoised(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A failure is not shared as a memo."""

    @flavour.step(memo=True, retry=Retry(attempts=1))
    def f():
        if effects("f") == 1:
            raise LookupError
        return "fine"

    @flavour.workflow
    def w(n):
        return (yield f())

    with pytest.raises(LookupError):
        flavour.call(w, 1)
    assert flavour.call(w, 2) == "fine"
