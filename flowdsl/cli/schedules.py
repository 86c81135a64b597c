"""``flowdsl schedules``: list, add, pause, trigger and delete schedules."""

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from flowdsl.cli._command import Cli, Failure, as_moment, command, opened, verbs
from flowdsl.cli._complete import schedule_names, workflow_names
from flowdsl.cli._execute import APP, app_runtime, stdout_reserved
from flowdsl.cli._modules import load_app
from flowdsl.cli._options import NOTHING, as_json
from flowdsl.core.durations import seconds
from flowdsl.core.records import ScheduleRow
from flowdsl.core.schedules import OVERLAPS, Schedule, without_args
from flowdsl.core.words import iso, nearest, span
from flowdsl.declared import loaded_workflows
from flowdsl.runtime import Runtime
from flowdsl.storage.left_out import readable

__all__ = ["schedules"]

NAME = click.argument("name", shell_complete=schedule_names)
_SHOWN = 5  # times of a schedule


@verbs(
    epilog="""\b
Examples:
  flowdsl schedules
  flowdsl schedules put nightly shop.report --cron "30 2 * * *" --timezone Europe/Berlin --app shop
  flowdsl schedules backfill nightly 2027-10-01 2027-10-08 --app shop"""
)
def schedules(cli: Cli) -> None:
    """List the schedules, or add, pause, resume, trigger, backfill or delete one.

    Without a command it lists them, with their next five times.
    """
    _list(cli)


@command(name="list")
def list_(cli: Cli) -> None:
    """List the schedules, with their next five times in their own time zones."""
    _list(cli)


@command()
@NAME
@click.argument("workflow", shell_complete=workflow_names)
@click.option("--cron", required=True, metavar="CRON", help='When, such as "30 2 * * *".')
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="The time zone of CRON.")
@click.option("--args", callback=as_json, metavar="JSON", help="A list: the arguments of each run.")
@click.option("--kwargs", callback=as_json, metavar="JSON", help="An object: its named arguments.")
@click.option(
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="skip",
    show_default=True,
    help="What happens to a tick if the last run is still executing.",
)
@click.option(
    "--catch-up",
    default="1 hour",
    show_default=True,
    metavar="DURATION",
    help="Start a missed run late, if it is late by less than this.",
)
@APP
def put(cli: Cli, name: str, workflow: str, args: Any, kwargs: Any, app: str | None, **rest: Any) -> None:
    """Add a schedule, or replace the one of its name.

    It begins now. MODULE defines the workflow, and the codec for its arguments.
    """
    args, kwargs = ([] if args is NOTHING else args), ({} if kwargs is NOTHING else kwargs)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise click.UsageError("--args is a list and --kwargs an object of JSON", click.get_current_context())
    try:
        schedule = Schedule(name, workflow, args=args, kwargs=kwargs, **rest)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    _load(cli, app)
    if workflow not in loaded_workflows():
        raise Failure(f"no workflow {workflow!r} in {app}{nearest(workflow, loaded_workflows())}")
    with app_runtime(cli) as runtime:
        runtime.schedules.put(schedule)
        _done(cli, runtime, name, "put")


@command()
@NAME
def pause(cli: Cli, name: str) -> None:
    """Let a schedule start nothing."""
    with opened(cli) as runtime:
        _row(runtime, name)
        runtime.schedules.pause(name)
        _done(cli, runtime, name, "paused")


@command()
@NAME
def resume(cli: Cli, name: str) -> None:
    """Let a schedule start runs again."""
    with opened(cli) as runtime:
        _row(runtime, name)
        runtime.schedules.resume(name)
        _done(cli, runtime, name, "resumed")


@command()
@NAME
@APP
def trigger(cli: Cli, name: str, app: str | None) -> None:
    """Enqueue a run of a schedule now, in addition to its ticks."""
    _load(cli, app)
    with app_runtime(cli) as runtime:
        _row(runtime, name)
        _opened(cli, [runtime.schedules.trigger(name).id])


