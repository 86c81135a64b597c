"""The bodies of the programs that :mod:`stopped` stops: each node as a call of a real step or workflow."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from stopped_grammar import Act, Beside, Boom, Call, Failed, Guard, Nest, Program, Swallow, World

from flowdsl import Retry, aio, current_run, gather, race, schedule, step, workflow

__all__ = ["async_call", "call", "meet"]

_world = World()
_on_body: Callable[[], object] = lambda: None
_programs: dict[tuple[Any, ...], Any] = {}
_QUICK = Retry(attempts=3, initial=0.0, jitter=0.0)


def _turn(times: int) -> Any:
    async def wait() -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    return wait()


def meet(world: World, program: Program, on_body: Callable[[], object] = lambda: None) -> World:
    """Let the bodies of *program* act in *world*, and call *on_body* when they begin."""
    global _world, _on_body
    _world, _on_body = world, on_body
    _programs.clear()
    _programs["p"] = program
    return world


# The sync half ----------------------------------------------------------------------------------------------


def _take_back(token: Any) -> None:
    _on_body()
    _world.undid_it(token)


@step(name="stopped.kept", undo=_take_back)
def kept(token: Any) -> Any:
    """What an undo does stays."""
    return _world.did_it(kept=True)


@step(name="stopped.take_back_more", retry=_QUICK)
def _take_back_more(how: str, token: Any) -> None:
    """An undo that fails at first, or calls others."""
    if how == "flaky" and _world.fails(("undo", token), 1):
        raise Failed
    if how == "calls":
        kept(token)
    _take_back(token)


def _take_back_flaky(token: Any) -> None:
    _take_back_more("flaky", token)


def _take_back_calling(token: Any) -> None:
    _take_back_more("calls", token)


@step(name="stopped.act", undo=_take_back, retry=_QUICK)
def act(place: str) -> Any:
    """Do something that can be undone."""
    node = _programs[place]
    _on_body()
    if _world.fails((current_run().id, place), node.fails):
        raise Failed
    return _world.did_it(kept=node.undo == "none")


def _as(step: Any, node: Act) -> Any:
    """The step of *node*, with its undo."""
    return step if node.undo == "plain" else step.options(undo=_UNDOS[step.__name__, node.undo])


@step(name="stopped.boom", retry=Retry(attempts=1))
def boom(place: str) -> None:
    """Fail."""
    raise Failed(place)


@step(name="stopped.nest", undo=_take_back, retry=_QUICK)
def nest(place: str) -> Any:
    """Call others."""
    _play(_programs[place].nodes, place)
    return _world.did_it()


@workflow(name="stopped.call")
def call(place: str) -> None:
    """A workflow in the workflow."""
    _play(_programs[place], place)


def _play(nodes: Program, place: str) -> None:
    for index, node in enumerate(nodes):
        here = f"{place}.{index}"
        _programs[here] = node.nodes if isinstance(node, Call) else node
        if isinstance(node, Act):
            _as(act, node)(here)
        elif isinstance(node, Nest):
            nest(here)
        elif isinstance(node, Guard):
            try:
                _play(node.nodes, here)
            finally:
                _play(node.after, f"{here}.f")
        elif isinstance(node, Swallow):
            with contextlib.suppress(BaseException):
                _play(node.nodes, here)
        elif isinstance(node, Call):
            call(here)
        elif isinstance(node, Boom):
            with contextlib.suppress(*([Failed] if node.handled else [])):
                boom(here)
        else:
            _beside(node, here)


def _beside(node: Beside, place: str) -> None:
    if node.how == "submit":
        gather(*(act.submit(each) for each in _acts_of(node, place)))
    elif node.how == "schedule":
        for each in _acts_of(node, place):
            schedule(act, each)
    elif node.how == "race":
        try:
            race(*(call.start(each) for each in _branches(node, place)))
        except ExceptionGroup as failed:
            raise Failed(place) from failed
    elif node.how in ("thread", "loose"):
        _in_threads(node, place)
    else:
        gather(*(call.start(each) for each in _branches(node, place)))


def _in_threads(node: Beside, place: str) -> None:
    """Play the branches in threads of the body's own, and wait for these unless they are loose."""
    failed: list[BaseException] = []

    def play(each: str) -> None:
        try:
            _play(_programs[each], each)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(play, each))
        for each in _branches(node, place)
    ]
    _world.threads.extend(threads)
    for thread in threads:
        thread.start()
    if node.how == "thread":
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]


def _branches(node: Beside, place: str) -> list[str]:
    places = []
    for number, branch in enumerate(node.branches):
        each = f"{place}.b{number}"
        _programs[each] = branch
        places.append(each)
    return places


