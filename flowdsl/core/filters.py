"""What users give to select runs, turned into what a :class:`~flowdsl.core.records.RunFilter` holds."""

from datetime import datetime
from typing import Any

from flowdsl.core.durations import seconds
from flowdsl.core.status import RunStatus

__all__ = ["checked_limit", "moment", "path_of", "statuses", "written_moment"]


def statuses(status: Any) -> tuple[RunStatus, ...]:
    """One status or several, by name or as the enum. ``None`` is no condition.

    >>> [str(one) for one in statuses("failed")]
    ['failed']
    """
    if status is None:
        return ()
    many = (status,) if isinstance(status, str) else tuple(status)
    try:
        return tuple(RunStatus(one) for one in many)
    except ValueError:
        names = ", ".join(repr(str(one)) for one in RunStatus)
        raise ValueError(f"a run's status is one of {names}; got {status!r}") from None


def path_of(workflow: Any) -> str | None:
    """The path of a workflow, given as the workflow or as its path. ``None`` is no condition."""
    if workflow is None or isinstance(workflow, str):
        return workflow
    path = getattr(workflow, "path", None)
    if not isinstance(path, str):
        raise TypeError(f"workflow= is a decorated function or its path; got {workflow!r}")
    return path


def moment(when: Any, what: str) -> float | None:
    """An aware datetime, or seconds since the epoch, as seconds. *what* names the parameter.

    >>> moment(12, "created_after")
    12.0
    """
    if when is None:
        return None
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(
                f"{what} is an aware datetime; got the naive {when!r}. datetime.now(UTC) is aware"
            )
        # Handles show times rounded to the microsecond. The bound is half a microsecond early, so it lies
        # before a run whose own ``created_at`` is given.
        return when.timestamp() - 5e-7
    if isinstance(when, int | float) and not isinstance(when, bool):
        return float(when)
    raise TypeError(f"{what} is an aware datetime or seconds since the epoch; got {when!r}")


def written_moment(text: str, now: float) -> float:
    """A time that a person has written, or a duration before *now*, as seconds since the epoch. A time
    without a zone is in local time. Raises ``ValueError`` for anything else.

    >>> written_moment("1970-01-01T00:00:10+00:00", 0.0), written_moment("2 min", 150.0)
    (9.9999995, 30.0)
    """
    try:
        # Times are shown in microseconds but stored more precisely. A row that is shown with this time must
        # count.
        return datetime.fromisoformat(text).timestamp() - 5e-7
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return now - seconds(text)
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long ago") from error


def checked_limit(limit: Any) -> int | None:
    """The most runs to give. ``None`` is no limit."""
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit is a whole number, 0 or more; got {limit!r}")
    return limit
