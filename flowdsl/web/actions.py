"""What a person can do to a run, a queue or a schedule from the page."""

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
from flowdsl.web.answers import Refusal, json_response, see_other
from flowdsl.web.asked import Asked
from flowdsl.web.offers import change
from flowdsl.web.reading import shown_status

__all__ = ["OF_KINDS", "OF_RUNS", "of_offered", "of_run"]


def of_run(asked: Asked) -> Response:
    """Do it, then on to the run."""
    if not asked.name or asked.runtime.run(asked.name) is None:
        raise Refusal(404, "there is no such run")
    try:
        with acting_as("web"):
            about = OF_RUNS[asked.action](asked)
    except (RunFinished, RunConflict) as error:
        raise Refusal(409, _said(error)) from error
    except (CorruptPayload, StorageUnavailable):
        raise
    except (ResultNotStorable, StorageError, ValueError, TypeError) as error:
        raise Refusal(400, f"this cannot be stored, or means nothing: {type(error).__name__}") from error
    if not asked.wants_json:
        return see_other(asked.path("runs", about))
    record = asked.runtime.storage.get_run(about)
    if record is None:
        raise Refusal(404, "there is no such run")
    return json_response(run_view(record, shown_status(asked.runtime, record)))


_STATES = {
    RunFinished: "the run has ended, so this cannot be done any more",
    RunConflict: "the state of the run forbids this, it is executing, or the new id is taken",
}


def _said(error: Exception) -> str:
    return next(text for kind, text in _STATES.items() if isinstance(error, kind))


def _cancel(asked: Asked) -> str:
    asked.runtime.cancel(asked.name)
    return asked.name


_NEEDS_CODE = "its code is not loaded here: serve the page with `flowdsl ui --app MODULE`"


def _retry(asked: Asked) -> str:
    try:
        asked.runtime.retry(asked.name)
    except StepNotFound as error:
        raise Refusal(409, _NEEDS_CODE) from error
    return asked.name


def _fork(asked: Asked) -> str:
    before = _field(asked, "before")
    return asked.runtime.fork(asked.name, before, id=asked.form.get("id") or None).id


def _signal(asked: Asked) -> str:
    payload = asked.form.get("payload", "").strip()
    value = _json(payload, "payload") if payload else None
    asked.runtime.signal(asked.name, _field(asked, "name"), value, sender="web")
    return asked.name


def _resolve(asked: Asked) -> str:
    step = _field(asked, "step")
    result, error, rerun = (asked.form.get(name, "") for name in ("result", "error", "rerun"))
    if sum(bool(given) for given in (result, error, rerun)) != 1:
        raise Refusal(400, "say one of result (JSON), error and rerun")
    if rerun:
        asked.runtime.resolve(asked.name, step, rerun=True)
    elif error:
        asked.runtime.resolve(asked.name, step, error=StepFailed(error, run=asked.name, step=step))
    else:
        asked.runtime.resolve(asked.name, step, result=_json(result, "result"))
    return asked.name


def _field(asked: Asked, name: str) -> str:
    found = asked.form.get(name, "").strip()
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


OF_RUNS: Mapping[str, Callable[[Asked], str]] = {
    "cancel": _cancel,
    "retry": _retry,
    "fork": _fork,
    "signal": _signal,
    "resolve": _resolve,
}
"""Action → what does it; each gives the id of the run to look at afterwards."""

OF_KINDS: Mapping[str, tuple[str, ...]] = {
    "queues": ("pause", "resume"),
    "schedules": ("pause", "resume", "trigger"),
}
"""Page → the actions of its rows."""


def of_offered(asked: Asked) -> Response:
    """Pause, resume or trigger, then back to the table."""
    kind, _, action = asked.action.partition("/")
    try:
        change(asked.runtime, kind, asked.name, action)
    except StepNotFound as error:
        raise Refusal(409, _NEEDS_CODE) from error
    except LookupError:
        raise Refusal(404, f"there is no such {kind.removesuffix('s')}") from None
    if asked.wants_json:
        return json_response({"name": asked.name, "action": action})
    return see_other(f"{asked.base}/{kind}")
