"""The JSON API. It gives the same documents as the command line."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from flowdsl.core.advice import advice
from flowdsl.core.kinds import BESIDE_STEPS
from flowdsl.core.views import run_view, show_view
from flowdsl.storage.left_out import left_out
from flowdsl.web.answers import Refusal, json_response, refused_text
from flowdsl.web.page_request import PageRequest
from flowdsl.web.query import Cursor, Filters, number
from flowdsl.web.reading import list_runs, read_run

__all__ = ["LAST_SEQ", "history", "run", "run_document", "runs"]

LAST_SEQ = (1 << 62) - 1


def runs(request: PageRequest) -> Response:
    """A page of the list."""
    query = request.query
    filters = Filters.of(query, request.runtime.storage.now())
    cursor = Cursor.of(next((value for name, value in query if name == "cursor"), ""))
    with left_out() as refused:
        listed = list_runs(request.runtime, filters, cursor)
    following = None if listed.next is None else str(listed.next)
    document = {"runs": [run_view(row, status) for row, status in listed.rows], "next": following}
    return json_response({**document, "refused": [refused_text(error) for error in refused.values()]})


def run(request: PageRequest) -> Response:
    """One run, as ``flowdsl show --json`` prints it."""
    return json_response(run_document(request, request.name))


def run_document(request: PageRequest, run_id: str) -> dict[str, Any]:
    """The document of a run. ``steps_after`` and ``limit`` of the query choose its steps."""
    after = number(request.query, "steps_after", 0, LAST_SEQ, 0)
    limit = number(request.query, "limit", LAST_SEQ, LAST_SEQ)
    details = read_run(request.runtime, run_id)
    if details is None:
        raise Refusal(404, "there is no such run")
    document = show_view(details.run, details.status, details.journal, details.children, details.signals)
    document["steps"] = [step for step in document["steps"] if step["seq"] > after][:limit]
    for kind in BESIDE_STEPS:
        document[kind] = [step for step in document[kind] if step["seq"] > after]
    if "next" not in document:
        document["next"] = advice(details.run, details.status, details.journal)
    return document


def history(request: PageRequest) -> Response:
    """All records of a run, as ``flowdsl export`` prints them, to be saved as a file."""
    document = request.runtime.export(request.name)
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in request.name
    )
    name = f"{plain[:80].strip('_') or 'run'}.json"
    return json_response(document, headers={"Content-Disposition": f'attachment; filename="{quote(name)}"'})
