"""The types of flowdsl, as mypy and pyright must see them. Both check this file, and it is never executed.

A decorated function keeps its parameters and its return type. A line that must be refused has an ignoring
comment for each checker, and both report a comment that ignores nothing.
"""

from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from random import Random
from typing import Any, assert_type
from uuid import UUID

import flowdsl
from flowdsl import Hooks, Retry, Run, RunStatus, Runtime, StepStatus, aio, on, step, workflow
from flowdsl.storage import SQLiteStorage

# Steps ------------------------------------------------------------------------------------------------------


@step
def double(x: int) -> int:
    return 2 * x


@step
def add(x: int, y: int) -> int:
    return x + y


@step()
def bare_parentheses(x: int) -> int:
    return x


@step(
    retry=Retry(attempts=5, on=(OSError,)), timeout="5 min", ignore=("client",), executor=ThreadPoolExecutor()
)
def fetch(url: str, *, client: object = None) -> bytes:
    return b""


@step
async def afetch(url: str, tries: int = 1) -> bytes:
    return b""


@step(mode="send", name="mail.send")
async def mail(to: str) -> None: ...


assert_type(double(1), int)
assert_type(bare_parentheses(1), int)
assert_type(fetch("u", client=1), bytes)
assert_type(double.path, str)
assert_type(double.key(1), str)
assert_type(double.explain_key(x=1), str)
double.forget(1)

