"""What one call of a workflow asks for: a run, and the body to execute."""

import string
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from flowdsl.core.binding import Bound, first_name
from flowdsl.core.keys import run_key
from flowdsl.core.preview import preview
from flowdsl.core.records import Run, Tags, changed
from flowdsl.core.status import RunStatus
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current
from flowdsl.engine.notebooks import notice_unnamed
from flowdsl.engine.user import Named, Value
from flowdsl.errors import FlowError, ResultNotStorable

__all__ = [
    "Request",
    "WorkflowOperation",
    "arguments_of",
    "checked_id",
    "derived_id",
    "request",
    "request_in",
    "row_of",
]


class Request(NamedTuple):
    """One call of a workflow: the run it asks for, and the body to execute. It *cleans_up* if the calling run
    was handling a cancel or a timeout when it made the call."""

    called: Invocation[WorkflowDef]
    wanted: Run
    fresh: bool = False
    ancestors: tuple[str, ...] = ()
    again: bool = True
    cleans_up: bool = False

    @property
    def defn(self) -> WorkflowDef:
        """The workflow."""
        return self.called.defn


_Fields: TypeAlias = tuple[Invocation[WorkflowDef], Run, bool, tuple[str, ...], bool, bool]

_request: Callable[[_Fields], Request] = partial(tuple.__new__, Request)
"""Made from all its fields. Much quicker, and each run makes one."""

_NEW = changed(Run(id="-", workflow="-", key="-"), {"status": RunStatus.RUNNING})
"""The row of a run that begins at once. Copying it is quicker than making one field by field. It is a copy
itself, because Python copies a dictionary at once only if it is not too large for what it holds."""


class WorkflowOperation(Operation):
    """A durable call that asks for a run of the workflow that is *called*. Its record looks like a step's:
    same name, same arguments."""

    __slots__ = ("bound", "called", "canonical", "defaults", "options", "path", "version")

    def __init__(self, called: Invocation[WorkflowDef], options: Named) -> None:
        self.called = called
        self.options = options
        self.bound = called.bind()
        self.canonical = self.bound.canonical
        self.defaults = self.bound.defaults
        self.path = called.defn.path
        self.version = called.defn.version

    def preview(self, limit: int = 200) -> str:
        return self.bound.preview(limit)


class _Template(string.Formatter):
    """``str.format`` that refuses ``None``."""

    def get_field(self, field_name: str, args: Value, kwargs: Value) -> Value:
        value, used = super().get_field(field_name, args, kwargs)
        if value is None:
            raise ValueError(f"{{{field_name}}} is None")
        return value, used


def _filled(template: str, arguments: Named) -> str:
    """*template*, filled with the arguments. Without a dot or an index in it, only an argument itself can be
    ``None``."""
    if "." in template or "[" in template or any(value is None for value in arguments.values()):
        return _Template().vformat(template, (), arguments)
    return template.format_map(arguments)


def run_id_of(called: Invocation[WorkflowDef], arguments: Named) -> str | None:
    """The id that the workflow's ``id=`` gives to this call, or ``None`` for a numbered run.

    A template may name ``self``. A function gets it if its own first parameter has the workflow's name for
    it.
    """
    defn, _, receiver, args, kwargs = called
    if defn.id is None:
        return None
    first = "" if receiver is None else first_name(defn.fn)
    if callable(defn.id):
        own = (receiver,) if first and first_name(defn.id) == first else ()
        found = defn.id(*own, *args, **kwargs)
    else:
        if first:
            arguments = {first: receiver, **arguments}
        try:
            found = _filled(defn.id, arguments)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(
                f"the id template {defn.id!r} of workflow {defn.path} cannot be filled from "
                f"({', '.join(f'{k}={preview(v, 40)}' for k, v in arguments.items())}): {error}"
            ) from None
    return checked_id(found, f"the id of workflow {defn.path}")


