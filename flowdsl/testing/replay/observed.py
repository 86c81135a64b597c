"""What is executed by ``check_replay``, and what is seen of each execution."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from flowdsl.core.kinds import OBSERVABLE
from flowdsl.core.records import Step
from flowdsl.storage.base import Operation, PutStep, TakeSignal
from flowdsl.testing.replay.surroundings import Memory

__all__ = ["Called", "Commit", "Life", "Outcome", "Plan"]

"""Kinds of records that two executions must have in common."""

Place = tuple[str, str]
Address = tuple[str, str, int]
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
    """What is executed, and how, and what the first execution found out: the *outcomes* of bodies, the order
    in which they *ended*, which of them made durable calls of their own (*inner*), arguments that steps
    *changed*, and calls that leave no record (*unrecorded*).
    """

    call: Callable[[], Any]
    fn: Any
    is_async: bool
    fakes: Mapping[str, Callable[..., Any]]
    options: Mapping[str, Any]
    signals: Sequence[tuple[str, Any]]
    memory: Memory
    outcomes: dict[Address, Outcome] = field(factory=dict)
    inner: set[Place] = field(factory=set)
    ended: list[Address] = field(factory=list)
    changed: list[str] = field(factory=list)
    unrecorded: dict[str, None] = field(factory=dict)


@define(slots=True)
class Life:
    """What was seen of one execution. ``puts`` are all records of it and of what it continued."""

    before: tuple[Commit, ...]
    changes: tuple[str, ...]
    error: BaseException | None = None
    value: Any = None
    commits: list[Commit] = field(factory=list)
    calls: list[Called] = field(factory=list)
    unused: list[str] = field(factory=list)
    puts: dict[Place, Step] = field(factory=dict)
    outside: list[str] = field(factory=list)
    really_ran: int = 0
    lines: dict[Address, str] = field(factory=dict)
    loaded: list[tuple[str, Any, Any]] = field(factory=list)

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
