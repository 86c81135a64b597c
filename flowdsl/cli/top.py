"""``flowdsl top``: watch all runs that are not finished, with queues and workers."""

import time
from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen
from rich.console import Console
from rich.live import Live

from flowdsl.cli._command import Cli, command, opened, period
from flowdsl.cli._find import every_run
from flowdsl.cli._follow import Follower, waits
from flowdsl.cli._output import Cell, Column, Output, Picture, status_cell
from flowdsl.cli._text import cut_middle, cut_start
from flowdsl.cli._tree import pending_text, step_name
from flowdsl.cli.runs import run_span
from flowdsl.core.preview import error_lines
from flowdsl.core.records import QueueCounts, Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view
from flowdsl.core.words import STATES, age, moment
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["top"]

_ORDER = ("running", "waiting", "interrupted", "failed", "pending")
_UNSETTLED = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.FAILED)
_HEAD = 4  # lines besides the rows: counts, an empty line, titles, how many more
_QUEUES = 6  # shown; those with the most waiting runs come first
_PAUSE = 0.5  # seconds between two pictures, at least
_TICK = 1.0  # seconds between two pictures, at most: times go on, and a dead process writes nothing


@frozen(slots=True)
class Line:
    """One run and its progress. *progress* counts the steps of a ``running`` run. *now* says what it does,
    waits for, or ended with.
    """

    run: Run
    status: str
    progress: dict[str, int] | None
    now: str


@define
class Watcher:
    """Looks at all runs that are not finished, again and again. Only new records are read."""

    runtime: Runtime
    where: RunFilter
    followers: dict[str, Follower] = field(factory=dict)

    def look(self, most: int | None = None) -> tuple[list[Line], Counter[str]]:
        """The first *most* of these runs, and how many there are of each status."""
        found = [
            (run, shown_status(self.runtime.storage, run))
            for run in every_run(self.runtime, self.where)
            if run.status is not RunStatus.FAILED or run.retryable
        ]
        found.sort(key=lambda one: _ORDER.index(one[1]))
        kept = found[:most]
        self.followers = {run.id: self._follower(run) for run, _ in kept if run.status is RunStatus.RUNNING}
        lines = [self._line(run, status) for run, status in kept]
        return lines, Counter(status for _, status in found)

    def _follower(self, run: Run) -> Follower:
        return self.followers.get(run.id) or Follower(self.runtime, run.id)

    def _line(self, run: Run, status: str) -> Line:
        follower = self.followers.get(run.id)
        if follower is None:
            return Line(run, status, None, error_lines(run.error_preview)[0])
        follower.read(run)
        steps = follower.unfinished()
        if status == "running" and steps and all(map(waits, steps)):
            status = "waiting"
        home = run.workflow.rpartition(".")[0] + "."
        now = ""
        if steps:
            said = pending_text(steps[-1], status != "interrupted")
            more = f", and {len(steps) - 1} more" if len(steps) > 1 else ""
            now = f"{step_name(steps[-1], home)}({steps[-1].args}){more}" + (f": {said}" if said else "")
        return Line(run, status, follower.counts(), now)


@command(
    epilog="""\b
Examples:
  flowdsl top
  flowdsl top --since "1 day"
  flowdsl top --json"""
)
@period("Only runs created since: a time, or how long ago.", "Only runs created before.")
def top(cli: Cli, since: float | None, until: float | None) -> None:
    """Watch all runs that are not finished.

    These are the runs that execute, wait, are interrupted, are pending, or have failed and can be retried. In
    a terminal the table is updated until Ctrl-C, and the queues and workers are above it. In a pipe, and with
    --json, it is printed once.
    """
    where = RunFilter(status=_UNSETTLED, created_after=since, created_before=until)
    with opened(cli) as runtime:
        watcher = Watcher(runtime, where)
        if cli.out.live is not None:
            _live(cli.out.live, watcher)
            return
        lines, _ = watcher.look()
        if cli.as_json:
            cli.out.document([{**run_view(one.run, one.status), "progress": one.progress} for one in lines])
        elif not lines:
            cli.out.note("every run is finished")
        else:
            _print(cli.out, lines, runtime.storage.now())


