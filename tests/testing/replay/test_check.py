"""check_replay: what it must find, what it must accept, and what it reports."""

import asyncio
import copy
import datetime
import functools
import os
import random
import sqlite3
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from replay_steps import careful, charge, refused

from flowdsl import Retry, Runtime, gather, step, store, wait_for, workflow
from flowdsl.aio import gather as gather_async
from flowdsl.codecs import JsonCodec
from flowdsl.errors import StepNotFound
from flowdsl.testing import check_replay
from flowdsl.testing.replay.causes import (
    ADVICE,
    ARGUMENT,
    CHANCE,
    CLOCK,
    ENVIRONMENT,
    IDS,
    MEMORY,
    ORDER,
    SETS,
    UNRECORDED,
)

CACHE: dict[str, str] = {}
COUNTER = 0
SETTINGS: list[str] = []
sent: list[str] = []


@step(mode="try")
def roll() -> float:
    """A step that leaves no record."""
    return random.random()


@step(mode="try")
def shared() -> list[str]:
    """A step that gives away what it keeps."""
    return SETTINGS


@step
def enrich(order: dict[str, Any]) -> None:
    """A step that changes its argument."""
    order["price"] = 5


@step
def fill_cache() -> None:
    """A step that leaves something in memory."""
    CACHE["rate"] = "high"


@step
async def reply(n: int) -> int:
    """A step that takes the longer, the smaller its number."""
    for _ in range(20 * (3 - n)):
        await asyncio.sleep(0)
    return n


@functools.cache
def cached_price() -> str:
    """Calls a step the first time only."""
    return charge("price")


# mistakes ---------------------------------------------------------------------------------------------


@workflow
def chance_in_a_step_without_record() -> str:
    return charge(roll())


@workflow
def wall_clock() -> str:
    return charge(time.time())


@workflow
def today() -> str:
    return charge(str(datetime.date.today()))


@workflow
def random_number() -> str:
    return charge(random.random())


@workflow
def random_id() -> str:
    return charge(str(uuid.uuid4()))


@workflow
def set_order() -> list[str]:
    return [charge(one) for one in {"a", "b", "c"}]


@workflow
def set_order_of_a_map() -> list[str]:
    return charge.map({"a", "b", "c"})


@workflow
def environment() -> str:
    return charge(os.environ["HOME"])


@workflow
def mutable_global() -> str:
    global COUNTER
    COUNTER += 1
    return charge(COUNTER)


@workflow
def module_cache() -> str:
    if "x" not in CACHE:
        CACHE["x"] = charge("x")
    return CACHE["x"]


@workflow
def decorated_cache() -> str:
    return cached_price() + charge("rest")


@workflow
def cache_filled_by_a_step() -> str:
    fill_cache()
    return charge(CACHE.get("rate", "unknown"))


@workflow
def mutated_argument() -> str:
    order = {"item": "book"}
    enrich(order)
    return charge(order.get("price"))


@workflow
def time_dependent_branch() -> str:
    return charge("early") if datetime.datetime.now().month < 7 else charge("late")


@workflow
async def unordered_concurrency() -> list[int]:
    return [await one for one in asyncio.as_completed([reply(1), reply(2)])]


@workflow
def mutated_result() -> str:
    settings = shared()
    settings.append("seen")
    return charge(len(settings))


MISTAKES = {
    wall_clock: (CLOCK, "time.time()"),
    today: (CLOCK, "datetime.date.today()"),
    time_dependent_branch: (CLOCK, "datetime.datetime.now().month"),
    random_number: (CHANCE, "random.random()"),
    random_id: (IDS, "uuid.uuid4()"),
    set_order: (SETS, "sort it"),
    set_order_of_a_map: (SETS, "sort it"),
    environment: (ENVIRONMENT, 'os.environ["HOME"]'),
    mutable_global: (MEMORY, "charge(COUNTER)"),
    module_cache: (MEMORY, "charge(what='x')"),
    decorated_cache: (MEMORY, "charge(what='price')"),
    cache_filled_by_a_step: (MEMORY, "CACHE.get("),
    mutated_argument: (ARGUMENT, "enrich() turned order from {'item': 'book'} to"),
    mutated_result: (MEMORY, "charge(2)"),
    chance_in_a_step_without_record: (UNRECORDED, "roll() is of mode 'try'"),
    unordered_concurrency: (ORDER, "the first execution returned [2, 1]"),
}


@pytest.fixture(autouse=True)
def _fresh_memory() -> None:
    CACHE.clear()
    SETTINGS.clear()
    cached_price.cache_clear()


@pytest.mark.parametrize("made", MISTAKES, ids=lambda made: made.__name__)
def test_a_mistake_is_caught_and_explained(made: Any) -> None:
    """Each usual mistake makes a difference after some crash, and the report names it, shows it, and says
    what to do."""
    cause, place = MISTAKES[made]
    story = refused(made)
    assert f"{made.__name__}() does not replay: it died after commit " in story
    assert f"it depends on: {cause}\n" in story
    assert place.lower() in story.lower()
    told = " ".join(story.partition("what to do:")[2].split())
    assert told.endswith(ADVICE[cause])