def checked_id(run_id: Value, what: str = "a run id") -> str:
    """*run_id* if it is a non-empty string."""
    if not isinstance(run_id, str):
        raise TypeError(f"{what} is a string; got {run_id!r}")
    if not run_id.strip():
        raise ValueError(f"{what} is not empty; got {run_id!r}")
    return run_id


def request(
    engine: Engine,
    called: Invocation[WorkflowDef],
    *,
    run_id: str | None = None,
    timeout: float | None = None,
    fresh: bool = False,
    tags: Tags | None = None,
) -> Request:
    """Give a call of a workflow its identity. Raises for arguments that do not fit or have no key."""
    wanted = row_of(engine, called, called.bind(), run_id, timeout, fresh, tags)
    return _request((called, wanted, fresh, _ancestors(), True, False))


def row_of(
    engine: Engine,
    called: Invocation[WorkflowDef],
    bound: Bound,
    run_id: str | None = None,
    timeout: float | None = None,
    fresh: bool = False,
    tags: Tags | None = None,
    *,
    derived: str = "",
    also: Named | None = None,
) -> Run:
    """The row of the run that a call asks for. *bound* are its arguments. A run without an id gets the
    *derived* one, if there is one, and a number otherwise. *also* are further fields."""
    defn = called.defn
    arguments = bound.arguments
    if run_id is None and defn.id is not None:
        run_id = run_id_of(called, arguments)
    if fresh and run_id is not None:
        raise ValueError(
            f"fresh=True starts a new number, but run {run_id!r} has an id, and an id is one run for ever"
        )
    notice_unnamed(defn.path, run_id)
    key = run_key(defn.path, defn.version if run_id is None else "", bound.canonical)
    now = engine.clock.now()
    limit = timeout if timeout is not None else defn.timeout
    try:
        stored = engine.payloads.pack_arguments(arguments, key)
    except ResultNotStorable:
        stored = b""  # it can be called again, but not resumed by id
    fields = {
        "id": run_id or derived or f"{_last_name(defn.path)}-{key[:16]}",
        "workflow": defn.path,
        "key": key,
        "number": None if run_id or derived else 0,
        "args": stored,
        "args_preview": bound.preview() if engine.payloads.previews.shown else "",
        "tags": defn.tags if tags is None else tags,
        "created_at": now,
        "owner": engine.owned.owner,
        "deadline": None if limit is None else now + limit,
        "version": defn.version,
    }
    return changed(_NEW, fields | also if also else fields)


@lru_cache
def _last_name(path: str) -> str:
    return path.rpartition(".")[2].replace("<", "").replace(">", "")


def _ancestors() -> tuple[str, ...]:
    """Ids of the runs whose bodies execute here, the innermost first."""
    frame = current.get()
    if frame is None:
        return ()
    state: Execution | None = frame.run
    found: list[str] = []
    while state is not None:
        found.append(state.id)
        state = state.parent
    return tuple(found)


def request_in(
    call: Call,
    called: Invocation[WorkflowDef],
    bound: Bound,
    options: Named,
    also: Named,
    *,
    again: bool = True,
    ancestors: bool = True,
) -> Request:
    """What *call* of a run asks for; *also* are further fields of the run. Without *ancestors*, the caller
    does not wait for it."""
    wanted = row_of(call.run.engine, called, bound, **options, derived=derived_id(call), also=also)
    waiting = _ancestors() if ancestors else ()
    return _request((called, wanted, False, waiting, again, call.cleans_up))


def derived_id(call: Call) -> str:
    """The id of a run that *call* asks for, if nobody gives one. So one call has one run, whatever
    crashes."""
    again = f"~{call.generation}" if call.generation else ""
    return f"{call.run.origin}/{call.key[:16]}{again}"


def arguments_of(engine: Engine, record: Run) -> Named:
    """The stored arguments of a run by parameter name."""
    if not record.args:
        raise FlowError(
            f"the arguments of run {record.id} could not be stored; call the workflow again with them",
            run=record.id,
        )
    found: Named = engine.payloads.unpack(record.args, record.key, "", "args", record.id)
    return found
