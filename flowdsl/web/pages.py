"""The pages: the list of runs, one run, and the tables of queues, schedules and workers."""

from collections.abc import Sequence
from functools import cached_property
from urllib.parse import quote

from starlette.responses import Response

from flowdsl.core.status import is_final
from flowdsl.core.timeline import Bar, Timeline, timeline_of
from flowdsl.core.views import tag_texts
from flowdsl.core.words import instant
from flowdsl.storage.left_out import left_out
from flowdsl.web import parts
from flowdsl.web.answers import Refusal, html, html_in_pieces
from flowdsl.web.drawing import MOST, Picture, picture
from flowdsl.web.graph import Graph, graph_of
from flowdsl.web.page_request import PageRequest
from flowdsl.web.query import STATUSES, Cursor, Filters, View
from flowdsl.web.reading import RunDetails, list_runs, read_run
from flowdsl.web.tables import rows_of

__all__ = ["run", "runs", "static", "table"]


def runs(request: PageRequest) -> Response:
    """The list of runs."""
    query = request.query
    now = request.runtime.storage.now()
    filters = Filters.of(query, now)
    cursor = Cursor.of(next((value for name, value in query if name == "cursor"), ""))
    with left_out() as refused:
        listed = list_runs(request.runtime, filters, cursor)
    context = request.context(
        here="runs",
        filters=filters,
        listed=listed,
        refused=refused.values(),
        statuses=STATUSES,
        now=now,
        first=filters.query() or "?" if cursor is not None else None,
        next=filters.query(listed.next) if listed.next is not None else None,
        workflows=sorted({row.workflow for row, _ in listed.rows}),
        tags=tag_texts,
        instant=instant,
    )
    return html(request.renderer.page("runs.html", **context))


def run(request: PageRequest) -> Response:
    """One run. If it is long, the top of the page is sent before its records are read, so that a browser can
    show it."""
    view = View.of(request.query)
    details = read_run(request.runtime, request.name)
    if details is None:
        raise Refusal(404, "there is no such run")
    home = details.run.workflow.rpartition(".")[0] + "."
    stem = view.query(step="-").removesuffix("-")
    context = request.context(
        here="run",
        link=lambda key: stem + quote(key),
        details=details,
        run=details.run,
        view=view,
        home=home,
        layout=StepLayout(details, view, home),
        ended=is_final(details.run.status),
        parts=parts,
        tags=tag_texts(details.run),
        instant=instant,
    )
    pieces = request.renderer.pieces("run.html", **context)
    return html_in_pieces(pieces) if details.is_long else html("".join(pieces))


class StepLayout:
    """The steps of a run, laid out for *view*. Each part is made when the template first needs it."""

    def __init__(self, details: RunDetails, view: View, home: str) -> None:
        self._details, self._view, self._home = details, view, home

    @cached_property
    def line(self) -> Timeline:
        """All bars in time."""
        details = self._details
        children = {child.id: child for child, _ in details.children}
        return timeline_of(details.run, details.status, details.journal, now=details.now, children=children)

    @cached_property
    def matching(self) -> Sequence[Bar]:
        """The bars that match the filters."""
        if not self._view.name and not self._view.failed_only:
            return self.line.bars
        return [bar for bar in self.line.bars if _matches(bar, self._view)]

    @cached_property
    def picture(self) -> Picture:
        """The timeline as it is drawn."""
        return picture(self.line, self.matching, self._view, self._home)

    @property
    def last_page(self) -> int:
        """The number of the last page of the table."""
        return max(-(-len(self.matching) // MOST), 1)

    @property
    def page(self) -> int:
        """The number of this page of the table."""
        return min(self._view.page, self.last_page)

    @property
    def rows(self) -> Sequence[Bar]:
        """The rows of this page of the table."""
        return self.matching[(self.page - 1) * MOST : self.page * MOST]

    @cached_property
    def detail(self) -> Bar | None:
        """The step that was chosen."""
        return next((bar for bar in self.line.bars if bar.step.key == self._view.step), None)

    @property
    def detail_logs(self) -> list[parts.LogRow]:
        """The lines that the chosen step has logged."""
        chosen = self.detail
        if chosen is None:
            return []
        return [row for row in parts.log_rows(self._details) if row.key == chosen.step.key]

    @cached_property
    def calls(self) -> list[parts.Calls]:
        """Which step called which, how often."""
        return parts.calls_of(self._details, self.line.bars)

    @property
    def graph(self) -> Graph | None:
        """The calls as a picture; ``None`` if a picture would not show more."""
        return graph_of(self.calls, self._details.run.workflow, self._home)


def _matches(bar: Bar, view: View) -> bool:
    if view.failed_only and bar.status != "failed":
        return False
    return not view.name or view.name.casefold() in bar.step.path.casefold()


def table(request: PageRequest) -> Response:
    """The table of queues, schedules or workers."""
    kind = request.name
    with left_out() as refused:
        rows = rows_of(request.runtime, kind)
    columns = list(dict.fromkeys(name for row in rows for name in row.facts))
    context = request.context(here=kind, kind=kind, rows=rows, columns=columns, refused=refused.values())
    return html(request.renderer.page("table.html", **context))


def static(request: PageRequest) -> Response:
    """A static file. Its name changes with its content, so browsers may keep it for ever."""
    found = request.renderer.static[request.name]
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(found.body, headers=kept, media_type=found.media_type)