def test_an_exception_that_loads_differently_is_caught() -> None:
    """A lost attribute of an exception is named, although the type is kept."""

    class Declined(Exception):
        def __init__(self, code: int) -> None:
            super().__init__(f"declined: {code}")
            self.code = code
            self.lock = threading.Lock()

    @step(retry=Retry(attempts=1))
    def pay() -> None:
        raise Declined(5)

    @workflow
    def flow() -> str:
        try:
            pay()
        except Declined as error:
            return str(error.code)
        return ""

    assert "pay raised" in refused(flow)
    check_replay(flow, lossy=True)


def test_a_lossy_codec_is_caught() -> None:
    """A tuple that comes back as a list is reported."""

    @step
    def pair() -> Any:
        return {"pair": (1, 2)}

    @workflow
    def flow() -> int:
        return len(pair()["pair"])

    story = refused(flow, options={"codec": JsonCodec()})
    assert "pair returned {'pair': (1, 2)}, and its record gives {'pair': [1, 2]}" in story
    assert check_replay(flow).value == 2
    assert check_replay(flow, options={"codec": JsonCodec()}, lossy=True).value == 2


def test_a_file_written_outside_of_steps_is_caught(tmp_path: Path) -> None:
    """A file that a workflow's body opens for writing is reported as an effect."""

    @workflow
    def flow() -> None:
        (tmp_path / "out").write_text("hello")

    story = refused(flow)
    assert "outside of every step" in story
    assert "test_check.py" in story
    check_replay(flow, outside_effects=True)
    assert "happened again" in refused(flow, outside_effects=True, watch=[tmp_path / "out"])


def test_a_handle_that_is_open_already_must_be_watched(tmp_path: Path) -> None:
    """Writing to an open handle is seen only with ``watch``, and the report says why no other process checks
    it."""
    with (tmp_path / "log").open("a") as handle:

        @workflow
        def flow() -> str:
            handle.write("paid\n")
            handle.flush()
            return charge("book")

        assert "cannot be taken to another process" in check_replay(flow).only_here
        assert "happened again" in refused(flow, watch=[tmp_path / "log"])


def test_an_effect_that_is_watched_is_caught() -> None:
    """A change of a watched list, or of what a watched function returns, is reported as an effect."""

    @workflow
    def flow() -> None:
        charge(1)
        sent.append("mail")

    sent.clear()
    assert "['mail', 'mail']" in refused(flow, watch=[sent])
    assert "happened again" in refused(flow, watch=[lambda: len(sent)])


# what is right ----------------------------------------------------------------------------------------


def test_what_comes_from_steps_and_verbs_replays() -> None:
    """Times, random numbers and settings from steps and verbs are accepted."""
    report = check_replay(careful, 3, deaths=2)
    assert report.value[-2] == 3
    assert report.crashes > 10


def test_a_mutated_result_is_no_mistake() -> None:
    """Changing a result of a step is accepted, because each execution loads its own."""

    @step
    def basket() -> list[str]:
        return ["book"]

    @workflow
    def flow() -> list[str]:
        mine = basket()
        mine.append("pen")
        return [charge(mine), *mine]

    check_replay(flow)


def test_async_workflows_and_branches_replay() -> None:
    """Concurrent steps with results in input order are accepted, in a running event loop too."""

    @workflow
    async def flow() -> list[int]:
        return [*await asyncio.gather(reply(1), reply(2)), *await reply.map([2, 1])]

    async def main() -> Any:
        return check_replay(flow).value

    assert check_replay(flow).value == [1, 2, 2, 1]
    assert asyncio.run(main()) == [1, 2, 2, 1]


def test_threads_children_and_nested_steps_replay() -> None:
    """Threads, children and nested steps are accepted."""

    @step
    def outer(n: int) -> str:
        store.push("seen", n)
        return charge(n)

    @workflow
    def child(n: int) -> str:
        return outer(n)

    @workflow
    def flow() -> Any:
        futures = [charge.submit(n) for n in range(3)]
        return [*gather(*futures), child(1), outer(2), store.items()]

    report = check_replay(flow)
    assert report.value == ["paid 0", "paid 1", "paid 2", "paid 1", "paid 2", {"seen": [2]}]


def test_branches_inside_steps_replay() -> None:
    """Branches inside a step's body are covered by the step's own record."""

    async def branch(n: int) -> int:
        return await reply(n)

    @step
    async def both() -> list[int]:
        return await gather_async(branch(1), branch(2))

    @workflow
    async def flow() -> list[int]:
        return [*await both(), await reply(2)]

    assert check_replay(flow).value == [1, 2, 2]


def test_undo_functions_are_executed_once() -> None:
    """An undo function executes once, and its steps are not reported as missing."""
    undone: list[str] = []

    def plain(what: str) -> None:
        undone.append(what)

    @step
    def refund(what: str) -> None:
        charge(f"back {what}")

    @step(undo=plain)
    def first() -> str:
        return "first"

    @step(undo=refund)
    def second() -> str:
        return "second"

    @workflow
    def flow() -> None:
        first()
        second()
        raise ValueError("no")

    assert isinstance(check_replay(flow, raises=ValueError).error, ValueError)
    assert undone == ["first"]


