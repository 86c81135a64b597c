"""Replay checks."""

from typing import Any


class ReplayMismatch(AssertionError):
    """A workflow does not replay."""


class ReplayReport:
    """What was checked."""


def check_replay(workflow: Any, *args: Any, **kwargs: Any) -> ReplayReport:
    """Check that *workflow* replays."""
    raise NotImplementedError


def replay_test(fn: Any) -> Any:
    """Check that the body of a test replays."""
    raise NotImplementedError
