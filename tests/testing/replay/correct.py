"""Workflows that replay, although some look as if they did not: check_replay must accept them."""

import asyncio
import contextlib
import dataclasses
import datetime
import enum
import functools
import json
import logging
import os
import random
import re
import sqlite3
import threading
import time
import traceback
import warnings
import zoneinfo
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np

from flowdsl import (
    Retry,
    aio,
    continue_as_new,
    current_run,
    current_step,
    gather,
    log,
    now,
    publish,
    race,
    receive,
    rng,
    schedule,
    sleep,
    step,
    store,
    uuid4,
    wait_for,
    workflow,
)

CORRECT: dict[str, tuple[Any, dict[str, Any]]] = {}
"""Name → workflow, and options of check_replay."""

logger = logging.getLogger(__name__)
RATES = {"book": 5, "pen": 1}
KINDS = frozenset({"book", "pen"})
LOCK = threading.Lock()


def correct(**options: Any) -> Any:
    """Add a workflow to the table."""

    def add(fn: Any) -> Any:
        made = workflow(fn)
        CORRECT[fn.__name__] = made, options
        return made

    return add


@step
def charge(what: Any) -> str:
    """A step."""
    return f"paid {what}"


@step
async def acharge(what: Any) -> str:
    """An async one."""
    await asyncio.sleep(0)
    return f"paid {what}"


@step
def look() -> Any:
    """Everything that differs, where it belongs."""
    with LOCK:
        return [
            time.time(),
            random.random(),
            os.getpid(),
            os.getcwd(),
            str(datetime.date.today()),
            {"a", "b", "c"},
        ]


@step(retry=Retry(attempts=1))
def fail(what: str) -> None:
    """A step that fails."""
    raise ValueError(what)


@dataclasses.dataclass
class Order:
    """An argument with fields."""

    item: str
    price: Decimal = Decimal("5.00")


class Colour(enum.Enum):
    """A constant."""

    RED = 1


@functools.cache
def parsed(text: str) -> int:
    """A cache of what is always the same."""
    return int(text)


@correct()
def elapsed_time_is_logged() -> str:
    began = time.monotonic()
    paid = charge("book")
    logger.info("took %s s at %s", time.monotonic() - began, time.time())
    print(datetime.datetime.now())
    return paid


@correct()
def everything_from_a_step() -> str:
    seen = look()
    return charge([seen[0], seen[1], sorted(seen[-1])])


@correct()
def sets_that_are_sorted_or_asked() -> Any:
    names = {"ann", "bob", "cyd"}
    found = [charge(one) for one in sorted(names)]
    return [found, "ann" in names, len(names), names == {"bob", "ann", "cyd"}, sum({1, 2, 3}), names | KINDS]


@correct()
def sets_as_arguments() -> Any:
    return charge(frozenset({"x", "y", "z"})) and [charge({"a": {"p", "q", "r"}})]


@correct()
def orders_of_dictionaries() -> list[str]:
    counted = Counter("banana")
    grouped = defaultdict(list)
    for name, price in RATES.items():
        grouped[price].append(name)
    return [charge(counted), charge(grouped), charge(json.dumps(RATES, sort_keys=True))]


@correct()
def a_cache_of_constants() -> str:
    return charge(parsed("5") + RATES["book"])


@correct()
def values_that_replay() -> Any:
    return [
        charge(now().isoformat()),
        charge(str(uuid4())),
        charge(rng().random()),
        charge(rng().choice("abc")),
    ]


@correct()
def numbers_of_a_seed() -> str:
    drawn = random.Random(42)
    return charge([drawn.random(), np.random.default_rng(7).integers(10), float(np.arange(3).mean())])


@correct()
def named_time_zones() -> str:
    moment = datetime.datetime(2026, 5, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    return charge(
        [moment.isoformat(), moment.strftime("%Y-%m-%d"), datetime.date.fromisoformat("2026-05-01")]
    )


@correct()
def lazy_imports() -> str:
    import colorsys
    import xml.etree.ElementTree as tree

    return charge([colorsys.rgb_to_hls(0, 0, 1), tree.fromstring("<a><b/></a>").tag])


@correct()
def values_of_all_kinds() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn("careful", stacklevel=1)
    words = re.findall(r"\w+", "a few words")
    return [charge(Order("book")), charge(Colour.RED), charge(words), charge(b"x"), charge((1, 2.5, None))]


@correct()
def handled_failures() -> str:
    try:
        fail("no")
    except ValueError as error:
        return charge(f"{type(error).__name__}: {error}")
    return "?"


@correct(raises=ValueError)
def expected_failure() -> None:
    charge("book")
    fail("no")


@correct()
def submitted_in_order() -> list[str]:
    futures = [charge.submit(n) for n in range(5)]
    return [*gather(*futures), *charge.map(["a", "b"])]


@correct()
async def gathered_in_order() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(acharge(n)) for n in range(3)]
    found = await asyncio.gather(*(acharge(f"x{n}") for n in range(3)))
    return [*(task.result() for task in tasks), *found, *await aio.gather(acharge("y"), acharge("z"))]


