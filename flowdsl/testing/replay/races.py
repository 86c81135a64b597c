"""Who lost a race, and what belongs to it.

The rules
    How far a loser came before it was stopped is a matter of timing: it may have begun or not, completed a
    step more or less, and cleaned up accordingly. So what belongs to a loser is compared with nothing. Who
    won the first time wins each time.

    To a loser belong its record, the calls in its body, the runs that it called, and so on down.
"""

from collections.abc import Mapping
from typing import NamedTuple

from flowdsl.core.facts import ChildRun, Won, facts_of
from flowdsl.core.records import Step

__all__ = ["Losers", "Place"]


class Place(NamedTuple):
    """Where a call or its record stands. Two generations of a run may make the same call."""

    run_id: str
    generation: int
    key: str


class Losers:
    """What is known of races: the number of each *winner*, by place, and what belongs to the losers."""

    def __init__(self) -> None:
        self.winners: dict[Place, int] = {}
        self._calls: set[Place] = set()
        self._runs: set[str] = set()

    def learn(self, puts: Mapping[Place, Step]) -> None:
        """Take note of the races among these records."""
        records = [(place, step, facts_of(step)) for place, step in list(puts.items())]
        known = -1
        while known != len(self._calls) + len(self._runs):  # what belongs to a loser may stand in any order
            known = len(self._calls) + len(self._runs)
            for place, step, facts in records:
                if isinstance(facts, Won):
                    self._decided(place, facts)
                child = facts.child if isinstance(facts, ChildRun) else ""
                if child in self._runs or self.holds(place, step.scope):
                    self.add(place)
                    self._runs |= {child} - {""}

    def _decided(self, place: Place, won: Won) -> None:
        self.winners.setdefault(place, won.winner)
        for number, name in enumerate(won.among):
            if number != won.winner:
                self._runs.add(name)  # it is the id of a run, or is the name of none
                self._calls.add(place._replace(key=name))

    def add(self, place: Place) -> None:
        """This call belongs to a loser."""
        self._calls.add(place)

    def add_run(self, run_id: str) -> None:
        """This run belongs to a loser."""
        self._runs.add(run_id)

    def holds_run(self, run_id: str | None) -> bool:
        """Whether a run belongs to a loser."""
        return run_id in self._runs

    def holds(self, place: Place, scope: str) -> bool:
        """Whether the call at *place*, in *scope*, belongs to a loser."""
        if place.run_id in self._runs or place in self._calls:
            return True
        parts = scope.split("/")
        around = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
        around |= {name.partition("~")[0] for name in around}  # of a body that was undone
        return any(place._replace(key=name) in self._calls for name in around)