def test_failures_and_retries_replay() -> None:
    """A workflow may fail if it always fails in the same way, and attempts are replayed one by one."""
    attempts: list[int] = []

    @step(retry=Retry(attempts=3))
    def flaky() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("not yet")
        return "done"

    @step(retry=Retry(attempts=1))
    def broken() -> None:
        raise ValueError("no")

    @workflow
    def flow() -> None:
        flaky()
        broken()

    report = check_replay(flow, raises=ValueError)
    assert isinstance(report.error, ValueError)
    assert len(attempts) == 3


def test_bodies_are_executed_once() -> None:
    """However many crashes are tried, each body executes once."""
    counted: list[Any] = []

    @step
    def count(n: int) -> None:
        counted.append(n)

    @workflow
    def flow() -> None:
        for n in range(3):
            count(n)

    assert check_replay(flow, deaths=2).executions > 10
    assert counted == [0, 1, 2]


def test_fakes_stand_in_for_bodies() -> None:
    """``fakes`` replace steps by function or by path, sync or async."""

    @workflow
    async def flow() -> Any:
        return [await reply(1), await fake_me()]

    @step
    async def fake_me() -> str:
        raise AssertionError("the real one")

    async def fake() -> str:
        return "fake"

    assert check_replay(flow, fakes={fake_me: fake, reply.path: lambda n: 10 * n}).value == [10, "fake"]


def test_rows_of_transactional_steps_are_kept_once(tmp_path: Path) -> None:
    """Rows of transactional steps are committed once to the named database, and records are not stored
    there."""

    @step(transaction=True)
    def seat(n: int, *, connection: Any = None) -> int:
        connection.execute("INSERT INTO seats VALUES (?)", (n,))
        return n

    @workflow
    def flow() -> list[int]:
        return [seat(1), seat(1)]

    url = f"sqlite:///{tmp_path}/shop.db"
    Runtime(url).close()
    with sqlite3.connect(tmp_path / "shop.db") as mine:
        mine.execute("CREATE TABLE seats (n INTEGER)")
    assert check_replay(flow, options={"storage": url}, deaths=2).value == [1, 1]
    assert mine.execute("SELECT n FROM seats").fetchall() == [(1,), (1,)]
    with Runtime(url) as rt:
        assert rt.runs() == []
    with pytest.raises(TypeError, match="SQLite or PostgreSQL"):
        check_replay(flow, options={"storage": "memory://"})
    mine.close()


def test_our_own_settings_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """flowdsl's own settings stay the same in other processes, because another secret could read no
    record."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "a key of this test")

    @workflow
    def flow() -> str:
        return charge("book")

    assert check_replay(flow).only_here == ""


def test_signals_are_sent() -> None:
    """Signals are sent once, when the workflow starts."""

    @workflow
    def flow() -> list[Any]:
        return [wait_for("go"), wait_for("go"), charge("x")]

    assert check_replay(flow, signals=[("go", 1), ("go", 2)]).value == [1, 2, "paid x"]


def test_the_arguments_are_copies() -> None:
    """A workflow may change its arguments, because each process has its own copy."""

    @workflow
    def flow(order: dict[str, int]) -> str:
        order["n"] = order.get("n", 0) + 1
        return charge(order)

    order: dict[str, int] = {}
    check_replay(flow, order)
    assert order == {}


def test_memory_is_left_as_the_first_execution_left_it() -> None:
    """Globals and caches are restored after the check."""
    before = copy.copy(CACHE)

    @workflow
    def flow() -> None:
        fill_cache()

    check_replay(flow)
    assert {**before, "rate": "high"} == CACHE
    assert time.time() < datetime.datetime.now().timestamp() + 60
    assert "elsewhere" not in os.environ["HOME"]


# what it tells ----------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused() -> None:
    """Wrong arguments, fakes of unknown steps, and an impossible number of crashes are refused."""

    @workflow
    def flow(n: int) -> str:
        return charge(n)

    with pytest.raises(TypeError, match="argument"):
        check_replay(flow)
    with pytest.raises(StepNotFound, match="chargee"):
        check_replay(flow, 1, fakes={"chargee": lambda n: "no"})
    for fakes in ({charge: "no"}, {5: lambda: "no"}):
        with pytest.raises(TypeError, match="fakes="):
            check_replay(flow, 1, fakes=fakes)
    with pytest.raises(ValueError, match="crashes"):
        check_replay(flow, 1, crashes=0)
    assert check_replay(flow, 1, fakes={"replay_steps.charge": lambda what: "fake"}).value == "fake"


def test_only_a_workflow_can_be_checked() -> None:
    """A step or plain function is a TypeError."""
    with pytest.raises(TypeError, match="decorated with @workflow"):
        check_replay(charge)


# replay_test ------------------------------------------------------------------------------------------


def test_a_partial_is_checked():
    """A workflow around a functools.partial is checked, and its report has a name."""

    def add(a, b):
        return charge(a) + charge(b)

    added = workflow(functools.partial(add, 1), name="partly")
    assert check_replay(added, 2).value == "paid 1paid 2"