@command()
@NAME
@click.argument("start", callback=as_moment)
@click.argument("end", callback=as_moment)
@APP
def backfill(cli: Cli, name: str, start: float, end: float, app: str | None) -> None:
    """Enqueue the runs of the ticks from START until just before END.

    Both are a time, or how long ago. Ticks that have their run already are left out.
    """
    _load(cli, app)
    # `as_moment` reads a time half a microsecond early, so that rows shown with this time count.
    first, last = (datetime.fromtimestamp(round(moment + 5e-7, 6), UTC) for moment in (start, end))
    with app_runtime(cli) as runtime:
        _row(runtime, name)
        _opened(cli, [run.id for run in runtime.schedules.backfill(name, first, last)])


@command()
@NAME
def delete(cli: Cli, name: str) -> None:
    """Delete a schedule; its runs stay."""
    with opened(cli) as runtime:
        _row(runtime, name)
        runtime.schedules.delete(name)
    cli.out.line(f"deleted schedule {name}")
    if cli.as_json:
        cli.out.document({"deleted": [name]})


for _one in (list_, put, pause, resume, trigger, backfill, delete):
    schedules.add_command(_one)


def _load(cli: Cli, app: str | None) -> None:
    if app is None:
        raise click.UsageError(
            "--app MODULE is needed: the module that defines the workflow", click.get_current_context()
        )
    with stdout_reserved(cli.as_json):
        load_app(app)


def _row(runtime: Runtime, name: str) -> ScheduleRow:
    rows = {row.name: row for row in runtime.storage.list_schedules()}
    if name not in rows:
        raise Failure(f"no schedule {name!r}{nearest(name, rows)}", "flowdsl schedules")
    return rows[name]


def _done(cli: Cli, runtime: Runtime, name: str, what: str) -> None:
    cli.out.line(f"{what} schedule {name}")
    if cli.as_json:
        cli.out.document(_view(_row(runtime, name), runtime.storage.now()))


def _opened(cli: Cli, ids: list[str]) -> None:
    for run_id in ids:
        cli.out.line(f"enqueued {run_id}")
    if cli.as_json:
        cli.out.document({"enqueued": ids})
    elif not ids:
        cli.out.note("nothing to enqueue: every tick in that time has its run")


def _next(schedule: Schedule, now: float) -> list[datetime]:
    """Its next times, in its time zone. A paused schedule has none."""
    return [] if schedule.paused else list(islice(schedule.times(datetime.fromtimestamp(now, UTC)), _SHOWN))


def _that_is_one(row: ScheduleRow) -> ScheduleRow:
    """Return *row*; raises if it is no valid schedule."""
    without_args(row)
    return row


def _list(cli: Cli) -> None:
    with opened(cli) as runtime:
        rows, now = runtime.storage.list_schedules(), runtime.storage.now()
        rows = list(readable(_that_is_one, rows))
    if cli.as_json:
        cli.out.document([_view(row, now) for row in rows])
    elif not rows:
        cli.out.note("no schedules")
    for row in rows:
        schedule = without_args(row)
        cli.out.line((row.name, "bold"), ("  paused" if row.paused else "", "yellow"))
        times = [f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in _next(schedule, now)]
        cli.out.facts(
            [
                ("workflow", schedule.workflow),
                ("cron", f"{schedule.cron}  {schedule.timezone}"),
                ("overlap", f"{schedule.overlap}, catches up {span(seconds(schedule.catch_up))}"),
                *(("" if number else "next", time) for number, time in enumerate(times)),
            ]
        )


def _view(row: ScheduleRow, now: float) -> dict[str, Any]:
    schedule = without_args(row)
    return {
        "name": schedule.name,
        "workflow": schedule.workflow,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap,
        "catch_up": schedule.catch_up,
        "paused": schedule.paused,
        "created_at": iso(row.created_at),
        "last": iso(row.last),
        "next": [moment.isoformat() for moment in _next(schedule, now)],
    }
