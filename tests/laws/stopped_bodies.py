"""The bodies of the programs that :mod:`stopped` stops: each node as a call of a real step or workflow."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

from bodies import Bodies, Body, Threads
from stopped_grammar import Act, Beside, Boom, Call, Failed, Guard, Nest, Program, Swallow, World

import flowdsl.aio
from flowdsl import Retry, current_run

__all__ = ["PLAYERS", "meet"]

_world = World()
_on_body: Callable[[], object] = lambda: None
_programs: dict[tuple[Any, ...], Any] = {}
_QUICK = Retry(attempts=3, initial=0.0, jitter=0.0)


def meet(world: World, program: Program, on_body: Callable[[], object] = lambda: None) -> World:
    """Let the bodies of *program* act in *world*, and call *on_body* when they begin."""
    global _world, _on_body
    _world, _on_body = world, on_body
    _programs.clear()
    _programs["p"] = program
    return world


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


class Player(Bodies):
    """The steps and workflows, sync or async, and what each kind of node does with them."""

    def __init__(self, is_async: bool) -> None:
        super().__init__("stopped", is_async)
        take_back, once = self.made(self._take_back), Retry(attempts=1)
        self.undos = {
            "plain": take_back,
            "none": None,
            "flaky": self.made(self._take_back_flaky),
            "calls": self.made(self._take_back_calling),
        }
        self.kept = self.step("kept", undo=take_back)(self._kept)
        self.more = self.step("take_back_more", retry=_QUICK)(self._take_back_more)
        self.act = self.step("act", undo=take_back, retry=_QUICK)(self._act)
        self.boom = self.step("boom", retry=once)(self._boom)
        self.nest = self.step("nest", undo=take_back, retry=_QUICK)(self._nest)
        self.call = self.workflow("call")(self._call)
        self.branch = self.made(self._branch)

    # Steps and workflows

    def _take_back(self, token: Any) -> Body:
        _on_body()
        if self.is_async:
            yield from self.wait(_turn(1))
        _world.undid_it(token)

    def _kept(self, token: Any) -> Any:
        """What an undo does stays."""
        return _world.did_it(kept=True)

    def _take_back_more(self, how: str, token: Any) -> Body:
        """An undo that fails at first, or calls others."""
        if how == "flaky" and _world.fails(("undo", token), 1):
            raise Failed
        if how == "calls":
            yield from self.wait(self.kept(token))
        yield from self._take_back(token)

    def _take_back_flaky(self, token: Any) -> Body:
        yield from self.wait(self.more("flaky", token))

    def _take_back_calling(self, token: Any) -> Body:
        yield from self.wait(self.more("calls", token))

    def _act(self, place: str) -> Body:
        """Do something that can be undone."""
        node = _programs[place]
        _on_body()
        if self.is_async:
            yield from self.wait(_turn(node.turns))
        if _world.fails((current_run().id, place), node.fails):
            raise Failed
        return _world.did_it(kept=node.undo == "none")

    def _boom(self, place: str) -> None:
        """Fail."""
        raise Failed(place)

    def _nest(self, place: str) -> Body:
        """Call others."""
        yield from self.play(_programs[place].nodes, place)
        return _world.did_it()

    def _call(self, place: str) -> Body:
        """A workflow in the workflow."""
        yield from self.play(_programs[place], place)

    def _branch(self, place: str) -> Body:
        yield from self.play(_programs[place], place)

    # Nodes

    def play(self, nodes: Program, place: str) -> Body:
        """Execute *nodes*, which stand at *place*."""
        for index, node in enumerate(nodes):
            here = f"{place}.{index}"
            _programs[here] = node.nodes if isinstance(node, Call) else node
            if isinstance(node, Act):
                act = self.act if node.undo == "plain" else self.act.options(undo=self.undos[node.undo])
                yield from self.wait(act(here))
            elif isinstance(node, Nest):
                yield from self.wait(self.nest(here))
            elif isinstance(node, Guard):
                try:
                    yield from self.play(node.nodes, here)
                finally:
                    yield from self.play(node.after, f"{here}.f")
            elif isinstance(node, Swallow):
                with contextlib.suppress(BaseException):
                    yield from self.play(node.nodes, here)
            elif isinstance(node, Call):
                yield from self.wait(self.call(here))
            elif isinstance(node, Boom):
                with contextlib.suppress(*([Failed] if node.handled else [])):
                    yield from self.wait(self.boom(here))
            else:
                yield from self._beside(node, here)

    def _beside(self, node: Beside, place: str) -> Body:
        """The ways that both kinds of bodies have. What a sync one cannot do, it does with ``start``."""
        if node.how == "submit":
            calls = [self.act.submit(each) for each in _acts_of(node, place)]
            yield from self.wait(self.verbs.gather(*calls))
        elif node.how == "schedule":
            for each in _acts_of(node, place):
                yield from self.wait(self.verbs.schedule(self.act, each))
        elif self.is_async and node.how != "start":
            yield from self.wait(_beside_in_tasks(node, place))
        elif node.how == "race":
            try:
                flowdsl.race(*(self.call.start(each) for each in _branches(node, place)))
            except ExceptionGroup as failed:
                raise Failed(place) from failed
        elif node.how in ("thread", "loose"):
            threads = Threads([functools.partial(self.branch, each) for each in _branches(node, place)])
            _world.threads.extend(threads)
            if node.how == "thread":
                threads.results()
        else:
            runs = [self.call.start(each) for each in _branches(node, place)]
            yield from self.wait(self.verbs.gather(*runs))


def _branches(node: Beside, place: str) -> list[str]:
    """The places of the branches."""
    places = {f"{place}.b{number}": branch for number, branch in enumerate(node.branches)}
    _programs.update(places)
    return list(places)


def _acts_of(node: Beside, place: str) -> list[str]:
    """The places of as many single steps."""
    places = {f"{place}.s{number}": Act(0, node.turns) for number in range(len(node.branches))}
    _programs.update(places)
    return list(places)


PLAYERS = {is_async: Player(is_async) for is_async in (False, True)}


# What async bodies alone can do -----------------------------------------------------------------------------


async def _beside_in_tasks(node: Beside, place: str) -> None:
    how = node.how
    if how == "thread":
        await asyncio.gather(*(asyncio.to_thread(PLAYERS[False].act, each) for each in _acts_of(node, place)))
    elif how in ("group", "race"):
        try:
            await (_group if how == "group" else _race)(node, place)
        except* Failed as failed:
            raise Failed(place) from failed
    elif how == "timeout":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                expiring = asyncio.create_task(_expire(limit, node.turns * 3))
                await asyncio.gather(*_coroutines(node, place))
        expiring.cancel()
    elif how in ("gather", "branches"):
        await (asyncio.gather if how == "gather" else flowdsl.aio.gather)(*_coroutines(node, place))
    else:
        tasks = [asyncio.create_task(branch) for branch in _coroutines(node, place)]
        await _turn(node.turns * 3)
        if how == "left":
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _coroutines(node: Beside, place: str) -> list[Any]:
    return [PLAYERS[True].branch(each) for each in _branches(node, place)]


async def _group(node: Beside, place: str) -> None:
    async with asyncio.TaskGroup() as group:
        for branch in _coroutines(node, place):
            group.create_task(branch)


async def _race(node: Beside, place: str) -> None:
    await flowdsl.aio.race(*_coroutines(node, place))


async def _expire(limit: asyncio.Timeout, turns: int) -> None:
    await _turn(turns)
    with contextlib.suppress(RuntimeError):  # the block has been left
        limit.reschedule(0)
