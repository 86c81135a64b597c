"""Whether anybody can still use an object: whether more than tracebacks hold it.

A function that ended with an exception leaves its frame, with all its variables, to the traceback, and that
lives on: in ``sys.last_exc`` of a notebook, in the report of a failed test. Nobody calls what was made there.

The theory
    What the cyclic garbage collector does for all objects is done here for those that lead to one. The frame
    of a function that has ended is passed over; a reference that none of the objects found accounts for comes
    from outside: from code that executes, or from C. A module holds, too, whatever leads to it; but a mapping
    does not hold its keys, for tables of types (what encodes them, what dispatches on them) forget none.
"""

import gc
import sys
from collections import Counter
from types import FrameType, ModuleType

__all__ = ["is_held"]

_LIMIT = 2_000  # objects: what has so many holders is held


def is_held(wanted: object) -> bool:
    """Whether something else than frames of ended functions leads to *wanted*. Takes some passes over all
    objects of the process."""
    found: list[object] = [wanted]
    passed_over: list[object] = []
    known = {id(wanted), id(found), id(passed_over)}
    begin = 0
    while begin < len(found):
        level = found[begin:]
        begin = len(found)
        held = {id(one) for one in level}
        known.add(id(level))
        for holder in gc.get_referrers(*level):
            if id(holder) in known:
                continue
            known.add(id(holder))
            if isinstance(holder, ModuleType):
                return True
            # Of functions that execute, the collector does not show the frames.
            by_key = isinstance(holder, dict) and held.isdisjoint(map(id, holder.values()))
            (passed_over if by_key or isinstance(holder, FrameType) else found).append(holder)
        del level
        if len(found) > _LIMIT:
            return True
    inside = Counter(id(one) for holder in (*found, *passed_over) for one in gc.get_referents(holder))
    del found[0]  # the caller has it
    holder = None
    ours = 3  # the list, the variable of the loop, the argument
    return any(sys.getrefcount(one) - ours > inside[id(one)] for one in found)
