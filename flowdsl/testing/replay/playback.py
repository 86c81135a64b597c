"""Stands between the engine and the bodies of steps: executes and remembers, or plays back."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from flowdsl.engine.callsite import source_line
from flowdsl.engine.scope import StepView
from flowdsl.testing.executions import Execution
from flowdsl.testing.replay.causes import ORDER
from flowdsl.testing.replay.observed import Address, Called, Life, Outcome, Plan
from flowdsl.testing.replay.values import copy_of, same
from flowdsl.testing.seam import fake_body

__all__ = ["line_of_code", "player"]

_TURNS = 64  # of the event loop, by which concurrent steps are told apart
_LONGEST = 100


def line_of_code() -> str:
    """Where the user's code stands; ``""`` in a thread or task of its own."""
    line = source_line()
    return "" if "/concurrent/futures/" in line or "/asyncio/" in line or line == "unknown" else line


def player(plan: Plan, life: Life, first: bool) -> Any:
    """Stands between the engine and the bodies: executes and remembers, or plays back."""

    def substitute(
        view: StepView, is_async: bool, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        address = (view.run_id, view.key, view.attempt)
        shown = str(Execution(view.run_id, view.path, view.key, 1, args, kwargs))
        life.calls.append(
            Called(True, view.run_id, view.key, shown, life.lines.get(address) or line_of_code())
        )
        known = plan.outcomes.get(address)
        if view.mode == "try":  # of which there is no record
            plan.unrecorded[f"{shown} is of mode 'try'"] = None
            known = None
        if not first and known is not None and address[:2] not in plan.inner:
            if is_async and ORDER in life.changes:
                return _late(known, plan.ended.index(address))
            return fake_body(lambda *_, **__: _replayed(known), is_async)
        life.really_ran += 1
        if view.path in plan.fakes:
            fn = fake_body(plan.fakes[view.path], is_async)
        if known is not None:
            return fn
        return _Remembering(plan, address, view.path.rpartition(".")[2], fn).body(is_async)

    return substitute


def _replayed(known: Outcome) -> Any:
    error, value = known
    if error is not None:
        raise error.with_traceback(None)
    return copy_of(value)


def _late(known: Outcome, ended: int) -> Callable[..., Any]:
    """Give the outcome all the later, the earlier the body had *ended* among others."""

    async def body(*_: Any, **__: Any) -> Any:
        for _turn in range(4 * (_TURNS - ended % _TURNS)):
            await asyncio.sleep(0)
        return _replayed(known)

    return body


class _Remembering:
    """Executes a body and keeps its outcome, and what it did to its arguments."""

    def __init__(self, plan: Plan, address: Address, name: str, fn: Callable[..., Any]) -> None:
        self._plan = plan
        self._address = address
        self._name = name
        self._fn = fn

    def body(self, is_async: bool) -> Callable[..., Any]:
        """What executes in place of the body."""
        return self._aexecute if is_async else self._execute

    def _execute(self, *args: Any, **kwargs: Any) -> Any:
        given = self._named(args, kwargs)
        before = copy_of(given)
        try:
            value = self._fn(*args, **kwargs)
        except Exception as error:
            self._ended(before, given, error, None)
            raise
        self._ended(before, given, None, value)
        return value

    async def _aexecute(self, *args: Any, **kwargs: Any) -> Any:
        given = self._named(args, kwargs)
        before = copy_of(given)
        try:
            value = await self._fn(*args, **kwargs)
        except Exception as error:
            self._ended(before, given, error, None)
            raise
        self._ended(before, given, None, value)
        return value

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Those arguments that can be changed, by name."""
        try:
            named = dict(inspect.signature(self._fn).bind(*args, **kwargs).arguments)
        except (TypeError, ValueError):
            named = {f"argument {n}": value for n, value in enumerate(args, 1)} | kwargs
        return {name: value for name, value in named.items() if not isinstance(value, _PLAIN)}

    def _ended(self, before: Any, given: Any, error: BaseException | None, value: Any) -> None:
        plan = self._plan
        plan.outcomes[self._address] = error, copy_of(value)
        plan.ended.append(self._address)
        for name, old in before.items():
            if not same(old, given[name]):
                plan.changed.append(
                    f"{self._name}() turned {name} from {_short(old)} to {_short(given[name])}"
                )


_PLAIN = (int, float, str, bytes, bool, type(None))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
