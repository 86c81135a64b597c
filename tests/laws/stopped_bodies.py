"""The bodies of the programs that :mod:`stopped` stops, and the world that they act in."""

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import worlds
from attrs import define, field
from bodies import Bodies, Body, Threads, step, workflow
from grammar import Program, Slot
from worlds import world

import flowdsl.aio
from flowdsl import Retry, current_run

__all__ = ["PLAYERS", "Failed", "World"]


class Failed(Exception):
    """What a failing step raises."""


@define(eq=False)
class World(worlds.World):
    """What really happened. ``did``: the tokens of each run; ``undid``: how often each was taken back, in that order;
    ``threads``: what bodies have left behind. *on_body* is called when a body begins."""

    on_body: Callable[[], object] = lambda: None
    did: list[tuple[str, Any]] = field(factory=list)
    undid: Counter[Any] = field(factory=Counter)
    threads: list[threading.Thread] = field(factory=list)
    tries: Counter[Any] = field(factory=Counter)
    tokens: Iterator[int] = field(factory=lambda: itertools.count(1))

    def did_it(self, kept: bool = False) -> Any:
        """A body is about to return: its token; of one that nothing takes back, with *kept*."""
        with self.lock:
            token: Any = f"k{next(self.tokens)}" if kept else next(self.tokens)
            self.did.append((current_run().id, token))
            return token

    def undid_it(self, token: Any) -> None:
        """The undo of *token* is about to return."""
        with self.lock:
            self.undid[token] += 1

    def fails(self, place: Any, times: int) -> bool:
        """Whether the body at *place* is to fail once more."""
        with self.lock:
            self.tries[place] += 1
            return self.tries[place] <= times


_QUICK = Retry(attempts=3, initial=0.0, jitter=0.0)


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


class Player(Bodies):
    """The steps and workflows, sync or async, and what each kind of node does with them."""

    def __init__(self, is_async: bool) -> None:
        super().__init__("stopped", is_async)
        take_back = self.made(self._take_back)
        self.undos = {
            "plain": take_back,
            "none": None,
            "flaky": self.made(self._take_back_flaky),
            "calls": self.made(self._take_back_calling),
        }
        self.kept = self.step("kept", undo=take_back)(self._kept)
        self.act = self.step("act", undo=take_back, retry=_QUICK)(self._act)
        self.nested = self.step("nested", undo=take_back, retry=_QUICK)(self._nested)

    # Steps and workflows

    def _take_back(self, token: Any) -> Body:
        world().on_body()
        if self.is_async:
            yield from self.wait(_turn(1))
        world().undid_it(token)

    def _kept(self, token: Any) -> Any:
        """What an undo does stays."""
        return world().did_it(kept=True)

    @step(retry=_QUICK)
    def take_back_more(self, how: str, token: Any) -> Body:
        """An undo that fails at first, or calls others."""
        if how == "flaky" and world().fails(("undo", token), 1):
            raise Failed
        if how == "calls":
            yield from self.wait(self.kept(token))
        yield from self._take_back(token)

    def _take_back_flaky(self, token: Any) -> Body:
        yield from self.wait(self.take_back_more("flaky", token))

    def _take_back_calling(self, token: Any) -> Body:
        yield from self.wait(self.take_back_more("calls", token))

    def _act(self, slot: Slot, turns: int, fails: int = 0, kept: bool = False) -> Body:
        """Do something that can be undone."""
        world().on_body()
        if self.is_async:
            yield from self.wait(_turn(turns))
        if world().fails((current_run().id, slot), fails):
            raise Failed
        return world().did_it(kept)

    @step(retry=Retry(attempts=1))
    def fail(self, slot: Slot) -> None:
        raise Failed(slot)

    def _nested(self, slot: Slot, program: Program) -> Body:
        """Call others."""
        yield from self.play(slot, program)
        return world().did_it()

    @workflow()
    def child(self, slot: Slot, program: Program) -> Body:
        yield from self.play(slot, program)

    # Nodes

    def on_act(self, slot: Slot, fails: int, turns: int, undo: str) -> Body:
        act = self.act if undo == "plain" else self.act.options(undo=self.undos[undo])
        yield from self.wait(act(slot, turns, fails, undo == "none"))

    def on_fail(self, slot: Slot, handled: bool) -> Body:
        with contextlib.suppress(*([Failed] if handled else [])):
            yield from self.wait(self.fail(slot))

    def on_nested(self, slot: Slot, program: Program) -> Body:
        yield from self.wait(self.nested(slot, program))

    def on_child(self, slot: Slot, program: Program) -> Body:
        yield from self.wait(self.child(slot, program))

    def on_guard(self, slot: Slot, program: Program, after: Program) -> Body:
        try:
            yield from self.play(slot, program)
        finally:
            yield from self.play((*slot, "finally"), after)

    def on_swallow(self, slot: Slot, program: Program) -> Body:
        with contextlib.suppress(BaseException):
            yield from self.play(slot, program)

    def on_at_once(self, slot: Slot, branches: tuple[Program, ...], how: str, turns: int) -> Body:
        """The ways that both kinds of bodies have. What a sync one cannot do, it does with ``start``."""
        calls = [((*slot, n), branch) for n, branch in enumerate(branches)]
        if how == "submit":
            yield from self.wait(self.verbs.gather(*(self.act.submit(at, turns) for at, _ in calls)))
        elif how == "schedule":
            for at, _ in calls:
                yield from self.wait(self.verbs.schedule(self.act, at, turns))
        elif self.is_async and how != "start":
            yield from self.wait(_in_tasks(how, calls, turns))
        elif how == "race":
            try:
                flowdsl.race(*(self.child.start(*call) for call in calls))
            except ExceptionGroup as failed:
                raise Failed(slot) from failed
        elif how in ("thread", "loose"):
            threads = Threads([partial(self.branch, *call) for call in calls])
            world().threads.extend(threads)
            if how == "thread":
                threads.results()
        else:
            yield from self.wait(self.verbs.gather(*(self.child.start(*call) for call in calls)))


PLAYERS = {is_async: Player(is_async) for is_async in (False, True)}


# What async bodies alone can do -----------------------------------------------------------------------------


async def _in_tasks(how: str, calls: list[tuple[Slot, Program]], turns: int) -> None:
    branches = [] if how == "thread" else [PLAYERS[True].branch(*call) for call in calls]
    if how == "thread":
        await asyncio.gather(*(asyncio.to_thread(PLAYERS[False].act, at, turns) for at, _ in calls))
    elif how in ("group", "race"):
        try:
            await (_group if how == "group" else flowdsl.aio.race)(*branches)
        except* Failed as failed:
            raise Failed(how) from failed
    elif how == "timeout":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                expiring = asyncio.create_task(_expire(limit, turns * 3))
                await asyncio.gather(*branches)
        expiring.cancel()
    elif how in ("gather", "branches"):
        await (asyncio.gather if how == "gather" else flowdsl.aio.gather)(*branches)
    else:
        tasks = [asyncio.create_task(branch) for branch in branches]
        await _turn(turns * 3)
        if how == "left":
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _group(*branches: Any) -> None:
    async with asyncio.TaskGroup() as group:
        for branch in branches:
            group.create_task(branch)


async def _expire(limit: asyncio.Timeout, turns: int) -> None:
    await _turn(turns)
    with contextlib.suppress(RuntimeError):  # the block has been left
        limit.reschedule(0)
