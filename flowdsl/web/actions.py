"""Actions on runs, queues and schedules from the page."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from flowdsl.acting import acting_as
from flowdsl.core.views import run_view
from flowdsl.errors import (
    CorruptPayload,
    ResultNotStorable,
    RunConflict,
    RunFinished,
    StepFailed,
    StepNotFound,
    StorageError,
    StorageUnavailable,
)
from flowdsl.handle import shown_status
from flowdsl.web.answers import Refusal, json_response, see_other
from flowdsl.web.page_request import PageRequest
from flowdsl.web.tables import change

__all__ = ["OF_KINDS", "OF_RUNS", "act_on_row", "act_on_run"]


def act_on_run(request: PageRequest) -> Response:
    """Do the action, then redirect to the run."""
    if not request.name or request.runtime.run(request.name) is None:
        raise Refusal(404, "there is no such run")
    try:
        with acting_as("web"):
            about = OF_RUNS[request.action](request)
    except (RunFinished, RunConflict) as error:
        raise Refusal(409, _said(error)) from error
    except (CorruptPayload, StorageUnavailable):
        raise
    except (ResultNotStorable, StorageError, ValueError, TypeError) as error:
        raise Refusal(400, f"this value cannot be stored or used: {type(error).__name__}") from error
    if not request.wants_json:
        return see_other(request.path("runs", about))
    record = request.runtime.storage.get_run(about)
    if record is None:
        raise Refusal(404, "there is no such run")
    return json_response(run_view(record, shown_status(request.runtime.storage, record)))


_STATES = {
    RunFinished: "the run has ended, so this cannot be done any more",
    RunConflict: "the state of the run forbids this, it is executing, or the new id is taken",
}


def _said(error: Exception) -> str:
    return next(text for kind, text in _STATES.items() if isinstance(error, kind))


def _cancel(request: PageRequest) -> str:
    request.runtime.cancel(request.name)
    return request.name


_NEEDS_CODE = "its code is not loaded here: serve the page with `flowdsl ui --app MODULE`"


def _retry(request: PageRequest) -> str:
    try:
        request.runtime.retry(request.name)
    except StepNotFound as error:
        raise Refusal(409, _NEEDS_CODE) from error
    return request.name


def _fork(request: PageRequest) -> str:
    before = _field(request, "before")
    return request.runtime.fork(request.name, before, id=request.form.get("id") or None).id


def _signal(request: PageRequest) -> str:
    payload = request.form.get("payload", "").strip()
    value = _json(payload, "payload") if payload else None
    request.runtime.signal(request.name, _field(request, "name"), value, sender="web")
    return request.name


def _resolve(request: PageRequest) -> str:
    step = _field(request, "step")
    result, error, rerun = (request.form.get(name, "") for name in ("result", "error", "rerun"))
    if sum(bool(given) for given in (result, error, rerun)) != 1:
        raise Refusal(400, "say one of result (JSON), error and rerun")
    if rerun:
        request.runtime.resolve(request.name, step, rerun=True)
    elif error:
        request.runtime.resolve(request.name, step, error=StepFailed(error, run=request.name, step=step))
    else:
        request.runtime.resolve(request.name, step, result=_json(result, "result"))
    return request.name


def _field(request: PageRequest, name: str) -> str:
    found = request.form.get(name, "").strip()
    if not found:
        raise Refusal(400, f"the field {name} is missing")
    return found


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise Refusal(400, f'{name} is JSON; a text is in double quotes: "like this"') from None


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


OF_RUNS: Mapping[str, Callable[[PageRequest], str]] = {
    "cancel": _cancel,
    "retry": _retry,
    "fork": _fork,
    "signal": _signal,
    "resolve": _resolve,
}
"""The function of each action. It returns the id of the run to show afterwards."""

OF_KINDS: Mapping[str, tuple[str, ...]] = {
    "queues": ("pause", "resume"),
    "schedules": ("pause", "resume", "trigger"),
}
"""The actions of the rows of each table."""


def act_on_row(request: PageRequest) -> Response:
    """Pause, resume or trigger, then redirect to the table."""
    kind, _, action = request.action.partition("/")
    try:
        change(request.runtime, kind, request.name, action)
    except StepNotFound as error:
        raise Refusal(409, _NEEDS_CODE) from error
    except LookupError:
        raise Refusal(404, f"there is no such {kind.removesuffix('s')}") from None
    if request.wants_json:
        return json_response({"name": request.name, "action": action})
    return see_other(f"{request.base}/{kind}")