double("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
double()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
double(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fetch("u", 1)  # type: ignore[call-arg, misc, unused-ignore]  # pyright: ignore[reportCallIssue]
double.key("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
print(double.nothing)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# Decorators called as functions.
def plain(a: int, b: str = "x") -> float:
    return 1.0


async def aplain(a: int) -> bytes:
    return b""


assert_type(step(plain, name="plain")(1, b="y"), float)
assert_type(step(plain, name="sent", mode="send")(1), None)
assert_type(workflow(plain, id="plain-{a}").start(1), Run[float])
assert_type(workflow(plain, name="plain").enqueue(1), Run[float])
assert_type(workflow(aplain, timeout="1 min").options(queue="mail").enqueue(1), Run[bytes])
on("order.paid")(plain)
step(plain, name=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
step(plain, name="plain")("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
workflow(plain, nam="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

# A step is still a function to whoever takes one.
as_function: Callable[[int], int] = double
as_async: Callable[[str], Coroutine[Any, Any, bytes]] = afetch

# Options ----------------------------------------------------------------------------------------------------

assert_type(double.options(timeout=3)(1), int)
assert_type(fetch.options(retry=None, on_divergence="rerun")("u"), bytes)
double.options(timeout=3)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
double.options(timout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
double.options(mode="later")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
step(mode="later")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

# Concurrency ------------------------------------------------------------------------------------------------

assert_type(double.submit(1).result(), int)
assert_type(double.submit(1).exception(), BaseException | None)
mapped: list[int] = double.map([1, 2], limit=2)
triples: list[int] = add.map([1, 2], (3, 4))
assert_type(mapped[0], int)
double.map(["1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
add.map([1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
double.submit("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def in_async_code() -> None:
    assert_type(await afetch("u"), bytes)
    assert_type(await afetch("u", tries=2), bytes)
    assert_type(await afetch.submit("u"), bytes)
    assert_type(await double.submit(1), int)
    assert_type(await afetch.map(["u"]), list[bytes])
    assert_type(await afetch.map(["u"], [2], limit=3), list[bytes])
    assert_type(await double.map([1]), list[int])
    await afetch.map([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(await afetch.options(timeout=1)("u"), bytes)
    assert_type(await mail("a"), None)
    await afetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Methods ----------------------------------------------------------------------------------------------------


class Shop:
    @step
    def price(self, item: str) -> float:
        return 0.0

    @step(timeout=1)
    async def stock(self, item: str) -> int:
        return 0

    @step()
    @classmethod
    def close(cls, hour: int) -> bool:
        return True

    @classmethod
    @step
    def open(cls, name: str) -> "Shop":
        return cls()

    @staticmethod
    @step
    def tax(price: float) -> float:
        return price

    @workflow
    def buy(self, item: str) -> float:
        return self.price(item)

    @classmethod
    @workflow
    def audit(cls, year: int) -> bool:
        return True


shop = Shop()
assert_type(shop.price("tea"), float)
assert_type(Shop.price(shop, "tea"), float)
assert_type(shop.price.submit("tea").result(), float)
assert_type(shop.price.options(timeout=1)("tea"), float)
assert_type(shop.price.key("tea"), str)
assert_type(Shop.open("corner"), Shop)
assert_type(Shop.open.submit("corner").result(), Shop)
assert_type(shop.open("corner"), Shop)
assert_type(Shop.close(18), bool)
assert_type(shop.close.submit(18).result(), bool)
assert_type(Shop.tax(1.0), float)
assert_type(shop.tax(1.0), float)
assert_type(shop.buy("tea"), float)
assert_type(shop.buy.start("tea"), Run[float])
assert_type(Shop.audit(2024), bool)
assert_type(shop.audit.start(2024), Run[bool])
shop.price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shop.open(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shop.tax("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def of_methods() -> None:
    assert_type(await shop.stock("tea"), int)
    assert_type(await shop.stock.submit("tea"), int)


# Workflows --------------------------------------------------------------------------------------------------


@workflow
def twice(x: int) -> int:
    return double(double(x))


@workflow(id="order-{order}", timeout="1 day", tags={"team": "shop"}, on_error=lambda run, error: None)
def checkout(order: int, *, express: bool = False) -> str:
    return ""


@workflow(id=lambda order: f"order-{order}")
async def acheckout(order: int) -> str:
    return ""


assert_type(twice(1), int)
assert_type(twice.start(1), Run[int])
assert_type(checkout.options(id="other", tags=["a"])(1, express=True), str)
assert_type(checkout.options(timeout=1).start(1), Run[str])
twice("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
twice.start()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
checkout.options(fresh=True)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
checkout.options(retry=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def of_workflows() -> None:
    assert_type(await acheckout(1), str)
    assert_type(await acheckout.options(id="a")(1), str)
    assert_type(acheckout.start(1), Run[str])


# Runs and runtimes ------------------------------------------------------------------------------------------

with Runtime("memory://", retry=Retry(), hooks=[Hooks()]) as rt:
    assert_type(rt, Runtime)
    assert_type(rt.run("order-1"), Run | None)
    assert_type(rt.runs(status="failed", workflow=checkout, limit=10), list[Run])

assert_type(flowdsl.configure(SQLiteStorage("flow.db"), lease=10.0), Runtime)
assert_type(flowdsl.current_runtime(), Runtime)

run = twice.start(1)
assert_type(run.id, str)
assert_type(run.status, RunStatus)
assert_type(run.steps()[0].status, StepStatus)
assert_type(run.created_at, datetime)
assert_type(run.children(), list[Run])


@on("order.paid")
def handler(payload: dict[str, Any]) -> None: ...


assert_type(handler({}), None)

# Verbs ------------------------------------------------------------------------------------------------------

assert_type(flowdsl.now(), datetime)
assert_type(flowdsl.uuid4(), UUID)
assert_type(flowdsl.rng(), Random)
assert_type(flowdsl.current_run(), Run | None)
assert_type(flowdsl.store.push("key", 1), int)
assert_type(flowdsl.store.items(), dict[str, Any])
assert_type(flowdsl.gather(double.submit(1), twice.start(1)), tuple[int, int])
assert_type(flowdsl.race(double.submit(1), twice.start(1)), int)
assert_type(flowdsl.race(double.submit(1), fetch.submit("u")), int | bytes)
if (attempt := flowdsl.current_step()) is not None:
    assert_type(attempt.idempotency_key, str)
flowdsl.sleep_until("tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def twins() -> None:
    async with Runtime("memory://") as rt:
        assert_type(await rt.aio.run("one"), Run | None)
        assert_type(await rt.aio.do(afetch, "u"), bytes)
        assert_type(await rt.aio.do(double, 1), int)
        assert_type(await rt.aio.runs(status="failed"), list[Run])
        assert_type(await rt.aio.resume("one"), Run)
        assert_type(await rt.aio.prune("30 days"), int)


async def verbs_that_wait() -> None:
    assert_type(await aio.store.items(), dict[str, Any])
    assert_type(await aio.gather(afetch("u"), afetch("v")), tuple[bytes, bytes])
    assert_type(await aio.race(afetch("u"), double.submit(1)), bytes | int)
