"""Which failures are open when a run failed, so that it executes them again."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ONCE, Declined, Effects, Flavour

from flowdsl import Runtime, log, step, store, workflow
from flowdsl.errors import RunConflict


def test_handled_failures_are_replayed_and_the_open_one_executes(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A handled failure is replayed, and only the open failure executes again."""
    fixed = []

    @flavour.step(retry=ONCE)
    def primary():
        effects("primary")
        raise Declined("primary")

    @flavour.step
    def backup():
        return effects("backup")

    @flavour.step(retry=ONCE)
    def ship():
        effects("ship")
        if not fixed:
            raise OSError("no lorry")
        return "shipped"

    @flavour.workflow
    def w():
        try:
            yield primary()
        except Declined:
            yield backup()
        return (yield ship())

    with pytest.raises(OSError, match="no lorry"):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "shipped"
    assert effects == ["primary", "backup", "ship", "ship"]
    assert len(runtime.runs()) == 1


def test_a_failing_fallback_is_open_and_the_handled_failure_is_not(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A fallback that fails inside ``except`` is open, and the failure that it handled is not."""
    fixed = []

    @flavour.step(retry=ONCE)
    def primary():
        effects("primary")
        raise Declined("primary")

    @flavour.step(retry=ONCE)
    def backup():
        effects("backup")
        if not fixed:
            raise OSError("backup")
        return "saved"

    @flavour.workflow
    def w():
        try:
            return (yield primary())
        except Declined:
            return (yield backup())

    with pytest.raises(OSError, match="backup"):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "saved"
    assert effects == ["primary", "backup", "backup"]


def test_a_numbered_run_that_compensated_by_hand_starts_a_new_number(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A numbered run that compensated by hand is not continued; a call starts a new number."""

    @flavour.step
    def reserve():
        return effects("reserve")

    @flavour.step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @flavour.step
    def release():
        effects("release")

    @flavour.workflow
    def checkout():
        yield reserve()
        try:
            return (yield charge())
        except Declined:
            yield release()
            raise

    with pytest.raises(Declined):
        flavour.call(checkout)
    assert flavour.call(checkout) == "paid"
    assert effects == ["reserve", "charge", "release", "reserve", "charge"]
    assert sorted(r.number for r in runtime.runs()) == [1, 2]


@pytest.mark.parametrize("inside", [False, True])
def test_a_try_step_behind_a_failure_is_no_compensation(
    runtime: Runtime, flavour: Flavour, effects: Effects, inside: bool
):
    """A ``try`` step after a failure is no compensation, but durable calls in its body are."""

    @flavour.step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @flavour.step
    def release():
        effects("release")

    @flavour.step(mode="try")
    def notify():
        effects("notify")
        if inside:
            yield release()

    @flavour.workflow
    def checkout():
        try:
            return (yield charge())
        except Declined:
            yield notify()
            raise

    with pytest.raises(Declined):
        flavour.call(checkout)
    assert flavour.call(checkout) == "paid"
    assert sorted(r.number for r in runtime.runs()) == ([1, 2] if inside else [1])


@pytest.mark.parametrize(
    ("handle", "numbers"),
    [
        (store.items, [1]),
        (lambda: log("declined"), [1]),
        (lambda: store.set("declined", True), [1, 2]),
    ],
)
def test_a_look_behind_a_failure_is_no_compensation(runtime: Runtime, effects: Effects, handle, numbers):
    """Reading the store or logging after a failure is no compensation, but writing may be."""

    @step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @workflow
    def checkout():
        try:
            return charge()
        except Declined:
            handle()
            raise

    with pytest.raises(Declined):
        checkout()
    assert checkout() == "paid"
    assert sorted(r.number for r in runtime.runs()) == numbers


@pytest.mark.parametrize("how", ["raise", "from", "other"])
def test_a_run_with_an_id_that_compensated_by_hand_names_retry_and_fork(
    runtime: Runtime, effects: Effects, how
):
    """A run with an id that compensated by hand raises its stored error, with a note that names retry and
    fork."""

    class Wrapped(Exception): ...

    @step(retry=ONCE)
    def charge():
        effects("charge")
        raise Declined

    @step
    def release():
        effects("release")

    @workflow(id="order-7")
    def checkout():
        try:
            charge()
        except Declined as error:
            release()
            if how == "raise":
                raise
            if how == "from":
                raise Wrapped from error
            raise Wrapped

    expected = Declined if how == "raise" else Wrapped
    with pytest.raises(expected):
        checkout()
    with pytest.raises(expected) as caught:
        checkout()
    assert any("fork" in note and "retry" in note for note in caught.value.__notes__)
    with pytest.raises(RunConflict, match="fork"):
        runtime.resume("order-7")
    assert effects == ["charge", "release"]
    with pytest.raises(expected):  # said explicitly, it executes what had failed
        runtime.retry("order-7").result()
    assert effects == ["charge", "release", "charge"]


def test_a_body_that_raised_by_itself_can_be_fixed_and_continued(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """If the body raised by itself, its steps are replayed and the mended code goes on."""
    fixed = []

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        value = yield f()
        if not fixed:
            raise ZeroDivisionError
        return value

    with pytest.raises(ZeroDivisionError):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == 1
    assert effects == ["f"]


def test_all_concurrent_failures_are_open(runtime: Runtime, effects: Effects):
    """Each of several concurrent failures executes again, and completed branches do not."""
    fixed = []

    @step(retry=ONCE)
    async def f(x):
        effects("f", x)
        if not fixed and x % 2:
            raise Declined(x)
        return x

    @workflow
    async def w():
        found = await asyncio.gather(*(f(x) for x in range(4)), return_exceptions=True)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == [0, 1, 2, 3]
    assert [effects.count("f", x) for x in range(4)] == [1, 2, 1, 2]


def test_failures_of_a_map_stay_open_whatever_the_workers_did_next(runtime: Runtime, effects: Effects):
    """A failure in ``map`` stays open although its worker went on with the next item."""
    fixed = []
    pool = ThreadPoolExecutor(1)

    @step(retry=ONCE, executor=pool)
    def f(x):
        effects("f", x)
        if not fixed and x == 0:
            raise Declined
        return x

    @workflow
    def w():
        futures = [f.submit(x) for x in range(3)]
        for future in futures[1:]:
            future.result()
        return futures[0].result()

    with pytest.raises(Declined):
        w()
    fixed.append(True)
    assert w() == 0
    assert [effects.count("f", x) for x in range(3)] == [2, 1, 1]
    assert len(runtime.runs()) == 1
    pool.shutdown()


def test_a_background_task_that_failed_before_the_next_step_is_open(runtime: Runtime, effects: Effects):
    """A failure that the body has not seen is open, whatever the body did meanwhile."""
    fixed = []

    @step(retry=ONCE)
    async def bad():
        effects("bad")
        if not fixed:
            raise Declined
        return "fine"

    @step
    async def good(x):
        return effects("good", x)

    @workflow
    async def w():
        task = asyncio.create_task(bad())
        for x in range(3):
            await good(x)
            await asyncio.sleep(0)
        return await task

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == "fine"
    assert effects.count("bad") == 2
    assert all(effects.count("good", x) == 1 for x in range(3))


def test_a_submitted_failure_that_was_handled_is_replayed(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A submitted failure that the body has seen and handled is replayed."""
    fixed = []

    @flavour.step(retry=ONCE)
    def bad():
        effects("bad")
        raise Declined

    @flavour.step(retry=ONCE)
    def last():
        effects("last")
        if not fixed:
            raise OSError
        return "fine"

    @flavour.workflow
    def w():
        future = bad.submit()
        try:
            (yield future) if flavour.is_async else future.result()
        except Declined:
            pass
        future = last.submit()
        return (yield future) if flavour.is_async else future.result()

    with pytest.raises(OSError):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "fine"
    assert effects == ["bad", "last", "last"]


def test_a_failure_inside_a_failed_step_stays_open_with_it(runtime: Runtime, effects: Effects):
    """A failure inside a failed step is open as long as the outer failure is."""
    fixed = []

    @step(retry=ONCE)
    async def inner():
        effects("inner")
        if not fixed:
            raise Declined
        return "fine"

    @step(retry=ONCE)
    async def outer():
        return await inner()

    @step
    async def good(x):
        return x

    @workflow
    async def w():
        task = asyncio.create_task(outer())
        for x in range(5):
            await good(x)
            await asyncio.sleep(0)
        return await task

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == "fine"
    assert effects == ["inner", "inner"]
