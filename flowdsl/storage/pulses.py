"""What others have changed, by topic, for storages whose database does not tell.

Each run has a *pulse*. This number grows with everything that somebody may wait for: a message, a reply, an
item, a request to cancel, the end. After commits of others, whoever waits for a run looks at its pulse. One
statement reads the pulses of all runs that are waited for.

One waiter finds that others have committed, and looks for all who wait at that moment. Those who come later
have missed that look. So a topic is *current* only if it was looked at since others committed. Whoever begins
to wait looks at those of its topics that are not.
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
        self._current: set[str] = set()

    def outdate(self) -> None:
        """Others have committed, so any topic may have changed."""
        self._current = set()

    def look(self, topics: Iterable[str], read: Read) -> list[str]:
        """Those of *topics* that may have changed since they were looked at. One that was never looked at may
        have."""
        current = self._current  # others may commit while this reads, so it is taken before
        wanted = [topic for topic in topics if topic not in current]
        if not wanted:
            return []
        if len(self._known) > _REMEMBERED:
            self._known, current = {}, set()
            self._current = current
        seen: dict[str, int | None] = dict.fromkeys(wanted)
        runs = [topic.removeprefix(_RUN) for topic in wanted if topic.startswith(_RUN)]
        if runs:
            seen.update((_RUN + run_id, pulse) for run_id, pulse in read(runs))
        changed = [
            topic
            for topic in wanted
            if not topic.startswith(_RUN) or self._known.get(topic, -1) != seen[topic]
        ]
        self._known.update(seen)
        current.update(wanted)
        return changed
