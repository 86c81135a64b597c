"""What only one kind of record has to say: when a sleep ends, which child was run, how to undo a step.

There is one class per fact. A record keeps it as small JSON text in ``Step.extra``. Only
:meth:`Facts.to_json` and :func:`facts_of` know the text. The name of a field is its name in the JSON. The
first field of a class tells its text from all others. So neither may change, because databases hold them. A
field that has its default is left out, so fields with a default can be added.
"""

import json
from collections.abc import Iterable
from typing import Any

from attrs import field, fields, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Step
from flowdsl.errors import CorruptPayload

__all__ = [
    "ATTEMPTS",
    "Beating",
    "Changed",
    "ChildRun",
    "Facts",
    "Forked",
    "FromMemo",
    "InDoubt",
    "Logged",
    "Published",
    "Retrying",
    "Scheduled",
    "Sent",
    "Sleeping",
    "Stored",
    "Undoable",
    "Waiting",
    "Won",
    "facts_of",
    "generation_of",
]


ATTEMPTS = 20
"""Most beginnings of attempts that a record keeps. A step may be tried without end."""


# Converters. Of ``int`` and ``float`` themselves attrs would read the signature, at import: that takes long.


def _count(given: int) -> int:
    return int(given)


def _number(given: float) -> float:
    return float(given)


def _moments(found: Iterable[float]) -> tuple[float, ...]:
    return tuple(found)


@frozen(slots=True, eq=False, repr=False)
class Facts(ByFields):
    """What every record may say. *generation*: how often its step was undone or forgotten so far. *begun*:
    when the attempts began, for a step that needed several; the last :data:`ATTEMPTS` of them."""

    generation: int = field(default=0, kw_only=True, converter=_count)
    begun: tuple[float, ...] = field(default=(), kw_only=True, converter=_moments)

    def to_json(self) -> str:
        """The text that a record keeps; empty where there is nothing to say."""
        said = {
            one.name: value
            for one in fields(type(self))
            if (value := getattr(self, one.name)) != one.default or one.name == _MARKS.get(type(self))
        }
        return json.dumps(said) if said else ""


@frozen(slots=True, eq=False, repr=False)
class Sleeping(Facts):
    """A delay: it ends at *until*, in seconds since the epoch."""

    until: float = field(converter=_number)


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@frozen(slots=True, eq=False, repr=False)
class Waiting(Facts):
    """A wait for the message *signal*, or one of *names*, until *deadline* (``None``: for ever).

    After the message has come: *signal*, its name; *sender*; *id*; *asked*, whether its sender waits for a
    reply.
    """

    signal: str
    deadline: float | None = None
    sender: str | None = None
    names: tuple[str, ...] = field(default=(), converter=_names)
    id: str = ""
    asked: bool = False


@frozen(slots=True, eq=False, repr=False)
class Retrying(Facts):
    """A body that failed with *error* (readable), and is tried again at *next*."""

    next: float = field(converter=_number)
    error: str = ""


@frozen(slots=True, eq=False, repr=False)
class InDoubt(Facts):
    """A body that must not execute twice has begun. *undo* is the name of its undo, in case a person says
    that it took effect."""

    intent: bool = True
    undo: str | None = None


@frozen(slots=True, eq=False, repr=False)
class Undoable(Facts):
    """A completed step that the step named *undo* takes back; nothing does if that is empty. *shared*: the
    key by which other runs find its result, if they do."""

    undo: str
    shared: str = ""


@frozen(slots=True, eq=False, repr=False)
class FromMemo(Facts):
    """A result that was copied from the results that all runs share."""

    memo: bool = True


@frozen(slots=True, eq=False, repr=False)
class Scheduled(Facts):
    """A branch that begins *at* this moment, and calls the step of this path."""

    at: float = field(converter=_number)
    step: str


@frozen(slots=True, eq=False, repr=False)
class Stored(Facts):
    """An operation on the run's store: *op* is ``set``, ``push``, ``increment`` or ``delete``."""

    op: str
    key: str


@frozen(slots=True, eq=False, repr=False)
class ChildRun(Facts):
    """The outcome of the run with the id *child*. If it *stays*, it is not undone with its parent: an undo
    has called it."""

    child: str
    stays: bool = False


@frozen(slots=True, eq=False, repr=False)
class Sent(Facts):
    """A message to run *to*. *id* is that of the message."""

    to: str
    name: str
    id: str = ""


@frozen(slots=True, eq=False, repr=False)
class Published(Facts):
    """The *n*-th item on *channel*."""

    channel: str
    n: int = 0


@frozen(slots=True, eq=False, repr=False)
class Won(Facts):
    """The place of the *winner*, from 0, *among* the racers: keys of steps, ids of runs, scopes of
    coroutines."""

    winner: int
    among: tuple[str, ...] = field(default=(), converter=_names)


@frozen(slots=True, eq=False, repr=False)
class Beating(Facts):
    """A body said at *beat* that it lives, in seconds since the epoch. Its details are the payload."""

    beat: float = field(converter=_number)


@frozen(slots=True, eq=False, repr=False)
class Logged(Facts):
    """The fields of a line of ``log()``."""

    fields: dict[str, Any]


@frozen(slots=True, eq=False, repr=False)
class Forked(Facts):
    """A run that *who* made from run *of*, with the records before step *before*. *draws*: for each run in
    the line of forks, oldest first, the random draws that its scopes had made."""

    draws: list[tuple[str, dict[str, int]]]
    who: str = ""
    of: str = ""
    before: str = ""


@frozen(slots=True, eq=False, repr=False)
class Changed(Facts):
    """A change by hand, by *who* (``user@host:pid``). *step*: the key of the changed step, if it was one."""

    who: str
    step: str = ""


# If the text of one class could also be that of another, the more special class comes first.
_CLASSES: tuple[type[Facts], ...] = (
    *(Sleeping, Waiting, Retrying, InDoubt, Undoable, FromMemo),
    *(Scheduled, Stored, ChildRun, Sent, Published, Won, Beating, Logged, Forked, Changed),
)
_COMMON = ("generation", "begun")
_MARKS: dict[type[Facts], str] = {
    cls: next(one.name for one in fields(cls) if one.name not in _COMMON) for cls in _CLASSES
}


def facts_of(step: Step) -> Facts:
    """What a record says. If this version does not know the text: only what every record may say.

    Raises :class:`~flowdsl.errors.CorruptPayload` for other text, and names run and step.

    >>> facts_of(Step("r", "k", "flowdsl.sleep", kind="sleep", extra='{"until": 17.5}'))
    Sleeping(generation=0, begun=(), until=17.5)
    """
    if not step.extra:
        return _NONE
    try:
        said = json.loads(step.extra)
        for cls, mark in _MARKS.items():
            if mark in said:
                return cls(**{one.name: said[one.name] for one in fields(cls) if one.name in said})
        return Facts(**{name: value for name in _COMMON if (value := said.get(name)) is not None})
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise CorruptPayload(
            f"the record of step {step.path} ({step.key[:12]}) of run {step.run_id} is damaged: "
            f"{step.extra[:80]!r} is not what a record says of its kind",
            run=step.run_id,
            step=step.key,
        ) from error


def generation_of(step: Step | None) -> int:
    """How often a step was undone or forgotten. 0 for a step without a record."""
    return facts_of(step).generation if step is not None and step.extra else 0


_NONE = Facts()
