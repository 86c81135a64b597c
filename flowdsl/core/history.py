"""A run as a JSON document: readable, complete, and in a form that is made to last.

The document has a format and its version, the run, its journal in recorded order, and its signals. Fields
have the names that :mod:`flowdsl.core.records` gives them, except that sealed payloads are text in base64.
Times are ISO 8601 in UTC. Empty fields are left out. So are the run's owner, the ends of leases, and the
storage's numbering. Therefore two exports of one run are equal, at any time and from any storage.

A payload is sealed for its run and its step. It can be loaded again (with the same ``FLOWDSL_SECRET_KEY``, if
there was one), and is of no use anywhere else. Exporting loads no payload, and neither does
:func:`read_export`.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, get_type_hints

from attrs import frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.records import Run, Signal, Step, fields_of
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.errors import CorruptPayload, SchemaMismatch

__all__ = ["FORMAT", "VERSION", "History", "export_run", "read_export"]

FORMAT = "flowdsl history"
VERSION = 1
"""Raised if a reader of the previous version would misunderstand a document. New fields do not raise it."""

_OF_THE_STORAGE = frozenset({"owner", "epoch", "lease_until", "recoveries", "pruned", "floor", "seq"})
_MOMENTS = frozenset({"created_at", "finished_at", "completed_at", "deadline", "cancel_requested"})
_STATUSES: dict[type, type] = {Run: RunStatus, Step: StepStatus}

Row = TypeVar("Row", Run, Step, Signal)


@frozen(slots=True, eq=False, repr=False)
class History(ByFields):
    """The records of an export. Nobody owns the run. Steps are numbered from 1, in order."""

    run: Run
    steps: tuple[Step, ...]
    signals: tuple[Signal, ...]


def export_run(run: Run, steps: Sequence[Step], signals: Sequence[Signal]) -> dict[str, Any]:
    """The document of a run.

    >>> document = export_run(Run("order-7", "shop.checkout", "ab12", args=b"sealed"), [], [])
    >>> document["run"]["workflow"], document["run"]["args"]
    ('shop.checkout', 'c2VhbGVk')
    """
    below = sum(step.seq < run.floor for step in steps)
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": _written(run) | ({"floor": below} if below else {}),
        "steps": [_written(step, without="run_id") for step in steps],
        "signals": [_written(signal, without="run_id") for signal in signals],
    }


def read_export(document: Any) -> History:
    """The records of a document that :func:`export_run` made.

    Raises ``ValueError`` for anything else, :class:`~flowdsl.errors.SchemaMismatch` for a document of a newer
    version, and :class:`~flowdsl.errors.CorruptPayload` for a payload that is not base64.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError(f"this is no {FORMAT}: `flowdsl export RUN` and Runtime.export(id) make them")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise SchemaMismatch(
            f"the history has version {version!r}, and this flowdsl reads up to {VERSION}: upgrade it",
            found=version,
            supported=VERSION,
        )
    try:
        written = dict(document["run"])
        below = written.get("floor", 0)  # the storage's numbers mean nothing elsewhere: it counts records
        written["floor"] = below + 1 if below else 0
        run = _read(Run, written)
        rest = {"run_id": run.id}
        steps = [_read(Step, one, rest | {"seq": n}) for n, one in enumerate(document["steps"], 1)]
        signals = [_read(Signal, one, rest | {"seq": n}) for n, one in enumerate(document["signals"], 1)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the history lacks what it needs: {type(error).__name__}: {error}") from error
    return History(run, tuple(steps), tuple(signals))


def _written(row: Run | Step | Signal, without: str = "") -> dict[str, Any]:
    """The fields of a record that are not empty."""
    found: dict[str, Any] = {}
    for name, default in fields_of(type(row)).items():
        value = getattr(row, name)
        if name in _OF_THE_STORAGE or name == without:
            continue
        empty = value is False or (not value and not isinstance(value, int | float))
        if empty and value == default:
            continue
        found[name] = _plain(name, value)
    return found


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if name in _MOMENTS:
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="microseconds")
    if name == "extra":
        return _structured(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, RunStatus | StepStatus) else value


def _structured(text: str) -> Any:
    """The JSON of a record as values, if writing them gives the same text. Otherwise the text."""
    try:
        found = json.loads(text, parse_constant=_refused)
    except ValueError:
        return text
    return found if isinstance(found, dict) and json.dumps(found) == text else text


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _read(kind: type[Row], written: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Row:
    hints = get_type_hints(kind)
    known = fields_of(kind)
    given = {name: _value(name, value, hints[name]) for name, value in written.items() if name in known}
    if "status" in given:
        given["status"] = _STATUSES[kind](given["status"])
    return kind(**{**given, **(more or {})})


def _value(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str):
        if hint in (bytes, bytes | None):
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise CorruptPayload(f"the payload {name!r} of the history is not base64: {error}") from error
        return datetime.fromisoformat(value).timestamp() if name in _MOMENTS else value
    if name == "extra":
        return json.dumps(value)
    return tuple(value) if isinstance(value, list) else value