def _acts_of(node: Beside, place: str) -> list[str]:
    places = []
    for number in range(len(node.branches)):
        each = f"{place}.s{number}"
        _programs[each] = Act(0, node.turns)
        places.append(each)
    return places


# The async half ---------------------------------------------------------------------------------------------


async def _take_back_async(token: Any) -> None:
    _on_body()
    await asyncio.sleep(0)
    _world.undid_it(token)


@step(name="stopped.async_kept", undo=_take_back_async)
async def async_kept(token: Any) -> Any:
    """What an undo does stays."""
    return _world.did_it(kept=True)


@step(name="stopped.async_take_back_more", retry=_QUICK)
async def _async_take_back_more(how: str, token: Any) -> None:
    """An undo that fails at first, or calls others."""
    if how == "flaky" and _world.fails(("undo", token), 1):
        raise Failed
    if how == "calls":
        await async_kept(token)
    await _take_back_async(token)


async def _take_back_flaky_async(token: Any) -> None:
    await _async_take_back_more("flaky", token)


async def _take_back_calling_async(token: Any) -> None:
    await _async_take_back_more("calls", token)


@step(name="stopped.async_act", undo=_take_back_async, retry=_QUICK)
async def async_act(place: str) -> Any:
    """Do something that can be undone."""
    node = _programs[place]
    _on_body()
    await _turn(node.turns)
    if _world.fails((current_run().id, place), node.fails):
        raise Failed
    return _world.did_it(kept=node.undo == "none")


_UNDOS: dict[tuple[str, str], Any] = {
    ("act", "none"): None,
    ("act", "flaky"): _take_back_flaky,
    ("act", "calls"): _take_back_calling,
    ("async_act", "none"): None,
    ("async_act", "flaky"): _take_back_flaky_async,
    ("async_act", "calls"): _take_back_calling_async,
}


@step(name="stopped.async_boom", retry=Retry(attempts=1))
async def async_boom(place: str) -> None:
    """Fail."""
    raise Failed(place)


@step(name="stopped.async_nest", undo=_take_back_async, retry=_QUICK)
async def async_nest(place: str) -> Any:
    """Call others."""
    await _aplay(_programs[place].nodes, place)
    return _world.did_it()


@workflow(name="stopped.async_call")
async def async_call(place: str) -> None:
    """A workflow in the workflow."""
    await _aplay(_programs[place], place)


async def _aplay(nodes: Program, place: str) -> None:
    for index, node in enumerate(nodes):
        here = f"{place}.{index}"
        _programs[here] = node.nodes if isinstance(node, Call) else node
        if isinstance(node, Act):
            await _as(async_act, node)(here)
        elif isinstance(node, Nest):
            await async_nest(here)
        elif isinstance(node, Guard):
            try:
                await _aplay(node.nodes, here)
            finally:
                await _aplay(node.after, f"{here}.f")
        elif isinstance(node, Swallow):
            with contextlib.suppress(BaseException):
                await _aplay(node.nodes, here)
        elif isinstance(node, Call):
            await async_call(here)
        elif isinstance(node, Boom):
            with contextlib.suppress(*([Failed] if node.handled else [])):
                await async_boom(here)
        else:
            await _abeside(node, here)


async def _abeside(node: Beside, place: str) -> None:
    how = node.how
    if how == "submit":
        await aio.gather(*(async_act.submit(each) for each in _acts_of(node, place)))
    elif how == "schedule":
        for each in _acts_of(node, place):
            await aio.schedule(async_act, each)
    elif how == "thread":
        await asyncio.gather(*(asyncio.to_thread(act, each) for each in _acts_of(node, place)))
    elif how == "start":
        await aio.gather(*(async_call.start(each) for each in _branches(node, place)))
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
        await (asyncio.gather if how == "gather" else aio.gather)(*_coroutines(node, place))
    else:
        tasks = [asyncio.create_task(branch) for branch in _coroutines(node, place)]
        await _turn(node.turns * 3)
        if how == "left":
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _coroutines(node: Beside, place: str) -> list[Any]:
    return [_aplay(_programs[each], each) for each in _branches(node, place)]


async def _group(node: Beside, place: str) -> None:
    async with asyncio.TaskGroup() as group:
        for branch in _coroutines(node, place):
            group.create_task(branch)


async def _race(node: Beside, place: str) -> None:
    await aio.race(*_coroutines(node, place))


async def _expire(limit: asyncio.Timeout, turns: int) -> None:
    await _turn(turns)
    with contextlib.suppress(RuntimeError):  # the block has been left
        limit.reschedule(0)
