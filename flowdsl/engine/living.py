"""Whether anybody can still use an object: whether anything but tracebacks holds it.

A function that ended with an exception leaves its frame, with all its variables, to the traceback. The
traceback may live on, in ``sys.last_exc`` of a notebook or in the report of a failed test. Nobody calls what
was made in that frame.

The theory
    The cyclic garbage collector looks for unreachable objects among all objects. This looks only among those
    that lead to one object. It passes over frames of functions that have ended. If none of the found objects
    accounts for a reference, it comes from outside: from code that executes, or from C. A module also holds
    whatever leads to the object. A mapping does not hold its keys, because tables of types (encoders,
    dispatch) never forget one.
"""

import gc
import sys
from collections import Counter
from types import FrameType, ModuleType

__all__ = ["is_held"]

_LIMIT = 2_000  # objects: what has more holders counts as held


def is_held(wanted: object) -> bool:
    """Whether anything but frames of ended functions leads to *wanted*. It passes several times over all
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
            # The collector does not show the frames of functions that execute.
            by_key = isinstance(holder, dict) and held.isdisjoint(map(id, holder.values()))
            (passed_over if by_key or isinstance(holder, FrameType) else found).append(holder)
        del level
        if len(found) > _LIMIT:
            return True
    inside = Counter(id(one) for holder in (*found, *passed_over) for one in gc.get_referents(holder))
    del found[0]  # the caller holds it
    holder = None
    ours = 3  # the list, the variable of the loop, the argument
    return any(sys.getrefcount(one) - ours > inside[id(one)] for one in found)
