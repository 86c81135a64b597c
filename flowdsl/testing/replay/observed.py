"""What ``check_replay`` executes, and what it sees of each execution."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from attrs import define, field, frozen

from flowdsl.blocks import block
from flowdsl.core.kinds import OBSERVABLE
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.storage.base import Operation, PutStep, Restart, TakeSignal
from flowdsl.testing.replay.races import Losers, Place
from flowdsl.testing.replay.transactions import Database

__all__ = [
    "Address",
    "Called",
    "Commit",
    "Generations",
    "Life",
    "Outcome",
    "Plan",
    "Sight",
    "body_of",
    "records_of",
]

Address = tuple[Place, int]
"""Place and attempt of one execution of a body."""
Outcome = tuple[BaseException | None, Any]


@frozen(slots=True)
class Commit:
    """Operations that became durable together, and the time on the clock."""

    operations: tuple[Operation, ...]
    at: float


class Generations:
    """In which generation each run is, by what was committed."""

    def __init__(self) -> None:
        self._restarts: Counter[str] = Counter()

    def of(self, run_id: str) -> int:
        """The present generation of a run."""
        return 1 + self._restarts[run_id]

    def records(self, operations: Iterable[Operation]) -> Iterator[tuple[Place, Step]]:
        """The records among *operations*, in their order, each with its place."""
        for operation in operations:
            if isinstance(operation, Restart):
                self._restarts[operation.run_id] += 1
            elif isinstance(operation, PutStep | TakeSignal):
                step = operation.step
                yield Place(step.run_id, self.of(step.run_id), step.key), step


def records_of(commits: Iterable[Commit]) -> Iterator[tuple[Place, Step]]:
    """The records that *commits* brought, from the first commit of all on, each with its place."""
    generations = Generations()
    for commit in commits:
        yield from generations.records(commit.operations)


@frozen(slots=True)
class Called:
    """One call of a step: whether its body *ran* or its record answered, and the line of code."""

    ran: bool
    place: Place
    shown: str
    line: str


@define(slots=True)
class Plan:
    """What is executed, and how, and what the first execution found out.

    It found out which bodies had *begun* (and whether they are async), their *outcomes*, the order in which
    they *ended*, which of them made durable calls of their own (*inner*), arguments that steps *changed*,
    calls that leave no record (*unrecorded*), and who lost a race (*losers*). Transactional steps get
    connections of *database*. *cut_off*: concurrent calls failed or did not end. With *elsewhere*, it
    executes in another process, where no body of a step executes.
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
    database: Database = field(factory=lambda: Database(None))
    cut_off: bool = False

    def learn_from(self, first: "Life") -> None:
        """The first execution has ended."""
        self.cut_off = first.cut_off or any(address not in self.outcomes for address in self.begun)
        for run_id in first.left_alone:
            self.losers.add_run(run_id)  # they may come further the next time
        steps = first.journal().items()
        self.inner = {place._replace(key=body_of(step.scope)) for place, step in steps if step.scope}


_generation: ContextVar[tuple[str, int]] = ContextVar("flowdsl-check-replay-generation", default=("", 1))


@define(slots=True)
class Life:
    """What was seen of one execution, which continues the commits *before*.

    ``puts`` are all its records, and those of what it continued. ``strange`` are calls that the first
    execution did not make. ``losers`` is what is known of races. ``left_alone`` are detached runs that had
    not ended, and children that were cancelled. ``cut_off``: concurrent calls failed or did not end.
    ``effects``, ``reads`` and ``lost`` are what a body did outside every step.
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
    cut_off: bool = False
    left_alone: set[str] = field(factory=set)
    generations: Generations = field(factory=Generations)

    def note(self, operations: Sequence[Operation]) -> None:
        """Keep the records among *operations*."""
        self.puts.update(self.generations.records(operations))

    def place(self, run_id: str, key: str) -> Place:
        """Where a call stands that is made here. The body that makes it may outlive its generation."""
        executing, generation = _generation.get()
        return Place(run_id, generation if executing == run_id else self.generations.of(run_id), key)

    @block
    def executing(self, run_id: str) -> Iterator[None]:
        """The block is the body of a run, in its present generation."""
        token = _generation.set((run_id, self.generations.of(run_id)))
        try:
            yield
        finally:
            _generation.reset(token)

    def returned(self, value: Any) -> None:
        """The workflow has returned *value*."""
        self.value = value

    def raised(self, error: BaseException) -> None:
        """The workflow has raised *error*."""
        self.error = error

    def executes_really(self) -> None:
        """A body or its fake executes; no outcome is played back in its place."""
        self.really_ran += 1

    def is_cut_off(self) -> None:
        """Concurrent calls fail or do not end, so how far the others come is chance."""
        self.cut_off = True

    def journal(self) -> dict[Place, Step]:
        """The records that must be the same in each execution."""
        return {place: step for place, step in self.puts.items() if step.kind in OBSERVABLE}

    def is_chance(self, place: Place, step: Step) -> bool:
        """Whether a record is a matter of timing: it belongs to a loser of a race, to a run that goes on
        without the workflow that is checked, or to what one failure may have cut off."""
        if self.cut_off and (step.concurrent or step.status is StepStatus.PENDING):
            return True
        return place.run_id in self.left_alone or self.losers.holds(place, step.scope)

    def learn_what_was_cut_off(self) -> None:
        """Where one of several concurrent calls fails or is cancelled, how far the others came is chance."""
        for step in self.journal().values():
            if step.status is StepStatus.PENDING or (step.concurrent and step.status is StepStatus.FAILED):
                self.is_cut_off()


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
