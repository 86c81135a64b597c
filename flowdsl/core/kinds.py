"""The kinds of records that a journal holds, and the groups of kinds that count for something.

A new verb adds its kind here and to the groups that it belongs to.
"""

__all__ = [
    "ASK",
    "AUDIT",
    "BEAT",
    "BESIDE_STEPS",
    "CALLS",
    "CHILD",
    "LOG",
    "MESSAGE",
    "OBSERVABLE",
    "PUBLISH",
    "RACE",
    "REPLY",
    "SCHEDULE",
    "SILENT",
    "SLEEP",
    "START",
    "STEP",
    "STORE",
    "UNDO",
    "VALUE",
    "WAIT",
    "WAITS",
    "WITH_BODY",
]

STEP = "step"
"""A call of a decorated step."""
CHILD = "child"
"""A workflow called by a run, with a copy of its outcome."""
SLEEP = "sleep"
"""A durable delay."""
WAIT = "wait"
"""A wait for a message."""
SCHEDULE = "schedule"
"""A branch that begins later."""
STORE = "store"
"""One operation on the run's store."""
VALUE = "value"
"""A value that a replay gives again, such as ``now()``."""
UNDO = "undo"
"""One step taken back."""
LOG = "log"
"""A line of ``log()``."""
AUDIT = "audit"
"""A change that a person or a verb made in the run: retry, fork, resolve, forget."""

MESSAGE = "message"
"""A message that this run sent to another one."""
ASK = "ask"
"""A question to another run, and its answer."""
REPLY = "reply"
"""The answer to a message of this run."""
PUBLISH = "publish"
"""An item on a channel of the run."""
BEAT = "beat"
"""The last heartbeat of a step's body."""
RACE = "race"
"""The winner of a race."""
START = "start"
"""A detached run that was started."""

WITH_BODY = frozenset({STEP, CHILD})
"""Calls that execute a body of the user's."""
WAITS = frozenset({SLEEP, WAIT, SCHEDULE, ASK, RACE})
"""Calls whose end is a moment or a message."""
CALLS = WITH_BODY | WAITS
"""Calls that take time. Progress counts them, and a person may name them as steps of a run."""
OBSERVABLE = CALLS | {STORE, UNDO, MESSAGE, REPLY, PUBLISH, START}
"""Records with an effect. Two executions of one program must have the same ones."""
SILENT = frozenset({LOG, AUDIT, UNDO, PUBLISH, REPLY, BEAT})
"""Records that are never evidence of a changed program."""
BESIDE_STEPS = frozenset({STORE, LOG, AUDIT, PUBLISH, REPLY, BEAT})
"""Records that are shown beside the list of a run's steps, not in it."""