def _live(console: Console, watcher: Watcher) -> None:
    """Draw the table until Ctrl-C. Then it disappears."""
    storage = watcher.runtime.storage
    seen = storage.wait_for_change(0, 0.0)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            above = [*_queues(watcher.runtime), *_workers(watcher.runtime)]
            lines, counts = watcher.look(max(console.height - _HEAD - len(above), 1))
            out = Picture(console)
            out.line((f"{moment(storage.now())[11:]}  ", "dim"), *_counted(counts))
            for cells in above:
                out.line(*cells)
            out.line("")
            if lines:
                _print(out, lines, storage.now())
            else:
                out.line(("every run is finished", "dim"))
            if counts.total() > len(lines):
                out.line((f"and {counts.total() - len(lines)} more", "dim"))
            live.update(out.whole, refresh=True)
            time.sleep(_PAUSE)
            seen = storage.wait_for_change(seen, _TICK - _PAUSE)


def _counted(counts: Counter[str]) -> list[Cell]:
    cells: list[Cell] = []
    for status in _ORDER:
        if counts[status]:
            state = STATES[status]
            cells += [(f"{state.sign} {counts[status]} {status}", state.colour), "  "]
    return cells


def _queues(runtime: Runtime) -> list[list[Cell]]:
    """A line about the queues that have runs or are paused. No line if there is no such queue."""
    counts = runtime.storage.queue_counts()
    paused = {queue.name for queue in runtime.queues.list() if queue.paused}
    names = sorted({*counts, *paused}, key=lambda name: (-counts.get(name, QueueCounts()).pending, name))
    cells: list[Cell] = [("queues    ", "dim")]
    for name in names[:_QUEUES]:
        of_it = counts.get(name, QueueCounts())
        pending, running = STATES["pending"].sign, STATES["running"].sign
        cells += [name, (f" {pending}{of_it.pending} {running}{of_it.running}", "dim")]
        cells += [(" paused", "yellow"), "  "] if name in paused else ["  "]
    if len(names) > _QUEUES:
        cells.append((f"and {len(names) - _QUEUES} more", "dim"))
    return [cells] if names else []


def _workers(runtime: Runtime) -> list[list[Cell]]:
    """A line about the workers that are alive. If none is alive, there is a line only if runs wait."""
    found = runtime.workers()
    if found:
        executing, room = sum(len(one.executing) for one in found), sum(one.concurrency for one in found)
        return [[("workers   ", "dim"), f"{len(found)} alive", (f", {executing} of {room} runs", "dim")]]
    waiting = any(counts.pending for counts in runtime.storage.queue_counts().values())
    return [[("workers   ", "dim"), ("none is alive, and runs wait in a queue", "yellow")]] if waiting else []


def _print(out: Output, lines: Sequence[Line], now: float) -> None:
    columns = (
        Column("id"),
        Column("workflow", least=12, wide=100),
        Column("status"),
        Column("age"),
        Column("took", right=True, wide=76),
        Column("done", right=True, wide=76),
        Column("failed", right=True, wide=90),
        Column("now", least=10),
    )
    room = out.width or 10_000
    rows: list[list[Cell]] = [
        [
            cut_middle(one.run.id, max(room // 3, 12)),
            cut_start(one.run.workflow, max(room // 6, 12)),
            status_cell(one.status),
            (age(now - one.run.created_at), "dim"),
            run_span(one.run, "running" if one.status == "waiting" else one.status, now),
            str(one.progress["done"]) if one.progress else "",
            str(one.progress["failed"]) if one.progress else "",
            one.now,
        ]
        for one in lines
    ]
    out.table(columns, rows)
