"""The pages: the list of runs, one run, and the tables of queues, schedules and workers."""

from collections.abc import Sequence
from urllib.parse import quote

from starlette.responses import Response

from flowdsl.core.status import is_final
from flowdsl.core.timeline import Bar, timeline_of
from flowdsl.core.views import tag_texts
from flowdsl.core.words import instant
from flowdsl.web import parts
from flowdsl.web.answers import Refusal, html
from flowdsl.web.asked import Asked
from flowdsl.web.drawing import MOST, picture
from flowdsl.web.graph import graph_of
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
    listed = list_runs(asked.runtime, filters, cursor)
    context = asked.context(
        here="runs",
        filters=filters,
        listed=listed,
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
    """One run."""
    view = View.of(asked.query)
    whole = read_run(asked.runtime, asked.name)
    if whole is None:
        raise Refusal(404, "there is no such run")
    line = timeline_of(
        whole.run,
        whole.status,
        whole.journal,
        now=whole.now,
        children={child.id: child for child, _ in whole.children},
    )
    matching = [bar for bar in line.bars if _matches(bar, view)]
    home = whole.run.workflow.rpartition(".")[0] + "."
    rows, page, last = _page_of(matching, view.page)
    chosen = next((bar for bar in line.bars if bar.step.key == view.step), None)
    calls = parts.calls_of(whole, line.bars)
    stem = view.query(step="-").removesuffix("-")
    context = asked.context(
        here="run",
        link=lambda key: stem + quote(key),
        whole=whole,
        run=whole.run,
        view=view,
        home=home,
        line=line,
        picture=picture(line, matching, view, home),
        matching=len(matching),
        rows=rows,
        page=page,
        last_page=last,
        detail=chosen,
        detail_logs=_logs_of(whole, chosen),
        depth_most=max((bar.depth for bar in rows), default=0),
        ended=is_final(whole.run.status),
        calls=calls,
        graph=graph_of(calls, whole.run.workflow, home),
        parts=parts,
        tags=tag_texts(whole.run),
        instant=instant,
    )
    return html(asked.look.page("run.html", **context))


def _matches(bar: Bar, view: View) -> bool:
    if view.failed_only and bar.status != "failed":
        return False
    return not view.name or view.name.casefold() in bar.step.path.casefold()


def _page_of(bars: Sequence[Bar], page: int) -> tuple[Sequence[Bar], int, int]:
    """The rows of this page of the table, its number, and that of the last one."""
    last = max(-(-len(bars) // MOST), 1)
    page = min(page, last)
    return bars[(page - 1) * MOST : page * MOST], page, last


def _logs_of(whole: Whole, chosen: Bar | None) -> list[parts.LogRow]:
    return [row for row in parts.log_rows(whole) if row.key == chosen.step.key] if chosen is not None else []


def offered(asked: Asked) -> Response:
    """The table of queues, schedules or workers."""
    kind = asked.name
    rows = rows_of(asked.runtime, kind)
    columns = list(dict.fromkeys(name for row in rows for name in row.facts))
    context = asked.context(here=kind, kind=kind, rows=rows, columns=columns)
    return html(asked.look.page("offered.html", **context))


def static(asked: Asked) -> Response:
    """A static file; its name says what is in it, so it is kept for ever."""
    found = asked.look.static[asked.name]
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(found.body, headers=kept, media_type=found.media_type)
