"""Who lost a race, and what belongs to it.

The rules
    How far a loser came before it was stopped is a matter of timing: it may have begun or not, completed a
    step more or less, and cleaned up accordingly. So what belongs to a loser is compared with nothing. Who
    won the first time wins each time.

    To a loser belong its record, the calls in its body, the runs that it called, and so on down.
"""

from collections.abc import Iterable

from flowdsl.core.facts import ChildRun, Won, facts_of
from flowdsl.core.records import Step

__all__ = ["Losers"]


class Losers:
    """What is known of races: the place of each *winner*, by run and key, and what belongs to the losers."""

    def __init__(self) -> None:
        self.winners: dict[tuple[str, str], int] = {}
        self._calls: set[tuple[str, str]] = set()
        self._runs: set[str] = set()

    def learn(self, steps: Iterable[Step]) -> None:
        """Take note of the races among these records."""
        records = [(step, facts_of(step)) for step in steps]
        known = -1
        while known != len(self._calls) + len(self._runs):  # what belongs to a loser may stand in any order
            known = len(self._calls) + len(self._runs)
            for step, facts in records:
                if isinstance(facts, Won):
                    self._decided(step, facts)
                child = facts.child if isinstance(facts, ChildRun) else ""
                if child in self._runs or self.holds(step.run_id, step.key, step.scope):
                    self.add(step.run_id, step.key)
                    self._runs |= {child} - {""}

    def _decided(self, step: Step, won: Won) -> None:
        self.winners.setdefault((step.run_id, step.key), won.winner)
        for number, name in enumerate(won.among):
            if number != won.winner:
                self._runs.add(name)  # it is the id of a run, or is the name of none
                self._calls.add((step.run_id, name))

    def add(self, run_id: str, key: str) -> None:
        """This call belongs to a loser."""
        self._calls.add((run_id, key))

    def add_run(self, run_id: str) -> None:
        """This run belongs to a loser."""
        self._runs.add(run_id)

    def holds_run(self, run_id: str | None) -> bool:
        """Whether a run belongs to a loser."""
        return run_id in self._runs

    def holds(self, run_id: str, key: str, scope: str) -> bool:
        """Whether the call of *key* in *scope* belongs to a loser."""
        if run_id in self._runs or (run_id, key) in self._calls:
            return True
        parts = scope.split("/")
        around = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
        around |= {name.partition("~")[0] for name in around}  # of a body that was undone
        return any((run_id, name) in self._calls for name in around)
