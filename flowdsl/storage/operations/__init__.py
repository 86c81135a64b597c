"""What a storage can be asked to do.

Everything that writes is an *operation*. A storage takes several at a time, in ``commit``, and gives one
*outcome* for each (:mod:`flowdsl.storage.outcomes`). A senseless operation (an empty id, a field that cannot
be set) raises ``ValueError`` when it is made, so a storage never sees one.
"""

from collections.abc import Sequence

from flowdsl.storage.operations.checks import require_id, require_limit
from flowdsl.storage.operations.messages import AddSignal, Publish, Reply, TakeSignal
from flowdsl.storage.operations.rewriting import REWRITABLE, Rewrite
from flowdsl.storage.operations.runs import (
    AddTags,
    ClaimNext,
    ClaimRun,
    DeleteRun,
    OpenRun,
    Restart,
    UpdateRun,
)
from flowdsl.storage.operations.standalone import (
    DropMemo,
    DropQueue,
    DropSchedule,
    DropWorker,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutWorker,
)
from flowdsl.storage.operations.steps import DropSteps, PutStep

__all__ = [
    "REWRITABLE",
    "AddSignal",
    "AddTags",
    "ClaimNext",
    "ClaimRun",
    "DeleteRun",
    "DropMemo",
    "DropQueue",
    "DropSchedule",
    "DropSteps",
    "DropWorker",
    "OpenRun",
    "Operation",
    "Publish",
    "PutMemo",
    "PutQueue",
    "PutSchedule",
    "PutStep",
    "PutWorker",
    "Reply",
    "Restart",
    "Rewrite",
    "TakeSignal",
    "UpdateRun",
    "require_id",
    "require_limit",
    "require_operations",
]


Operation = (
    OpenRun
    | ClaimRun
    | ClaimNext
    | UpdateRun
    | AddTags
    | Restart
    | PutStep
    | DropSteps
    | AddSignal
    | TakeSignal
    | Reply
    | Publish
    | DeleteRun
    | PutMemo
    | DropMemo
    | PutQueue
    | DropQueue
    | PutSchedule
    | DropSchedule
    | PutWorker
    | DropWorker
    | Rewrite
)

_OPERATIONS = frozenset(Operation.__args__)


def require_operations(operations: Sequence[Operation]) -> None:
    """Raise ``ValueError`` for anything that is no operation. A storage asks before it applies the first."""
    for operation in operations:
        if type(operation) not in _OPERATIONS:
            raise ValueError(f"not an operation: {operation!r}")
