"""What a campaign found: counts, and the trials that failed."""

import json
import sys
import time
from collections import Counter
from typing import Any

__all__ = ["Report"]


class Report:
    """Counts of one campaign. It is red when a trial failed."""

    def __init__(self, campaign: str, seed: int, count: int, plant: str | None = None) -> None:
        self.head: dict[str, Any] = {"campaign": campaign, "seed": seed, "count": count}
        if plant:
            self.head["plant"] = plant
        self.counts: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.failures: list[dict[str, Any]] = []
        self._began = time.monotonic()

    def fail(self, trial: Any, *what: str) -> None:
        """*trial* went wrong: *what* says how. This is said at once, in case the campaign does not come to its end."""
        failure = {"trial": trial, "what": [one[:2000] for one in what]}
        self.failures.append(failure)
        print(json.dumps(failure), file=sys.stderr, flush=True)

    def skip(self, what: str, reason: str) -> None:
        """*what* could not be tried."""
        self.skipped[what] = reason

    def line(self) -> str:
        """The result as one line of JSON."""
        found: dict[str, Any] = {**self.head, **dict(sorted(self.counts.items()))}
        if self.skipped:
            found["skipped"] = self.skipped
        found["seconds"] = round(time.monotonic() - self._began, 1)
        found["failed"] = len(self.failures)
        if self.failures:
            found["failures"] = self.failures[:3]
        return json.dumps(found)
