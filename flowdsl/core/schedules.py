"""Schedules: when a workflow is due, by cron text in a time zone.

The library cronsim reads the cron text. It knows the two nights of the time change. In the night that has
half past two twice, a job at that time fires once, at the first. In the night that lacks it, the job fires at
the next moment that exists. A job for every hour, or every so many minutes, follows the passing time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from attrs import Attribute, field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.durations import Duration, seconds
from flowdsl.core.records import ScheduleRow
from flowdsl.errors import CorruptPayload

__all__ = ["OVERLAPS", "Schedule", "due", "tick_id", "ticks", "without_args", "workflow_of"]

OVERLAPS = ("skip", "queue", "allow")


def _path(workflow: Any) -> str:
    """The path of a decorated workflow, or the path itself."""
    path = getattr(workflow, "path", workflow)
    if not isinstance(path, str) or not path.strip():
        raise TypeError(f"workflow= is a function decorated with @workflow, or its path; got {workflow!r}")
    return path


def _checked_cron(_schedule: Any, _attribute: "Attribute[str]", value: Any) -> None:
    _cron(value, datetime(2000, 1, 1, tzinfo=UTC))


def _checked_zone(_schedule: Any, _attribute: "Attribute[str]", value: Any) -> None:
    from zoneinfo import ZoneInfo  # slow to import

    try:
        ZoneInfo(value)
    except (OSError, ValueError, TypeError, KeyError):
        raise ValueError(
            f'timezone= is the name of a time zone such as "Europe/Berlin"; got {value!r}'
        ) from None


def _checked_name(_schedule: Any, _attribute: "Attribute[str]", value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"a schedule is named by a string; got {value!r}")
    if not value.strip() or "@" in value:
        raise ValueError(f"a schedule's name must not be empty, and must have no '@'; got {value!r}")


def _checked_overlap(_schedule: Any, _attribute: "Attribute[str]", value: Any) -> None:
    if value not in OVERLAPS:
        raise ValueError(f"overlap= is one of {', '.join(map(repr, OVERLAPS))}; got {value!r}")


def _positional(given: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(given)  # of ``tuple`` itself attrs would read the signature, at import: that takes long


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given)


def _catch_up(given: Duration) -> float:
    return seconds(given, "catch_up")


@frozen(slots=True, eq=False, repr=False)
class Schedule(ByFields):
    """A workflow that is started again and again.

    Parameters: *name*, unique in the storage; *workflow*, the decorated function or its path; *cron*, five
    fields (minute, hour, day of the month, month, day of the week), or six with seconds in front; *timezone*,
    a name of the IANA database; *args* and *kwargs* of each run; *overlap*, what happens if a tick comes
    while a run of the schedule is still pending or executing: ``"skip"`` it, ``"queue"`` it behind that run,
    or ``"allow"`` both; *catch_up*, a duration: ticks missed for less than this are made up; *paused*:
    nothing is started.

    >>> Schedule("nightly", "shop.report", cron="30 2 * * *", timezone="Europe/Berlin").workflow
    'shop.report'
    """

    name: str = field(validator=_checked_name)
    workflow: str = field(converter=_path)
    cron: str = field(kw_only=True, validator=_checked_cron)
    timezone: str = field(default="UTC", kw_only=True, validator=_checked_zone)
    args: tuple[Any, ...] = field(default=(), kw_only=True, converter=_positional)
    kwargs: Mapping[str, Any] = field(factory=dict, kw_only=True, converter=_named)
    overlap: str = field(default="skip", kw_only=True, validator=_checked_overlap)
    catch_up: float = field(default=3600.0, kw_only=True, converter=_catch_up)
    paused: bool = field(default=False, kw_only=True)

    def times(self, after: datetime) -> Iterator[datetime]:
        """The next moments after *after*, an aware datetime, in the schedule's time zone.

        >>> daily = Schedule("daily", "shop.report", cron="0 9 * * *")
        >>> next(daily.times(datetime(2027, 1, 1, 12, tzinfo=UTC))).isoformat()
        '2027-01-02T09:00:00+00:00'
        """
        from zoneinfo import ZoneInfo

        return _cron(self.cron, after.astimezone(ZoneInfo(self.timezone)))


def without_args(row: ScheduleRow) -> Schedule:
    """The schedule of a row, without its arguments. They are the user's values, and are not loaded here.

    Raises ``CorruptPayload`` if the row makes no schedule.
    """
    try:
        return Schedule(row.name, paused=bool(row.paused), **json.loads(row.spec))
    except (TypeError, ValueError, RecursionError) as error:
        raise _damaged(row, error) from error


def workflow_of(row: ScheduleRow) -> str:
    """The path of the workflow that a row names. Raises ``CorruptPayload`` if it names none."""
    try:
        return str(json.loads(row.spec)["workflow"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(row, error) from error


def _damaged(row: ScheduleRow, error: Exception) -> CorruptPayload:
    return CorruptPayload(f"schedule {row.name!r} is damaged in the database: {error!r}")


def _cron(text: str, after: datetime) -> Iterator[datetime]:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ImportError("schedules need the library cronsim: pip install 'flowdsl[schedules]'") from None
    try:
        found: Iterator[datetime] = CronSim(text, after)
    except (CronSimError, AttributeError, TypeError) as error:
        raise ValueError(f'cron= is text such as "30 2 * * *"; got {text!r}: {error}') from None
    return found


def ticks(schedule: Schedule, after: float, until: float) -> Iterator[float]:
    """The moments in ``(after, until]``, in seconds since the epoch."""
    begin = datetime.fromtimestamp(after, UTC)
    moments = (moment.timestamp() for moment in schedule.times(begin))
    return takewhile(lambda moment: moment <= until, moments)


def due(schedule: Schedule, last: float, now: float) -> list[float]:
    """The ticks to fire now, oldest first.

    *last*: the last moment that was handled (at first, when the schedule was made); *now*: the present one.
    Both are in seconds since the epoch. Ticks missed for longer than ``catch_up`` are left out.
    """
    return list(ticks(schedule, max(last, now - schedule.catch_up), now))


def tick_id(name: str, moment: float) -> str:
    """The id of the run of a tick: one run per tick, whoever fires it.

    >>> tick_id("nightly", 1824942600.0)
    'nightly@2027-10-31T00:30:00Z'
    """
    return f"{name}@{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
