"""``map``: many calls of one step, at most so many at a time, results in the order of the items.

Of several failures that of the first item is raised, once the calls that had begun have ended; others do not
begin then.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from flowdsl.engine.futures import StepFuture

__all__ = ["map_async", "map_sync"]


def map_sync(begins: list[Callable[[], StepFuture[Any]]], limit: int | None) -> list[Any]:
    futures: list[StepFuture[Any]] = []
    for begin in begins:
        if (
            limit is not None
            and len(futures) >= limit
            and futures[len(futures) - limit].settled() is not None
        ):
            break
        futures.append(begin())
    failed = None
    for future in futures:
        if failed is None:
            failed = future if future.settled() is not None else None
        elif not future.withdraw():
            future.settled()
    if failed is not None:
        failed.result()
    return [future.result() for future in futures]


async def map_async(begins: list[Callable[[], StepFuture[Any]]], limit: int | None) -> list[Any]:
    futures: list[StepFuture[Any]] = []
    pending: set[Any] = set()
    failed = False
    for begin in begins:
        if limit is not None and len(pending) >= limit:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            failed = any(one.cancelled() or one.exception() for one in done)
            if failed:
                break
        futures.append(begin())
        pending.add(futures[-1].as_asyncio())
    while pending:
        if failed:
            for future in futures:
                future.withdraw()
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        errors = [one.cancelled() or one.exception() for one in done]
        failed = failed or any(errors)
    found = []
    for future in futures:
        future.seen = True
        if not future.cancelled():
            found.append(await future)
    return found
