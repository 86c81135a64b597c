"""The search for the cause of a difference: change one thing at a time, and continue the workflow once more.

If no change makes the difference, the cause is what the workflow was seen to look at, such as a clock.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flowdsl.testing.replay import causes as cause
from flowdsl.testing.replay.elsewhere import Elsewhere, Unreachable
from flowdsl.testing.replay.observed import Life, Plan, Sight
from flowdsl.testing.replay.report import difference
from flowdsl.testing.replay.surroundings import IMPORTED

__all__ = ["causes_elsewhere", "causes_here", "is_concurrent"]

_LOOKS = 4  # executions that tell whether something differs by itself
_BY_ITSELF = frozenset({cause.CHANCE, cause.IDS, cause.CLOCK, cause.PROCESS})
_AS_IMPORTED = "when a module is imported: a constant, a default, a field of a class"

Causes = dict[str, Sequence[str]]
"""Causes, each with the places where the workflow looked."""

Resume = Callable[[Sequence[Any], tuple[str, ...]], Life | None]
"""Continues the workflow after these commits, with these changes. ``None`` if it had ended."""


def is_concurrent(first: Life) -> bool:
    """Whether steps of the execution were concurrent."""
    return any(step.concurrent for step in first.puts.values())


def causes_here(
    plan: Plan, elsewhere: Elsewhere | None, resume: Resume, first: Life, point: Sequence[Any]
) -> Causes:
    """Causes of a difference in the same process. Nothing has changed but that it executes again.

    *resume* continues the workflow here; *elsewhere* does so in other processes, if that is possible."""
    if is_concurrent(first):
        same, other = (resume(point[:1], (one,)) for one in (cause.SAME_ORDER, cause.ORDER))
        if same and other and not difference(first, same) and difference(first, other):
            return {cause.ORDER: ()}
    noticed: list[tuple[str, str]] = []
    with cause.noticing(noticed):
        resume(point, ())
    drawn = any(one in (cause.CHANCE, cause.IDS, cause.ORDER) for one, _ in noticed)
    if elsewhere is not None and not drawn:
        try:
            elsewhere.has_happened(first)
            looks = _LOOKS if any(one in _BY_ITSELF for one, _ in noticed) else 1
            if not any(elsewhere.sight(0, len(point), ()).what for _ in range(looks)):
                return {cause.MEMORY: []}
        except Unreachable:
            pass
    noticed += [(cause.ARGUMENT, change) for change in plan.changed]
    noticed += [(cause.UNRECORDED, call) for call in plan.unrecorded]
    return _by_cause(noticed)


def causes_elsewhere(ask: Elsewhere, number: int, sight: Sight, *, uses_sets: bool) -> Causes:
    """Causes of a difference in process *number* of *ask*. It went well here, so it is the other process, or
    one of the changes. *uses_sets*: the order of a set may matter."""
    if number == 1 and not ask.sight(number, sight.point, sight.changes).what:
        found = [c for c in IMPORTED if ask.sight(number, sight.point, (c,), imported=(c,)).what]
        return {one: [_AS_IMPORTED] for one in found} or {cause.ANYTHING: ()}
    plain = ask.sight(number, sight.point, (), notice=True)
    if not plain.what:
        found = [one for one in sight.changes if ask.sight(number, sight.point, (one,)).what]
        own = [one for one in plain.noticed if one[0] in _BY_ITSELF]
        doubtful = len(found) > 1 or not set(found) <= {one for one, _ in own}
        if not found or (doubtful and own and _differs_by_itself(ask, number, sight)):
            return _by_cause(own)  # each of the changes may seem to matter by chance
        noticed = ask.sight(number, sight.point, sight.changes, notice=True).noticed
        told = {one for one, _ in noticed}
        if len(found) > 1 and told & set(found):  # one change may cause another one
            found = [one for one in found if one in told]
        places: dict[str, Sequence[str]] = {one: [place for c, place in noticed if c == one] for one in found}
        return places or {cause.ANYTHING: ()}
    noticed = plain.noticed
    own = [one for one in noticed if one[0] not in (cause.ENVIRONMENT, cause.DIRECTORY)]
    if own:
        return _by_cause(own)
    return {_hidden_cause(ask, number, plain, uses_sets): ()}


def _differs_by_itself(ask: Elsewhere, number: int, sight: Sight) -> bool:
    """Whether it differs although nothing has changed, at the first look or at another."""
    return any(ask.sight(number, sight.point, ()).what for _ in range(_LOOKS))


def _hidden_cause(ask: Elsewhere, number: int, plain: Sight, uses_sets: bool) -> str:
    """The cause if nothing has changed but the process, and it looked at nothing that could tell."""
    if " at 0x" in plain.what:
        return cause.PROCESS
    others = (ask.sight(other, plain.point, ()).what for other in range(4) if other != number)
    if all(what == plain.what for what in others):
        return cause.MEMORY
    ask.restart(number)
    same_seed = ask.sight(number, plain.point, ()).what == plain.what
    return cause.SETS if same_seed and uses_sets else cause.MEMORY


def _by_cause(noticed: Iterable[tuple[str, str]]) -> Causes:
    found: dict[str, Sequence[str]] = {}
    for one, place in noticed:
        found[one] = [*found.get(one, ()), place]
    return found or {cause.ANYTHING: ()}
