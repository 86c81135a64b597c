"""check_history: whether today's code can continue what yesterday's code began."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowdsl import (
    Retry,
    Runtime,
    aio,
    current_run,
    now,
    on,
    rng,
    schedule,
    send,
    sleep,
    step,
    store,
    uuid4,
    wait_for,
    workflow,
)
from flowdsl.codecs import Encrypted, PickleCodec
from flowdsl.errors import SchemaMismatch
from flowdsl.storage import MemoryStorage
from flowdsl.testing import (
    CrashingStorage,
    HistoryMismatch,
    SimulatedCrash,
    VirtualClock,
    check_history,
)

executed: list[str] = []


def noted(name: str, value: Any = None) -> Any:
    executed.append(name)
    return value


@step
def reserve(item: str) -> str:
    return noted("reserve", f"reserved {item}")


@step
def charge(amount: int) -> str:
    return noted("charge", f"paid {amount}")


@step
def ship(item: str) -> str:
    return noted("ship", f"sent {item}")


@step
async def areserve(item: str) -> str:
    return noted("areserve", f"reserved {item}")


@step
async def aship(item: str) -> str:
    return noted("aship", f"sent {item}")


@pytest.fixture(autouse=True)
def _nothing_executed() -> None:
    executed.clear()


def deployed(fn: Any) -> Any:
    """*fn* as the workflow ``shop.checkout``, in place of what was deployed before."""
    return workflow(name="shop.checkout")(fn)


def parked(flow: Any, *args: Any, **options: Any) -> dict[str, Any]:
    """The history of a run that waits for a timer, a signal or a retry."""
    clock = VirtualClock(autoskip=False)
    with Runtime("memory://", clock=clock, **options) as runtime:
        run = flow.start(*args)
        while not any(step.status == "pending" for step in run.steps()):
            clock.advance(0)  # let it come to rest
        document = runtime.export(run.id)
    executed.clear()
    return document


def executes(flow: Any, storage: Any) -> None:
    """Execute *flow* over *storage*, sync or async."""

    async def main() -> None:
        async with Runtime(storage, clock=VirtualClock()):
            await flow()

    if asyncio.iscoroutinefunction(flow):
        asyncio.run(main())
    else:
        with Runtime(storage, clock=VirtualClock()):
            flow()


def each_death(flow: Any) -> Iterator[dict[str, Any]]:
    """The history of a run whose process died, for each of its commits."""
    whole = CrashingStorage(MemoryStorage(), at=None)
    executes(flow, whole)
    for commits in range(1, whole.commits):
        storage = CrashingStorage(MemoryStorage(), at=commits, when="after")
        with pytest.raises(SimulatedCrash):
            executes(flow, storage)
        with Runtime(storage.storage) as runtime:
            (run,) = [run for run in runtime.runs() if run.parent is None]
            document = runtime.export(run.id)
        executed.clear()
        yield document


def ended(flow: Any, *args: Any) -> dict[str, Any]:
    """The history of a run that came to its end."""
    with Runtime("memory://", clock=VirtualClock()) as runtime:
        run = flow.start(*args)
        run.exception()
        document = runtime.export(run.id)
    executed.clear()
    return document


def refused(document: Any, **options: Any) -> str:
    with pytest.raises(HistoryMismatch) as caught:
        check_history(document, **options)
    assert executed == []
    return str(caught.value)


def checkout(item: str, amount: int) -> list[str]:
    """Version one."""
    found = [reserve(item), charge(amount)]
    wait_for("approved", timeout="2 days")
    return [*found, ship(item)]


@pytest.fixture
def waiting() -> Iterator[dict[str, Any]]:
    """A run of version one, which is deployed as long as nothing else is, that waits for its signal."""
    version_one = deployed(checkout)
    yield parked(version_one, "book", 5)
    del version_one  # names are registered as long as somebody holds what they name


def test_unchanged_code_goes_on_where_it_stood(waiting: dict[str, Any]) -> None:
    """Recorded steps return their results, no body executes, and time stands still."""
    report = check_history(waiting)
    assert (report.workflow, report.replayed, report.ended) == ("shop.checkout", 2, False)
    assert report.stopped_at == ("wait_for('approved')",)
    assert report.unused == ()
    assert executed == []


def test_a_new_version_keeps_the_way_of_runs_in_flight(waiting: dict[str, Any]) -> None:
    """Code that keeps the old way for ``current_run().version`` is accepted, and code that does not is
    refused."""

    @workflow(name="shop.checkout", version="2")
    def checkout(item: str, amount: int) -> list[str]:
        in_flight = current_run().version != "2"  # type: ignore[union-attr]
        if in_flight:
            reserve(item)
        found = [charge(amount)]
        wait_for("approved", timeout="2 days")
        return [*found, ship(item)]

    report = check_history(waiting)
    assert (report.replayed, report.stopped_at) == (2, ("wait_for('approved')",))

    @workflow(name="shop.checkout", version="2")
    def hasty(item: str, amount: int) -> list[str]:
        return [ship(item), charge(amount)]

    assert "reserve" in refused(waiting)


def test_a_history_is_readable_and_holds_no_code(waiting: dict[str, Any], tmp_path: Path) -> None:
    """A history is JSON with readable arguments and results, and no code."""
    path = tmp_path / "order.json"
    path.write_text(json.dumps(waiting))
    for text in ('"shop.checkout"', "amount=5", "paid 5"):
        assert text in path.read_text()
    assert check_history(path).replayed == check_history(str(path)).replayed == 2


def test_a_changed_argument_is_refused_with_a_diff(waiting: dict[str, Any]) -> None:
    """A changed argument is refused with the step, both argument lists and the line."""

    @deployed
    def checkout(item: str, amount: int) -> None:
        reserve(item)
        charge(amount + 1)

    story = refused(waiting)
    assert "- amount=5" in story
    assert "+ amount=6" in story
    assert "charge(amount + 1)" in story


def test_a_renamed_step_is_refused_with_a_diff(waiting: dict[str, Any]) -> None:
    """A renamed step is refused, because it would execute again."""

    @step
    def pay(amount: int) -> str:
        return noted("pay")

    @deployed
    def checkout(item: str, amount: int) -> None:
        reserve(item)
        pay(amount)
        wait_for("approved")

    story = refused(waiting)
    lines = [line.strip() for line in story.splitlines()]
    minus = lines.index("- charge(amount=5) → 'paid 5'")
    assert lines[minus + 1] == "+ pay(amount=5)"
    assert "reserve(item='book') → 'reserved book'" in lines
    assert f"@step(name={charge.path!r})" in story
    assert "pay(amount)" in story

    @step(name=charge.path)
    def paid(amount: int) -> str:
        return noted("paid")

    @deployed
    def checkout_again(item: str, amount: int) -> None:
        reserve(item)
        paid(amount)
        wait_for("approved")

    assert check_history(waiting).unused == ()


def test_what_code_has_not_come_to_is_not_called_missing(waiting: dict[str, Any]) -> None:
    """Records after the first difference are shown as not reached, and not as missing."""

    @step
    def book(item: str) -> str:
        return noted("book")

    @deployed
    def checkout(item: str, amount: int) -> None:
        book(item)
        charge(amount)

    lines = [line.strip() for line in refused(waiting).splitlines()]
    assert "- reserve(item='book') → 'reserved book'" in lines
    assert "· charge(amount=5) → 'paid 5'" in lines


def test_what_is_new_on_purpose_can_be_accepted(waiting: dict[str, Any]) -> None:
    """A call before recorded ones is accepted if the file says so."""

    @step
    def greet() -> None:
        noted("greet")

    @deployed
    def checkout(item: str, amount: int) -> None:
        greet()
        reserve(item)
        charge(amount)

    assert '"accepts": ' + json.dumps([greet.path]) in refused(waiting)
    assert check_history({**waiting, "accepts": [greet.path]}).stopped_at == ("greet()",)
    with pytest.raises(ValueError, match="accepts"):
        check_history({**waiting, "accepts": "greet"})


def test_a_call_that_is_gone_is_told_and_nothing_else(waiting: dict[str, Any]) -> None:
    """A removed call is a warning, because the run can go on."""

    @deployed
    def checkout(item: str, amount: int) -> None:
        charge(amount)
        wait_for("approved")

    assert check_history(waiting).unused == ("reserve(item='book') → 'reserved book'",)


def test_calls_may_be_added_behind_what_is_recorded(waiting: dict[str, Any]) -> None:
    """New steps, sleeps, waits and children after the records stop the check, and execute nothing."""

    @workflow
    def child(item: str) -> None:
        noted("child")

    for name, more in {
        "ship(item='book')": lambda: ship("book"),
        "sleep(60 s)": lambda: sleep("1 min"),
        "wait_for('other')": lambda: wait_for("other"),
        "child(item='book')": lambda: child("book"),
    }.items():

        @deployed
        def checkout(item: str, amount: int, more: Any = None, what: Any = more) -> None:
            reserve(item)
            charge(amount)
            what()
            noted("after")

        if name.startswith("wait_for"):  # another signal instead of the recorded one is a changed argument
            assert "wait_for" in refused(waiting)
            continue
        report = check_history(waiting)
        assert report.stopped_at == (name,)
        assert executed == []


def test_code_that_raises_on_what_is_recorded_is_refused(waiting: dict[str, Any]) -> None:
    """Code that raises on a recorded result is refused."""

    @deployed
    def checkout(item: str, amount: int) -> Any:
        return reserve(item).amount

    story = refused(waiting)
    assert "AttributeError: 'str' object has no attribute 'amount'" in story
    assert "reserve(item).amount" in story


def test_arguments_that_do_not_fit_any_more_are_refused(waiting: dict[str, Any]) -> None:
    """A removed parameter is refused, and a new one with a default is accepted."""

    @deployed
    def checkout(item: str) -> None: ...

    assert "amount" in refused(waiting)

    @deployed
    def checkout_again(item: str, amount: int, gift: bool = False) -> None:
        reserve(item)

    assert check_history(waiting).ended


def test_a_missing_workflow_is_named(waiting: dict[str, Any]) -> None:
    """A missing workflow is named, with how a renamed one keeps its runs."""
    waiting["run"]["workflow"] = "json.no_such_workflow"
    story = refused(waiting)
    assert "json.no_such_workflow" in story
    assert "@workflow(name='json.no_such_workflow')" in story


def test_code_that_never_comes_to_an_end_is_refused(waiting: dict[str, Any]) -> None:
    """Code that blocks or loops for ever is refused after a time limit."""
    stop = threading.Event()

    @deployed
    def checkout(item: str, amount: int) -> None:
        stop.wait()

    begun = time.monotonic()
    assert "did not come to an end" in refused(waiting, timeout=0.01)
    assert time.monotonic() - begun < 25, "closing its runtime waits for nobody"
    stop.set()


def test_no_history_is_a_typed_error(tmp_path: Path, waiting: dict[str, Any]) -> None:
    """Other JSON, no JSON, and a newer format are typed errors."""
    path = tmp_path / "x.json"
    for text in ("[1]", "{}", "no"):
        path.write_text(text)
        with pytest.raises(ValueError, match="histor|JSON"):
            check_history(path)
    with pytest.raises(SchemaMismatch):
        check_history({**waiting, "version": 99})


def test_failures_replay() -> None:
    """An exception from a record may end the run, and another exception is refused."""

    @step(retry=Retry(attempts=1))
    def decline() -> None:
        raise noted("decline") or ConnectionError("no")

    @deployed
    def fails() -> None:
        try:
            decline()
        finally:
            noted("after")

    assert check_history(ended(fails)).ended is False  # its open failure would execute again
    document = ended(fails)
    document["run"].pop("open_failures")
    executed.clear()
    assert check_history(document).ended
    executed.clear()

    @deployed
    def fails_otherwise() -> None:
        try:
            decline()
        except ConnectionError as error:
            raise LookupError("other") from error

    assert "LookupError: other" in refused(document)


def test_a_run_that_failed_by_itself_may_fail_so_again() -> None:
    """A failed run is accepted if its body raises the same exception, and refused if it raises another."""

    @deployed
    def too_dear() -> None:
        charge(7)
        raise ValueError("too dear")

    document = ended(too_dear)
    assert check_history(document).ended

    @deployed
    def fails_otherwise() -> None:
        charge(7)
        raise LookupError("too dear")

    assert "LookupError: too dear" in refused(document)


def test_no_undo_callback_handler_or_sent_body_executes() -> None:
    """No undo, callback, event handler or sent body executes."""

    def unbook(room: str) -> None:
        noted("undo")

    @step(undo=unbook)
    def book(room: str) -> str:
        return noted("book", room)

    @step(mode="send")
    def tell(room: str) -> None:
        noted("tell")

    @on("booked")
    def booked(room: str) -> None:
        noted("booked")

    @workflow(
        name="shop.stay",
        on_complete=lambda run: noted("complete"),
        on_error=lambda run, error: noted("error"),
    )
    def stay(fail: bool) -> None:
        book("blue")
        tell("blue")
        send("booked", "blue")
        if fail:
            raise ValueError("no bed")

    for fail in (False, True):
        document = ended(stay, fail)
        check_history(document)
        assert executed == []


def test_a_step_without_record_can_be_faked() -> None:
    """A ``try`` step, which has no record, stops the check, unless it has a fake."""

    @step(mode="try")
    def quote() -> int:
        return noted("quote", 7)

    @deployed
    def priced() -> str:
        return charge(quote())

    document = ended(priced)
    assert check_history(document).stopped_at == ("quote()",)
    assert check_history(document, fakes={quote: lambda: 7}).ended
    with pytest.raises(HistoryMismatch, match="- amount=7"):
        check_history(document, fakes={quote: lambda: 8})
    assert executed == []


def test_all_that_a_run_records_replays() -> None:
    """Histories from each commit of a run with everything are accepted."""

    @step
    def nested(n: int) -> int:
        store.increment("steps")
        charge(n)
        return noted("nested", n)

    @workflow
    def child(n: int) -> int:
        return nested(n)

    @deployed
    def rich() -> Any:
        store.set("seen", [now().isoformat(), str(uuid4()), rng().random()])
        schedule(ship, "later", delay="1 hour")
        futures = charge.map([1, 2, 3])
        sleep("1 day")
        total = child(4) + nested(5)
        send("nobody listens")
        return futures, total, store.get("seen"), charge(rng().randrange(1000))

    for document in each_death(rich):
        assert check_history(document).unused == ()
        assert executed == []
    assert check_history(ended(rich)).ended


def test_async_runs_replay() -> None:
    """Branches of an async run are replayed side by side, each up to its next call."""

    async def branch(item: str) -> str:
        await areserve(item)
        return await aship(item)

    @deployed
    async def both() -> list[str]:
        found = await aio.gather(branch("a"), branch("b"))
        await aio.sleep("1 day")
        return [*found, await areserve("c")]

    for document in each_death(both):
        assert check_history(document).unused == ()
        assert executed == []
    assert check_history(ended(both)).ended


def test_keys_of_codecs_are_needed() -> None:
    """An encrypted history replays with the right codec, and without it the error says so."""
    codec = Encrypted(PickleCodec(), b"32 bytes, better random than so!")

    @deployed
    def checkout(item: str, amount: int) -> None:
        reserve(item)
        wait_for("approved")

    document = parked(checkout, "book", 5, codec=codec)
    assert check_history(document, options={"codec": codec}).replayed == 1
    assert "encrypted" in refused(document)