@correct()
async def counted_as_they_end() -> int:
    ended = 0
    for one in asyncio.as_completed([acharge(n) for n in range(4)]):
        await one
        ended += 1
    return ended


@correct(signals=[("go", {"by": "ann"})])
def waits_and_signals() -> Any:
    sleep("3 days")
    return charge(wait_for("go", timeout="1 day")["by"])


@step
def counted(n: int) -> int:
    """Writes to the store."""
    return store.increment("n", n)


@correct(deaths=2, crashes=6)
def the_run_store() -> Any:
    store.set("seen", [])
    for n in range(3):
        store.push("seen", counted(n))
    return [store.get("seen"), store.items()["n"]]


@workflow
def child(what: str) -> str:
    return charge(what)


@correct()
def children_and_branches() -> Any:
    later = schedule(charge, "later", delay="1 hour")
    log("scheduled", at="one hour")
    return [child("a"), child.start("b").result(), later.result()]


@step
def outer(n: int) -> list[str]:
    """Calls steps, and looks at the clock on the way."""
    return [charge(n), charge(time.time_ns() % 2)]


@correct()
def nested_steps() -> int:
    return sum(len(outer(n)) for n in range(2))


@correct(signals=[("add", "tea"), ("add", "milk"), ("pay", None)])
def messages_with_answers() -> Any:
    items: list[str] = []
    while (message := receive("add", "pay")).name == "add":
        items.append(charge(message.payload))
        publish("items", len(items))
        message.reply(len(items))
    current_run().tag(paid="yes")  # type: ignore[union-attr]
    message.refuse(ValueError("closed"))
    return items


@workflow
def echo(left: int) -> int:
    """Answers once in each generation."""
    message = receive("say")
    message.reply(charge(message.payload))
    return left if left == 0 else continue_as_new(left - 1)


@correct(deaths=2)
def questions_to_another_run() -> Any:
    other = echo.start(1)
    return [other.ask("say", "a"), other.ask("say", "b"), other.result()]


@workflow
def idle() -> None:
    """Waits for what never comes."""
    wait_for("nothing")


@correct()
def the_first_of_two() -> Any:
    return race(charge.submit("x"), idle.start())


@workflow
def slow(name: str) -> Any:
    """Does something, and cleans up by how far it came."""
    done = []
    try:
        for n in range(3):
            done.append(charge(f"{name} {n}"))
        return wait_for("nothing")
    finally:
        charge(f"{name} gives back {len(done)}")


@correct()
def losers_that_come_further_or_not() -> Any:
    found = [race(charge.submit("a"), slow.start("b")), charge("between")]
    return [*found, race(slow.start("c"), charge.submit("d"), charge.submit("e"))]


@correct()
async def the_first_of_two_awaited() -> Any:
    async def late() -> str:
        await aio.sleep("1 day")
        return await acharge("late")

    return await aio.race(late(), acharge("early"))


@correct()
def a_run_of_its_own() -> Any:
    return child.options(detached=True).start("c").result()  # type: ignore[call-arg]


@step(heartbeat="1 day", retry=Retry(attempts=None, initial=0))
def beating() -> int:
    """Goes on where it was."""
    view = current_step()
    assert view is not None
    done = view.details or 0
    view.heartbeat(done + 1)
    if done < 2:
        raise OSError
    return int(done)


@workflow
def letter(what: str) -> str:
    """Goes on when the run that started it has ended."""
    charge(what)
    sleep("1 hour")
    return charge(f"{what} later")


@correct()
def a_run_of_its_own_that_goes_on() -> str:
    letter.options(detached=True).start("d")  # type: ignore[call-arg]
    return charge("done")


@workflow
def letters(what: str) -> str:
    """Calls a child, and starts a run that goes on."""
    letter.options(detached=True).start(f"{what} of its own")  # type: ignore[call-arg]
    return letter(what)


@correct(crashes=12)
def runs_of_their_own_below_others() -> str:
    started = letters.options(detached=True).start("e")  # type: ignore[call-arg]
    letters.options(detached=True).start("f")  # type: ignore[call-arg]
    return charge(started.result())


@step
def poll() -> float:
    """Finds something else each time."""
    return random.random()


