"""The pages: the list of runs, one run, and the tables of queues, schedules and workers."""

from collections.abc import Sequence
from functools import cached_property
from urllib.parse import quote

from starlette.responses import Response

from flowdsl.core.status import is_final
from flowdsl.core.timeline import Bar, Timeline, timeline_of
from flowdsl.core.views import tag_texts
from flowdsl.core.words import instant
from flowdsl.storage.refused import left_out
from flowdsl.web import parts
from flowdsl.web.answers import Refusal, html, html_in_pieces
from flowdsl.web.asked import Asked
from flowdsl.web.drawing import MOST, Picture, picture
from flowdsl.web.graph import Graph, graph_of
from flowdsl.web.offers import rows_of
from flowdsl.web.query import STATUSES, Cursor, Filters, View
from flowdsl.web.reading import Whole, list_runs, read_run

__all__ = ["offered", "run", "runs", "static"]


def runs(asked: Asked) -> Response:
    """The list of runs."""
    query = asked.query
    now = asked.runtime.storage.now()
    filters = Filters.of(query, now)
    cursor = Cursor.of(next((value for name, value in query if name == "cursor"), ""))
    with left_out() as refused:
        listed = list_runs(asked.runtime, filters, cursor)
    context = asked.context(
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
    return html(asked.look.page("runs.html", **context))


def run(asked: Asked) -> Response:
    """One run. The head of a long one is sent before its records are read: a browser shows it while the rest
    is made."""
    view = View.of(asked.query)
    whole = read_run(asked.runtime, asked.name)
    if whole is None:
        raise Refusal(404, "there is no such run")
    home = whole.run.workflow.rpartition(".")[0] + "."
    stem = view.query(step="-").removesuffix("-")
    context = asked.context(
        here="run",
        link=lambda key: stem + quote(key),
        whole=whole,
        run=whole.run,
        view=view,
        home=home,
        laid=Laid(whole, view, home),
        ended=is_final(whole.run.status),
        parts=parts,
        tags=tag_texts(whole.run),
        instant=instant,
    )
    pieces = asked.look.pieces("run.html", **context)
    return html_in_pieces(pieces) if whole.is_long else html("".join(pieces))


class Laid:
    """The steps of a run, laid out for *view* when the template first asks for them."""

    def __init__(self, whole: Whole, view: View, home: str) -> None:
        self._whole, self._view, self._home = whole, view, home

    @cached_property
    def line(self) -> Timeline:
        """All bars in time."""
        whole = self._whole
        children = {child.id: child for child, _ in whole.children}
        return timeline_of(whole.run, whole.status, whole.journal, now=whole.now, children=children)

    @cached_property
    def matching(self) -> Sequence[Bar]:
        """The bars that the filters let through."""
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
        return [row for row in parts.log_rows(self._whole) if row.key == chosen.step.key]

    @cached_property
    def calls(self) -> list[parts.Calls]:
        """Which step called which, how often."""
        return parts.calls_of(self._whole, self.line.bars)

    @property
    def graph(self) -> Graph | None:
        """The calls as a picture; ``None`` where one would say nothing more."""
        return graph_of(self.calls, self._whole.run.workflow, self._home)


def _matches(bar: Bar, view: View) -> bool:
    if view.failed_only and bar.status != "failed":
        return False
    return not view.name or view.name.casefold() in bar.step.path.casefold()


def offered(asked: Asked) -> Response:
    """The table of queues, schedules or workers."""
    kind = asked.name
    with left_out() as refused:
        rows = rows_of(asked.runtime, kind)
    columns = list(dict.fromkeys(name for row in rows for name in row.facts))
    context = asked.context(here=kind, kind=kind, rows=rows, columns=columns, refused=refused.values())
    return html(asked.look.page("offered.html", **context))


def static(asked: Asked) -> Response:
    """A static file; its name says what is in it, so it is kept for ever."""
    found = asked.look.static[asked.name]
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(found.body, headers=kept, media_type=found.media_type)
