"""What ``check_replay`` executes, and what it sees of each execution."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from flowdsl.core.kinds import OBSERVABLE
from flowdsl.core.records import Step
from flowdsl.storage.base import Operation, PutStep, TakeSignal
from flowdsl.testing.replay.races import Losers

__all__ = ["Address", "Called", "Commit", "Life", "Outcome", "Place", "Plan", "Sight", "body_of"]

Place = tuple[str, str]
"""Run and key of a record."""
Address = tuple[str, str, int]
"""Run, key and attempt of one execution of a body."""
Outcome = tuple[BaseException | None, Any]


@frozen(slots=True)
class Commit:
    """Operations that became durable together, and the time on the clock."""

    operations: tuple[Operation, ...]
    at: float


@frozen(slots=True)
class Called:
    """One call of a step: whether its body *ran* or its record answered, and the line of code."""

    ran: bool
    run: str
    key: str
    shown: str
    line: str


@define(slots=True)
class Plan:
    """What is executed, and how, and what the first execution found out.

    It found out which bodies had *begun* (and whether they are async), their *outcomes*, the order in which
    they *ended*, which of them made durable calls of their own (*inner*), arguments that steps *changed*,
    calls that leave no record (*unrecorded*), and who lost a race (*losers*). With *elsewhere*, it executes
    in another process, where no body of a step executes.
    """

    workflow: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_async: bool
    fakes: Mapping[str, Callable[..., Any]]
    options: Mapping[str, Any]
    signals: Sequence[tuple[str, Any]]
    elsewhere: bool = False
    begun: dict[Address, bool] = field(factory=dict)
    outcomes: dict[Address, Outcome] = field(factory=dict)
    ended: dict[Address, int] = field(factory=dict)
    inner: set[Place] = field(factory=set)
    changed: list[str] = field(factory=list)
    unrecorded: dict[str, None] = field(factory=dict)
    losers: Losers = field(factory=Losers)


@define(slots=True)
class Life:
    """What was seen of one execution, which continues the commits *before*.

    ``puts`` are all its records, and those of what it continued. ``strange`` are calls that the first
    execution did not make. ``losers`` is what is known of races. ``effects``, ``reads`` and ``lost`` are what
    a body did outside every step.
    """

    before: Sequence[Commit]
    changes: tuple[str, ...]
    error: BaseException | None = None
    value: Any = None
    commits: list[Commit] = field(factory=list)
    calls: list[Called] = field(factory=list)
    lines: dict[Address, str] = field(factory=dict)
    strange: list[str] = field(factory=list)
    unused: list[str] = field(factory=list)
    puts: dict[Place, Step] = field(factory=dict)
    effects: list[str] = field(factory=list)
    reads: list[str] = field(factory=list)
    lost: list[str] = field(factory=list)
    really_ran: int = 0
    loaded: list[tuple[str, Any, Any]] = field(factory=list)
    losers: Losers = field(factory=Losers)

    def note(self, operations: Sequence[Operation]) -> None:
        """Keep the records among *operations*."""
        for operation in operations:
            if isinstance(operation, PutStep | TakeSignal):
                step = operation.step
                self.puts.setdefault((step.run_id, step.key), step)
                self.puts[step.run_id, step.key] = step

    def journal(self) -> dict[Place, Step]:
        """The records that must be the same in each execution."""
        return {place: step for place, step in self.puts.items() if step.kind in OBSERVABLE}

    def lost_a_race(self, step: Step) -> bool:
        """Whether a record belongs to a loser of a race."""
        return self.losers.holds(step.run_id, step.key, step.scope)


@frozen(slots=True)
class Sight:
    """What a continued execution shows: *what* went differently (``""``: nothing), after how many commits
    (*point*) it was continued, and under which *changes*. Also the *calls* that it made, and what its
    workflows looked at (*noticed*: cause and place).
    """

    what: str
    point: int
    changes: tuple[str, ...]
    elsewhere: bool
    calls: tuple[Called, ...]
    noticed: tuple[tuple[str, str], ...] = ()


def body_of(scope: str) -> str:
    """The key of the step or undo in whose body *scope* lies. ``""`` in the body of a workflow."""
    body, _, rest = scope.partition("/")
    return f"{body}/undo" if rest.startswith("undo/") else body.partition("~")[0]