@correct(deaths=2, crashes=4)
def the_same_call_in_two_generations(left: int = 2) -> Any:
    found = [charge("poll"), race(charge.submit("r"), charge.submit(f"s{left}")), child("same")]
    found.append(charge(poll()))
    sleep(60)
    return [found, uuid4()] if left == 0 else continue_as_new(left - 1)


@correct()
async def generations_awaited(left: int = 1) -> Any:
    found = await asyncio.gather(*(acharge(n) for n in range(2)))
    await aio.sleep(60)
    return [found, await acharge("end")] if left == 0 else continue_as_new(left - 1)


@correct()
def text_for_nobody() -> str:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        print("noise")
    return charge("book")


@correct()
def notes_of_an_error() -> Any:
    try:
        fail("no")
    except ValueError as error:
        return charge(traceback.format_exception_only(error))


@step(transaction=True)
def seat(n: int, *, connection: Any = None) -> int:
    """Its rows and its record are committed together."""
    connection.execute("CREATE TABLE IF NOT EXISTS seats (n INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO seats VALUES (?)", (n,))
    return n


@step(transaction=True)
async def aseat(n: int, *, connection: Any = None) -> int:
    """The same, async."""
    return seat.__wrapped__(n, connection=connection)


@step(transaction=True, undo=lambda n: None)
def refused_seat(n: int, *, connection: Any = None) -> int:
    """Has no table."""
    connection.execute("INSERT INTO nothing VALUES (?)", (n,))
    return n


@step
def two_seats(n: int) -> list[int]:
    """Executes again in each recovery, but what it calls does not."""
    return [seat(n), seat(n + 1)]


@correct(deaths=2, crashes=6)
def transactions() -> Any:
    with contextlib.suppress(sqlite3.OperationalError):
        refused_seat(0)
    return [seat(1), seat(2), two_seats(3), charge("done")]


@correct()
async def transactions_awaited() -> Any:
    return [*await asyncio.gather(aseat(1), aseat(2)), await aseat(3)]


@correct(fakes={seat: lambda n: n, refused_seat: lambda n, connection: bool(connection) and n})
def transactions_without_a_database() -> Any:
    return [seat(1), refused_seat(2)]


@step(retry=Retry(attempts=1))
async def afail(what: str) -> None:
    """An async step that fails."""
    raise LookupError(what)


@step
def slow_charge(what: Any) -> str:
    """Others end, or begin, before it ends."""
    sum(range(100_000))
    return f"paid {what}"


@correct(crashes=8)
def others_withdrawn_by_a_failure() -> str:
    try:
        gather(fail.submit("x"), *[slow_charge.submit(n) for n in range(50)])
    except ValueError:
        return charge("handled")
    return "?"


@correct(crashes=8)
async def others_cancelled_by_a_failure() -> str:
    async def two(n: int) -> str:
        return await acharge([n, await acharge(n)])

    async def fails() -> None:
        await acharge("x")
        await afail("y")

    try:
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(two(n))
            group.create_task(fails())
    except* LookupError as error:
        await acharge(len(error.exceptions))
    return await acharge("end")


@correct()
async def a_task_that_is_cancelled() -> str:
    async def idle() -> None:
        await aio.wait_for("nothing")

    task = asyncio.create_task(idle())
    await acharge(1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return await acharge(2)


@correct()
def pure_code_in_threads() -> str:
    with ThreadPoolExecutor(2) as pool:
        return charge(list(pool.map(len, ["a", "bb"])))


@correct()
def beats_and_tolerance() -> Any:
    found = fail.map(["a", "b"], return_exceptions=True)
    return [beating(), *(charge(str(one)) for one in found)]


@correct()
def what_a_test_keeps(seen: Any = LOCK) -> str:
    with seen:
        return charge("book")


@correct()
def memory_that_does_not_matter() -> str:
    RATES.setdefault("cup", 3)
    return charge(RATES["cup"])


@step(retry=Retry(attempts=1))
def raise_from() -> str:
    try:
        return str(1 // 0)
    except ZeroDivisionError as error:
        raise LookupError("no price") from error


@correct()
def looks_at_the_cause() -> str:
    try:
        return raise_from()
    except LookupError as error:
        return charge(type(error.__cause__).__name__)


@step(in_doubt="raise", undo=lambda paid: None)
def pay_once(what: Any) -> str:
    return f"paid {what}"


@workflow
def pays_in_a_child(what: Any) -> str:
    return pay_once(what)


@correct(deaths=2)
def in_doubt() -> Any:
    first = pay_once(charge("cup"))
    return [first, *pay_once.map([1, 2]), pays_in_a_child(first)]
