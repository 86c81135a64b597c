"""A workflow whose steps can be undone, and the commit of an undo."""

from support import ONCE, Declined

from flowdsl import Retry
from flowdsl.storage.base import PutStep

__all__ = ["is_undo_record", "saga"]


def saga(flavour, effects, broken, **options):
    """Three steps that can be undone, then one that fails while *broken*."""

    @flavour.step(retry=Retry(attempts=2, jitter=0), name="saga.release")
    def release(result):
        effects("release", result)

    @flavour.step(undo=release, name="saga.reserve")
    def reserve(n):
        effects("reserve", n)
        return f"r{n}"

    @flavour.step(retry=ONCE, name="saga.charge")
    def charge():
        effects("charge")
        if broken:
            raise Declined("no")
        return "paid"

    @flavour.workflow(name="saga.w", id="w", **options)
    def w():
        for n in range(3):
            yield reserve(n)
        return (yield charge())

    return w, (release, reserve, charge)


def is_undo_record(path, status):
    """Says of a commit whether it stores such a record."""
    return lambda operations: any(
        isinstance(op, PutStep) and (op.step.path, op.step.status) == (path, status) for op in operations
    )
