"""The JSON API: the documents of the command line."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from flowdsl.core.advice import advice
from flowdsl.core.kinds import BESIDE_STEPS
from flowdsl.core.views import run_view, show_view
from flowdsl.storage.refused import left_out
from flowdsl.web.answers import Refusal, json_response, refused_text
from flowdsl.web.asked import Asked
from flowdsl.web.query import Cursor, Filters, number
from flowdsl.web.reading import list_runs, read_run

__all__ = ["LAST_SEQ", "history", "run", "run_document", "runs"]

LAST_SEQ = (1 << 62) - 1


def runs(asked: Asked) -> Response:
    """A page of the list."""
    query = asked.query
    filters = Filters.of(query, asked.runtime.storage.now())
    cursor = Cursor.of(next((value for name, value in query if name == "cursor"), ""))
    with left_out() as refused:
        listed = list_runs(asked.runtime, filters, cursor)
    following = None if listed.next is None else str(listed.next)
    document = {"runs": [run_view(row, status) for row, status in listed.rows], "next": following}
    return json_response({**document, "refused": [refused_text(error) for error in refused.values()]})


def run(asked: Asked) -> Response:
    """One run, as ``flowdsl show --json`` prints it."""
    return json_response(run_document(asked, asked.name))


def run_document(asked: Asked, run_id: str) -> dict[str, Any]:
    """The document of a run; ``steps_after`` and ``limit`` of the query say which of its steps."""
    after = number(asked.query, "steps_after", 0, LAST_SEQ, 0)
    limit = number(asked.query, "limit", LAST_SEQ, LAST_SEQ)
    whole = read_run(asked.runtime, run_id)
    if whole is None:
        raise Refusal(404, "there is no such run")
    document = show_view(whole.run, whole.status, whole.journal, whole.children, whole.signals)
    document["steps"] = [step for step in document["steps"] if step["seq"] > after][:limit]
    for kind in BESIDE_STEPS:
        document[kind] = [step for step in document[kind] if step["seq"] > after]
    if "next" not in document:
        document["next"] = advice(whole.run, whole.status, whole.journal)
    return document


def history(asked: Asked) -> Response:
    """All that is recorded of a run, as ``flowdsl export`` prints it, to be saved as a file."""
    document = asked.runtime.export(asked.name)
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in asked.name
    )
    name = f"{plain[:80].strip('_') or 'run'}.json"
    return json_response(document, headers={"Content-Disposition": f'attachment; filename="{quote(name)}"'})
