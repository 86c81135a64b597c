"""Where two executions of one workflow differ, and how to tell it."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from flowdsl.core.kinds import STEP
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.errors import NondeterminismError
from flowdsl.testing.replay.causes import ADVICE
from flowdsl.testing.replay.observed import Life, Sight, body_of, records_of
from flowdsl.testing.replay.races import Place
from flowdsl.testing.replay.values import same

__all__ = ["difference", "lossy", "story"]

_MOST = 12
_REPLAY = (
    "Between a crash and the resume the body of a workflow is executed again, and recorded steps answer from "
    "their records."
)


def _as_error(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _outcome(life: Life) -> str:
    return f"raised {_as_error(life.error)}" if life.error is not None else f"returned {life.value!r}"


Causes = Mapping[str, Sequence[str]]
"""What it depends on, each with the places in the code."""


def difference(first: Life, again: Life) -> str:
    """What went differently the second time, or ``""``."""
    if isinstance(again.error, NondeterminismError) and not isinstance(first.error, NondeterminismError):
        return str(again.error)
    found = _calls(first, again)
    same_error = _as_error(first.error) == _as_error(again.error)
    if not again.strange and not (same_error and same(first.value, again.value)):
        found += [
            "the outcome:",
            f"    - the first execution {_outcome(first)}",
            f"    + the continued one {_outcome(again)}",
        ]
    inside = _calls(first, again, inside=True) if found else []
    return "\n".join([*inside, *found])


def _calls(first: Life, again: Life, *, inside: bool = False) -> list[str]:
    """How the calls differ that workflows make; or those *inside* steps, which may be others each time."""

    def counted(life: Life) -> dict[Place, Step]:
        steps = life.journal().items()
        return {
            place: step for place, step in steps
            if bool(body_of(step.scope)) is inside and place not in chance
        }  # fmt: skip

    both = (*first.journal().items(), *again.journal().items())
    chance = {place for place, step in both if again.is_chance(place, step)}
    recorded, now = counted(first), counted(again)
    extra = [_line(s) for place, s in now.items() if place not in recorded]
    lost = [_line(s) for place, s in recorded.items() if place not in now]
    found: list[str] = []
    for title, lines in (
        ("calls that the first execution did not make:", [*extra, *again.strange] if not inside else extra),
        ("calls that only the first execution made:", lost[:1] if again.strange else lost),
        ("records that nothing asked for:", [] if again.strange or inside else again.unused),
        ("steps that were executed although they were recorded:", [] if inside else _repeated(again)),
    ):
        if lines:
            found += [title, *(f"    {line}" for line in lines[:_MOST])]
    for place, step in recorded.items():
        other = now.get(place)
        if other is not None and other.status is not step.status and not again.strange:
            found.append(f"{_name(step)}({step.args}) was {step.status}, then {other.status}")
    return found


def _line(step: Any) -> str:
    return f"{_name(step)}({step.args}) → {step.preview}"


def _name(step: Any) -> str:
    return str(step.path.rpartition(".")[2])


def _repeated(again: Life) -> list[str]:
    done = {
        place for place, step in records_of(again.before)
        if step.kind == STEP and step.status is StepStatus.COMPLETED
    }  # fmt: skip
    return [call.shown for call in again.calls if call.ran and call.place in done]


def story(workflow: str, first: Life, seen: Sight, causes: Causes) -> str:
    """The whole of it: what ran before the crash, what was replayed, where it went differently, and what to
    do.
    """
    where = " in another process" if seen.elsewhere else ""
    recorded = {place for place, _ in records_of(first.commits[: seen.point])}
    ran = [call for call in first.calls if call.place in recorded]
    crash = f"it died after commit {seen.point} (of {len(first.commits)} without a crash)"
    lines = [f"{workflow} does not replay: {crash}, then continued{where}.", "  ran before the crash:"]
    lines += [f"    {call.shown}" for call in ran[:_MOST]]
    begun = [call for call in first.calls if call not in ran][:1]
    lines += [f"    {call.shown}, which had begun and was not recorded" for call in begun]
    lines += [] if ran or begun else ["    nothing"]
    for title, wanted in (("replayed from records afterwards:", False), ("called afterwards:", True)):
        calls = [f"    {call.shown}{_at(call.line)}" for call in seen.calls if call.ran is wanted]
        lines += [f"  {title}", *(calls[:_MOST] or ["    nothing"])]
    lines.append("  where it went differently:")
    lines += [f"    {line}" for line in seen.what.splitlines()]
    if causes:
        lines.append(f"  it depends on: {', '.join(causes)}")
        lines += [f"    {place}" for places in causes.values() for place in places[:_MOST]]
        advice = " ".join([_REPLAY, *(ADVICE[cause] for cause in causes)])
        lines += ["  what to do:", *(f"    {line}" for line in textwrap.wrap(advice, 100))]
    return "\n".join(lines)


def _at(line: str) -> str:
    return f"\n        at {line}" if line else ""


def lossy(first: Life) -> str:
    """Results that come back from their record as something else, or ``""``."""
    for name, returned, loaded in first.loaded:
        if isinstance(returned, BaseException):
            if not _same_error(returned, loaded):
                return f"{name} raised {_full(returned)}, and its record gives {_full(loaded)}"
        elif not same(returned, loaded):
            return f"{name} returned {returned!r}, and its record gives {loaded!r}"
    return ""


def _same_error(raised: BaseException, loaded: Any) -> bool:
    """Whether *loaded* is of the same type (or of one made from it), says the same, and has the same
    attributes.
    """
    if not isinstance(loaded, type(raised)) or str(loaded) != str(raised):
        return False
    return all(
        name == "__notes__" or same(value, getattr(loaded, name, None))
        for name, value in vars(raised).items()
    )


def _full(error: Any) -> str:
    attributes = {name: value for name, value in vars(error).items() if not name.startswith("__")}
    return f"{error!r}" + (f" with {attributes!r}" if attributes else "")
