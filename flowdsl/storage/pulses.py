"""Which runs others have changed, for storages whose database does not tell.

Each run has a *pulse*. This number grows with everything that somebody may wait for: a message, a reply, an
item, a request to cancel, the end. After each commit, whoever waits for a run looks at its pulse. One
statement reads the pulses of all runs that are waited for.
"""

from collections.abc import Callable, Iterable

__all__ = ["Pulses"]

_REMEMBERED = 8192
_RUN = "run:"

Read = Callable[[list[str]], Iterable[tuple[str, int]]]
"""Gives the pulses of runs, by id. Missing runs are left out."""


class Pulses:
    """The pulses of the runs that somebody waits for, as of the last look. Queues and schedules have none:
    any commit may concern them."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}

    def learn(self, topics: Iterable[str], read: Read) -> bool:
        """Look at runs that were not looked at before. If there are any, they may have changed meanwhile."""
        new = [topic for topic in topics if topic not in self._known]
        if not new:
            return False
        if len(self._known) > _REMEMBERED:
            self._known = {}
        self._known.update(_look(new, read))
        return True

    def changed(self, topics: Iterable[str], read: Read) -> list[str]:
        """Those of *topics* whose run has another pulse than at the last look."""
        wanted = list(topics)
        seen = _look(wanted, read)
        changed = [
            topic
            for topic in wanted
            if not topic.startswith(_RUN) or self._known.get(topic, -1) != seen[topic]
        ]
        self._known.update(seen)
        return changed


def _look(topics: list[str], read: Read) -> dict[str, int | None]:
    found: dict[str, int | None] = dict.fromkeys(topics)
    wanted = [topic.removeprefix(_RUN) for topic in topics if topic.startswith(_RUN)]
    if wanted:
        found.update((_RUN + run_id, pulse) for run_id, pulse in read(wanted))
    return found
