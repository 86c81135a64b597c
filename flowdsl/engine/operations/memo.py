"""Results that are shared by all runs: ``memo=True``, and the runs that ``Runtime.do`` makes of a step.

Both use the key that a first such call in a run has. Defaults are no part of it, so a new optional parameter
changes no key. The defaults are stored beside the result. If one has changed, that is a miss. The new result
is stored under the same key with a number.
"""

from collections.abc import Iterator
from itertools import count, takewhile

from flowdsl.core.binding import Binder, Bound, changed_defaults
from flowdsl.core.facts import FromMemo
from flowdsl.core.keys import content_digest, step_key
from flowdsl.core.records import Memo, Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.divergence import notice
from flowdsl.engine.effects import Effects, Flow, Read
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution
from flowdsl.engine.record import put, replay, row
from flowdsl.engine.user import Value
from flowdsl.errors import UnkeyableArgument
from flowdsl.storage.base import DeleteRun, DropMemo, Operation

__all__ = [
    "answer_with",
    "find_memo",
    "forgetting",
    "implied",
    "memo_key",
    "memo_of",
    "require_identity",
    "shared",
]


def memo_key(defn: StepDef, bound: Bound) -> str:
    """The key that a first such call in a run has."""
    return step_key(content_digest("", defn.path, defn.version, bound.canonical), 0)


def memo_of(run: Execution, defn: StepDef, key: str, record: Step, payload: bytes) -> Memo:
    """The record that shares the result of a step with other runs, under *key*."""
    body = run.engine.payloads.reseal(payload, (run.id, record.key, "result"), ("", key, "memo"))
    now = record.completed_at or 0.0
    expires = None if defn.expires is None else now + defn.expires
    return Memo(key, defn.path, body, record.preview, now, expires, record.defaults)


def find_memo(
    run: Execution, defn: StepDef, receiver: Value, bound: Bound
) -> Effects[tuple[str, Memo | None]]:
    """The key of the shared result of a call, and that result if a valid one exists."""
    engine = run.engine
    require_identity(defn.binder(receiver is not None), receiver, "memo=True")
    found: tuple[str, Memo | None]
    found = yield Read(engine.storage, lambda: shared(engine, defn, bound))
    key, memo = found
    if memo is not None and memo.expires_at is not None and memo.expires_at <= engine.clock.now():
        memo = None
    return key, memo


def answer_with(call: Call, memo: Memo) -> Flow:
    """Copy the shared result *memo* into the run of *call*, and answer the call with it."""
    run, operation = call.run, call.operation
    notice(run, memo.path, memo.defaults, operation.defaults)
    payloads = run.engine.payloads
    payload = payloads.reseal(memo.payload, ("", memo.key, "memo"), (run.id, call.key, "result"))
    record = row(call, StepStatus.COMPLETED, payload, memo.preview, 0, FromMemo())
    yield from put(call, record)
    return replay(call, record)


def shared(engine: Engine, defn: StepDef, bound: Bound) -> tuple[str, Memo | None]:
    """The key of the shared result of a call, and that result if it exists, expired or not."""
    for key in _numbered(memo_key(defn, bound)):
        memo = engine.storage.get_memo(key)
        if memo is None or not changed_defaults(memo.defaults, bound.defaults):
            return key, memo
    raise AssertionError("there is always another key")


def implied(engine: Engine, defn: StepDef, bound: Bound) -> tuple[str, Step | None]:
    """The id of the run that ``Runtime.do`` makes of a step call, and the step's record in it. If a default
    has changed, the id is another one."""
    key = memo_key(defn, bound)
    for run_id in _numbered(f"do-{key}"):
        record = engine.storage.get_step(run_id, key)
        if record is None or not changed_defaults(record.defaults, bound.defaults):
            return run_id, record
    raise AssertionError("there is always another id")


def _numbered(key: str) -> Iterator[str]:
    yield key
    for number in count(2):
        yield f"{key}-{number}"


def forgetting(engine: Engine, defn: StepDef, bound: Bound) -> list[Operation]:
    """Operations that drop the stored results of a step call, whatever the defaults were."""
    key = memo_key(defn, bound)
    storage = engine.storage
    operations: list[Operation] = [
        DropMemo(one) for one in takewhile(lambda one: storage.get_memo(one) is not None, _numbered(key))
    ]
    runs = takewhile(lambda one: storage.get_run(one) is not None, _numbered(f"do-{key}"))
    return operations + [DeleteRun(one) for one in runs]


def require_identity(binder: Binder, receiver: Value, why: str) -> None:
    """Raise unless a call on *receiver* differs from one on another object, in all runs."""
    if receiver is not None and not binder.has_identity(receiver):
        name = type(receiver).__qualname__
        raise UnkeyableArgument(
            f"step {binder.path!r}: {why} shares results beyond the run, so `self` ({name}) has to say "
            f"who it is: give {name} a method "
            f"__flow_key__() that returns what its results depend on",
            step=binder.path,
            parameter="self",
        )
