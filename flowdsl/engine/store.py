"""The run store: state of one run, shared by its branches.

The rules
    Writes are ordered journal records, and the state is their fold. A write takes effect once: its record is
    keyed by where the call stands, method, arguments and occurrence, so a retried step or a replay finds it
    and gets its first result again. A read in the workflow's body is recorded like a value (a replay must see
    what the first run saw); a read inside a step is live.

The theory
    The storage gives each record its place in the order when it is committed. Whoever folds the records in
    that order, in this process or in a worker's, gets the same state, so concurrent increments need no lock
    beyond the storage's own.
"""

import copy
from typing import Any

from flowdsl.core.facts import Stored, facts_of
from flowdsl.core.journal import Decision, Verdict
from flowdsl.core.kinds import STORE, VALUE
from flowdsl.core.preview import preview
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.divergence import diverged
from flowdsl.engine.effects import Flow, Read, Result
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.marks import keyed, mark
from flowdsl.engine.step import StepCall, commit_for, decide, make_record, perform, view_of
from flowdsl.errors import Stopped, StorageError
from flowdsl.storage.base import PutStep

__all__ = ["Fold", "read", "state_of", "write"]


class _MISSING:
    """Stands for a key that is not there (a class, because copying leaves classes alone)."""


_MORE_NUMBERS = {("decimal", "Decimal"), ("fractions", "Fraction")}  # their modules take long to import


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float | complex):
        return not isinstance(value, bool)
    return any((cls.__module__, cls.__qualname__) in _MORE_NUMBERS for cls in type(value).__mro__)


class Fold:
    """The state that a run's store records make, and the result of each."""

    def __init__(self) -> None:
        self.seq = 0
        self.values: dict[str, Any] = {}
        self.results: dict[str, tuple[Exception | None, Any]] = {}

    def take(self, engine: Engine, step: Step) -> None:
        """Apply the next record."""
        self.seq = max(self.seq, step.seq)
        facts = facts_of(step) if step.kind == STORE and step.key not in self.results else None
        if not isinstance(facts, Stored):
            return
        item = (
            engine.payloads.unpack(step.payload, step.run_id, step.key, "store")
            if step.payload is not None
            else None
        )
        try:
            self.results[step.key] = None, self._apply(facts.op, facts.key, item)
        except (TypeError, ArithmeticError) as error:
            self.results[step.key] = error, None

    def _apply(self, op: str, key: str, item: Any) -> Any:
        old = self.values.get(key, _MISSING)
        if op == "set":
            self.values[key] = item
            return None
        if op == "delete":
            self.values.pop(key, None)
            return old is not _MISSING
        if op == "push":
            if old is _MISSING:
                old = self.values[key] = []
            if not isinstance(old, list):
                raise TypeError(
                    f"push appends to a list, but {key!r} holds {preview(old, 60)} ({type(old).__name__})"
                )
            old.append(item)
            return len(old)
        if not _is_number(0 if old is _MISSING else old):
            raise TypeError(
                f"increment adds to a number, but {key!r} holds {preview(old, 60)} ({type(old).__name__})"
            )
        self.values[key] = item if old is _MISSING else old + item
        return self.values[key]


def _catch_up(run: Execution) -> Fold:
    """Fold what was committed since the last look, by whomever. The caller holds the run's lock."""
    fold = run.part(Fold)
    for step in run.engine.storage.list_steps(run.id, after=fold.seq):
        fold.take(run.engine, step)
    return fold


def state_of(engine: Engine, run_id: str) -> dict[str, Any]:
    """The state of a run, from outside."""
    fold = Fold()
    for step in engine.storage.get_state(run_id):
        fold.take(engine, step)
    return fold.values


def _checked_key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of the run store is a string; got {key!r}")
    if not key:
        raise ValueError("a key of the run store is not empty")
    return key


def write(frame: Frame, op: str, key: str, item: Any = None) -> Flow:
    """Apply *op* (``set``, ``push``, ``increment``, ``delete``) once; its result."""
    _checked_key(key)
    if op == "increment" and not _is_number(item):
        raise TypeError(f"increment adds a number; got {item!r}")
    shown = repr(key) if op == "delete" else f"{key!r}, {preview(item, 150)}"
    call = mark(frame, f"store.{op}", STORE, keyed(key, item), shown)
    payload = None
    if op != "delete":
        payload, _ = frame.run.engine.payloads.pack(item, frame.run.id, call.key, "store")
    return perform(call, lambda call: _write(call, op, key, payload))


def _write(call: StepCall, op: str, key: str, payload: bytes | None) -> Flow:
    run = call.run
    if run.journal.get(call.key) is None:
        if call.frame.step is None:
            decision = run.journal.decide(
                call.key, call.scope.id, call.defn.path, call.ordinal, sequential=not call.concurrent
            )
            if decision.record is not None:
                decision = yield from diverged(call, decision)
                if decision.verdict is Verdict.RECORDED and decision.record is not None:
                    return (yield from _first_result(run, decision.record.key))
        view = view_of(call, 1)
        record = make_record(call, view, StepStatus.COMPLETED, payload, "", 1, Stored(op, key))
        yield from commit_for(run, call, PutStep(record, run.epoch, True))
        with run.lock:
            run.journal.add(record)
    else:
        run.journal.use(call.key)
    return (yield from _first_result(run, call.key))


def _first_result(run: Execution, key: str) -> Flow:
    found: Result = yield Read(lambda: _result(run, key), not run.engine.storage.inline)
    return found


def _result(run: Execution, key: str) -> tuple[Exception | None, Any]:
    with run.lock:
        fold = _catch_up(run)
        if key not in fold.results:
            raise StorageError(
                f"a store operation of run {run.id} is recorded and cannot be read: the storage is damaged",
                run=run.id,
                step=key,
            )
        error, value = fold.results[key]
        return (None if error is None else type(error)(*error.args)), copy.deepcopy(value)


def read(frame: Frame, op: str, key: str | None = None, default: Any = None) -> Flow:
    """``get`` one key or all ``items``: live inside a step, recorded in the workflow's body."""
    if key is not None:
        _checked_key(key)
    if frame.step is not None:
        if frame.abandoned:
            raise Stopped(StorageError("a body that a timeout left behind read the run store"))
        frame.run.stop.check()
        return _live(frame.run, key, default)
    call = mark(frame, f"store.{op}", VALUE, keyed(key), "" if key is None else repr(key))
    return perform(call, lambda call: _read(call, key, default))


def _look(run: Execution, key: str | None, default: Any) -> Any:
    with run.lock:
        values = _catch_up(run).values
        return copy.deepcopy(dict(values) if key is None else values.get(key, default))


def _live(run: Execution, key: str | None, default: Any) -> Flow:
    return None, (yield Read(lambda: _look(run, key, default), not run.engine.storage.inline))


def _read(call: StepCall, key: str | None, default: Any) -> Flow:
    run = call.run
    found = yield from decide(call)
    if not isinstance(found, Decision):
        error, boxed = found
        if error is not None:
            return error, None
        return None, (default if not boxed else boxed[0])
    _, value = yield from _live(run, key, _MISSING)
    boxed = [] if value is _MISSING else [value]
    payload, loaded = run.engine.payloads.pack(boxed, run.id, call.key, "result")
    view = view_of(call, 1)
    record = make_record(call, view, StepStatus.COMPLETED, payload, preview(loaded[0]) if loaded else "", 1)
    run.writer.keep(record)
    return None, (default if not loaded else loaded[0])
