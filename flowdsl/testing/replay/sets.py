"""Sets in another order, as another process has them: texts hash differently in each.

Within one process the order of a set is fixed, so the code of the function is compiled anew with a call
around whatever it iterates over; that call turns sets around. Only the function itself is changed, not what
it calls."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

__all__ = ["other_set_order"]

_NAME = "__flowdsl_in_another_order__"
_FUNCTIONS = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "deque"})
_METHODS = frozenset({"map", "join", "extend", "fromkeys"})
_FUTURE = 0x1FF0000  # compiler flags of __future__ imports


def _turned(value: Any) -> Any:
    """A set turned around, unless its order is the same everywhere, as that of numbers is; anything else as
    it is.
    """
    if isinstance(value, set | frozenset) and not all(isinstance(one, int | float) for one in value):
        return list(value)[::-1]
    return value


class _Turn(ast.NodeTransformer):
    def _wrap(self, node: ast.expr) -> ast.expr:
        call = ast.Call(ast.Name(_NAME, ast.Load()), [node], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        node.iter = self._wrap(node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> Any:
        self.generic_visit(node)
        if not node.is_async:
            node.iter = self._wrap(node.iter)
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        called = node.func
        named = isinstance(called, ast.Name) and called.id in _FUNCTIONS
        method = isinstance(called, ast.Attribute) and called.attr in _METHODS
        node.args = [
            ast.copy_location(ast.Starred(self._wrap(arg.value), ast.Load()), arg)
            if isinstance(arg, ast.Starred)
            else self._wrap(arg)
            if named or method
            else arg
            for arg in node.args
        ]
        return node


def _compiled(fn: Any) -> CodeType | None:
    """The code of *fn* with the calls in it; ``None`` where its source is not at hand."""
    code = fn.__code__
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError):
        return None
    found = tree.body[0] if tree.body else None
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) or found.name != fn.__name__:
        return None
    found.decorator_list = []
    _Turn().visit(found)
    ast.increment_lineno(tree, code.co_firstlineno - 1)
    if code.co_freevars:  # they must be variables of a function around it
        outer = ast.parse(f"def outer():\n {' = '.join(code.co_freevars)} = None").body[0]
        assert isinstance(outer, ast.FunctionDef)
        outer.body.append(found)
        tree.body = [outer]
    made = compile(tree, code.co_filename, "exec", flags=code.co_flags & _FUTURE, dont_inherit=True)
    fitting = [one for one in _codes(made) if one.co_name == fn.__name__]
    if not fitting or fitting[0].co_freevars != code.co_freevars:
        return None
    return fitting[0].replace(co_qualname=code.co_qualname)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _codes(const)


@contextmanager
def other_set_order(fn: Any, _: Any) -> Iterator[None]:
    """The body of *fn* finds the items of sets in another order."""
    changed = _compiled(fn)
    if changed is None:
        yield
        return
    code, fn.__code__ = fn.__code__, changed
    fn.__globals__[_NAME] = _turned
    try:
        yield
    finally:
        fn.__code__ = code
        del fn.__globals__[_NAME]
