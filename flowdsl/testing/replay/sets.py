"""Whether the order of a set may matter to a workflow: only then is it worth many processes to look."""

import dis
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

from flowdsl.testing.replay.observed import Plan

__all__ = ["uses_sets"]

_MAKING = {dis.opmap[name] for name in ("BUILD_SET", "SET_UPDATE", "SET_ADD") if name in dis.opmap}
_NAMES = {"set", "frozenset", "keys", "items", "WeakSet"}


def uses_sets(fn: Any, plan: Plan) -> bool:
    """Whether the code around *fn* mentions sets, or steps and arguments bring some."""
    values = [*plan.args, *plan.kwargs.values(), *(value for _, value in plan.outcomes.values())]
    if any(_holds_set(value) for value in values):
        return True
    module = sys.modules.get(fn.__module__)
    own = [one for one in vars(module).values() if _module_of(one) == fn.__module__] if module else []
    return any(_mentions(code) for one in [fn, *own] for code in _codes(one))


def _module_of(one: Any) -> Any:
    return getattr(one, "__module__", None)


def _holds_set(value: Any) -> bool:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return any(_holds_set(one) for one in value[:1000])
    return isinstance(value, set | frozenset) and len(value) > 1


def _codes(one: Any) -> Iterator[CodeType]:
    """The code of a function, or of the methods of a class, and what is defined in there."""
    if isinstance(one, type):
        for member in vars(one).values():
            if not isinstance(member, type):
                yield from _codes(member)
        return
    one = getattr(one, "__wrapped__", getattr(one, "__func__", one))
    code = getattr(getattr(one, "__wrapped__", one), "__code__", None)
    pending = [code] if isinstance(code, CodeType) else []
    while pending:
        code = pending.pop()
        yield code
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]


def _mentions(code: CodeType) -> bool:
    if _MAKING.intersection(code.co_code[::2]) or _NAMES.intersection(code.co_names):
        return True
    return any(isinstance(const, frozenset) for const in code.co_consts)
