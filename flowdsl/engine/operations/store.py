"""The run store: state of one run, shared by its branches.

The rules
    Writes are ordered journal records, and the state is their fold. A write takes effect once. Its record has
    a key of the call's place, method, arguments and occurrence. So a retried step or a replay finds the
    record and gets the first result again. A read in the workflow's body is recorded like a value, because a
    replay must see what the first run saw. A read inside a step is live.

The theory
    The storage gives each record its place in the order when it commits it. Folding the records in that order
    gives the same state in this process and in a worker's. So concurrent increments need no lock but the
    storage's own.
"""

import copy
import threading

from flowdsl.core.facts import Stored, facts_of
from flowdsl.core.kinds import STORE, VALUE
from flowdsl.core.preview import preview
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation, identify, keyed
from flowdsl.engine.effects import Flow, Read, Result
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.perform import durable, perform
from flowdsl.engine.record import keep, put, replay, row
from flowdsl.engine.user import Named, Value
from flowdsl.errors import Stopped, StorageError

__all__ = ["Fold", "read", "state_of", "write"]


class _MISSING:
    """Means that a key is missing. It is a class, because copying leaves classes alone."""


_MORE_NUMBERS = {("decimal", "Decimal"), ("fractions", "Fraction")}  # their modules take long to import


def _is_number(value: Value) -> bool:
    if isinstance(value, int | float | complex):
        return not isinstance(value, bool)
    return any((cls.__module__, cls.__qualname__) in _MORE_NUMBERS for cls in type(value).__mro__)


class Fold:
    """The state that a run's store records make, and the result of each. It has its own lock, so that nobody
    reads a storage under the lock of the run."""

    def __init__(self) -> None:
        self.values: Named = {}
        self._seq = 0
        self._results: dict[str, tuple[Exception | None, Value]] = {}
        self._lock = threading.Lock()

    def take(self, engine: Engine, step: Step) -> None:
        """Apply the next record."""
        self._seq = max(self._seq, step.seq)
        facts = facts_of(step) if step.kind == STORE and step.key not in self._results else None
        if not isinstance(facts, Stored):
            return
        item = None
        if step.payload is not None:
            item = engine.payloads.unpack(step.payload, step.run_id, step.key, "store")
        try:
            self._results[step.key] = None, self._apply(facts.op, facts.key, item)
        except (TypeError, ArithmeticError) as error:
            self._results[step.key] = error, None

    def result(self, run: Execution, key: str) -> Result:
        """The first result of the operation with this key."""
        with self._lock:
            self._catch_up(run)
            if key not in self._results:
                raise StorageError(
                    f"a store operation of run {run.id} is recorded and cannot be read: the storage is "
                    "damaged",
                    run=run.id,
                    step=key,
                )
            error, value = self._results[key]
            return (None if error is None else type(error)(*error.args)), copy.deepcopy(value)

    def look(self, run: Execution, key: str | None, default: Value) -> Value:
        """A copy of the present value of one key, or of everything."""
        with self._lock:
            self._catch_up(run)
            return copy.deepcopy(dict(self.values) if key is None else self.values.get(key, default))

    def _catch_up(self, run: Execution) -> None:
        """Fold what was committed since the last look, by anybody."""
        for step in run.engine.storage.list_steps(run.id, after=self._seq):
            self.take(run.engine, step)

    def _apply(self, op: str, key: str, item: Value) -> Value:
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


def state_of(engine: Engine, run_id: str) -> Named:
    """The state of a run, from outside."""
    fold = Fold()
    for step in engine.storage.get_state(run_id):
        fold.take(engine, step)
    return fold.values


class StoreWrite(Operation):
    """Apply *op* (``set``, ``push``, ``increment``, ``delete``) to *key*, once."""

    __slots__ = ("_item", "_key", "_op", "_payload", "canonical", "path")

    kind = STORE

    def __init__(self, op: str, key: str, item: Value) -> None:
        self.path = f"flowdsl.store.{op}"
        self.canonical = keyed(key, item)
        self._op = op
        self._key = key
        self._item = item
        self._payload: bytes | None = None

    def preview(self, limit: int = 200) -> str:
        return repr(self._key) if self._op == "delete" else f"{self._key!r}, {preview(self._item, 150)}"

    def pack(self, call: Call) -> None:
        """Store the item as it is at the time of the call."""
        if self._op != "delete":
            self._payload, _ = call.run.engine.payloads.pack(self._item, call.run.id, call.key, "store")

    def execute(self, call: Call, prior: Step | None) -> Flow:
        previews = call.run.engine.payloads.previews
        text = "" if self._op == "delete" else previews.value(self._item)
        yield from put(
            call, row(call, StepStatus.COMPLETED, self._payload, text, 1, Stored(self._op, self._key))
        )
        return (yield from _first_result(call.run, call.key))

    def answer(self, call: Call, record: Step) -> Flow:
        return _first_result(call.run, record.key)


def _first_result(run: Execution, key: str) -> Flow:
    found: Result = yield Read(run.engine.storage, lambda: run.part(Fold).result(run, key))
    return found


class StoreRead(Operation):
    """Look at one *key*, or at everything, in the body of a workflow. The record is a list of what was found.
    It is empty if nothing was found, so the default may change later."""

    __slots__ = ("_default", "_key", "canonical", "path")

    kind = VALUE
    durable = False

    def __init__(self, op: str, key: str | None, default: Value) -> None:
        self.path = f"flowdsl.store.{op}"
        self.canonical = keyed(key)
        self._key = key
        self._default = default

    def preview(self, limit: int = 200) -> str:
        return "" if self._key is None else repr(self._key)[:limit]

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        _, value = yield from _live(run, self._key, _MISSING)
        boxed = [] if value is _MISSING else [value]
        payload, loaded = run.engine.payloads.pack(boxed, run.id, call.key, "result")
        keep(call, payload, run.engine.payloads.previews.value(loaded[0]) if loaded else "")
        return None, (loaded[0] if loaded else self._default)

    def answer(self, call: Call, record: Step) -> Flow:
        error, boxed = replay(call, record)
        return error, (boxed[0] if boxed else self._default)
        yield  # a generator like the others, although it waits for nothing


def _live(run: Execution, key: str | None, default: Value) -> Flow:
    return None, (yield Read(run.engine.storage, lambda: run.part(Fold).look(run, key, default)))


def write(frame: Frame, op: str, key: str, item: Value = None) -> Flow:
    """Apply *op* to *key*. Gives its result."""
    _checked_key(key)
    if op == "increment" and not _is_number(item):
        raise TypeError(f"increment adds a number; got {item!r}")
    operation = StoreWrite(op, key, item)
    call = identify(frame, operation)
    operation.pack(call)
    return perform(call)


def read(frame: Frame, op: str, key: str | None = None, default: Value = None) -> Flow:
    """``get`` one key or all ``items``: live inside a step, recorded in the workflow's body."""
    if key is not None:
        _checked_key(key)
    if frame.step is None:
        return durable(frame, StoreRead(op, key, default))
    if frame.abandoned:
        raise Stopped(StorageError("a body that a timeout left behind read the run store"))
    frame.run.stop.check(replays=True)
    return _live(frame.run, key, default)


def _checked_key(key: Value) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of the run store is a string; got {key!r}")
    if not key:
        raise ValueError("a key of the run store is not empty")
    return key
