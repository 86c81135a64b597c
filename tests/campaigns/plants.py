"""Bugs to plant in a process, so that a campaign can be seen to fail."""

from collections.abc import Callable
from typing import Any

from attrs import evolve

from flowdsl.codecs import envelope
from flowdsl.codecs.payloads import Payloads
from flowdsl.engine.operations import step
from flowdsl.engine.owner import Liveness
from flowdsl.engine.runs import acquire, execute, undo
from flowdsl.errors import StorageError
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import Done, PutStep
from flowdsl.storage.sqlite import connections, file, storage

__all__ = ["PLANTS"]


def acknowledge_before_commit() -> None:
    """The caller of a step has the result, and the record becomes durable with the next one."""
    put, ended = step.put, execute.ended
    waiting: list[Any] = []

    def later(call: Any, record: Any, *more: Any) -> Any:
        yield from catch_up()
        waiting.append((call, record, *more))
        with call.run.lock:
            call.run.journal.add(record)
        return None

    def catch_up() -> Any:
        if waiting:
            yield from put(*waiting.pop())

    def ended_later(*args: Any) -> Any:
        yield from catch_up()
        return (yield from ended(*args))

    step.put, execute.ended = later, ended_later


def no_epoch_check() -> None:
    """The storage takes the records of a stale owner."""
    commit = SQLiteStorage.commit

    def careless(self: Any, operations: Any, /) -> Any:
        return commit(self, [evolve(op, epoch=None) if isinstance(op, PutStep) else op for op in operations])

    SQLiteStorage.commit = careless  # type: ignore[method-assign]


def take_over_the_living() -> None:
    """Every owner is taken for dead."""
    acquire.liveness = lambda owner, run_id: Liveness.DEAD


def replay_something_else() -> None:
    """What is loaded is not what was stored."""
    unpack = Payloads.unpack

    def altered(self: Any, *args: Any) -> Any:
        value = unpack(self, *args)
        return [*value[:-1], "altered"] if isinstance(value, list) and value else value

    Payloads.unpack = altered  # type: ignore[method-assign]


def no_patience() -> None:
    """A lock that another process holds is an error at once."""
    file._ATTEMPT = 0.0
    storage.is_busy = file.is_busy = lambda error: False


def no_checksum() -> None:
    """Every payload is taken for undamaged."""
    envelope.compare_digest = lambda one, other: True


def blind_to_the_log() -> None:
    """Nobody looks whether SQLite will see all of the write-ahead log."""
    connections.lost_commits = lambda path: 0


def acknowledge_what_failed() -> None:
    """A commit of steps that the storage could not make counts as made."""
    commit = SQLiteStorage.commit

    def hopeful(self: Any, operations: Any, /) -> Any:
        try:
            return commit(self, operations)
        except StorageError:
            if not all(isinstance(op, PutStep) for op in operations):
                raise
            return [Done(1) for _ in operations]

    SQLiteStorage.commit = hopeful  # type: ignore[method-assign]


def raw_errors() -> None:
    """Errors of the driver reach the user as they are."""
    storage.translate = file.translate = lambda error, path: error  # type: ignore[assignment,return-value]


def undo_all_but_the_last() -> None:
    """What was completed last is forgotten when undo is planned."""
    plan = undo._plan
    undo._plan = lambda state, goes_on: plan(state, goes_on)[1:]


PLANTS: dict[str, Callable[[], None]] = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "no-epoch-check": no_epoch_check,
    "take-over-the-living": take_over_the_living,
    "replay-something-else": replay_something_else,
    "no-patience": no_patience,
    "acknowledge-what-failed": acknowledge_what_failed,
    "raw-errors": raw_errors,
    "no-checksum": no_checksum,
    "blind-to-the-log": blind_to_the_log,
    "undo-all-but-the-last": undo_all_but_the_last,
}
