"""How a process hears of what others have changed.

One thread of each process listens for notifications, from the first wait on. First it notifies itself,
because behind a pooler ``LISTEN`` is accepted, but nothing ever arrives. In that case, and while there is no
connection, it looks at the pulses of those runs that somebody waits for.

Notifications make the commits of the server wait for each other. So only what somebody waits for is notified.
Whoever waits says so in a table, and says it again as long as it waits. What was under way when it first said
so is looked after by ``overlooked.py``.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from flowdsl.storage.changes import Changes
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.overlooked import Overlooked
from flowdsl.storage.postgres.rows import topic_key
from flowdsl.storage.postgres.statements import Statements
from flowdsl.storage.pulses import Pulses

__all__ = ["Listener"]

_KEPT = 60.0  # seconds for which a wait is in the table
_TEST = 2.0  # seconds in which our own notification must arrive
_POLL = 0.1  # seconds between two looks, if notifications do not arrive
_SWEEP = 3600.0  # seconds between two deletions of what is outdated in the table

Execute = Callable[[Sql, Any], "psycopg.Cursor[Any]"]


class Listener:
    """Tells *changes* what other processes commit. *connect* gives it its own connection."""

    def __init__(
        self,
        changes: Changes,
        sql: Statements,
        channel: str,
        connect: Callable[[], "psycopg.Connection[Any]"],
        read_pulses: Callable[[list[str]], list[tuple[str, int]]],
    ) -> None:
        self._changes = changes
        self._sql = sql
        self._channel = channel
        self._connect = connect
        self._read_pulses = read_pulses
        self.works: bool | None = None  # whether notifications arrive; None: not known yet
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._topics: dict[str, str] = {}  # what stands for a topic → the topic
        self._until: dict[str, float] = {}  # topic → when its wait was entered or renewed last
        self._forgot = time.monotonic()  # when outdated waits were dropped last
        self._swept = -math.inf  # when they were deleted from the table last
        self._pulses = Pulses()
        self._overlooked = Overlooked()

    def learn(self, topics: frozenset[str], execute: Execute) -> bool:
        """Enter waits for *topics* before they begin. Returns whether any of them is new. Then something may
        have happened before, and whoever waits has to look once more."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="flowdsl-listener", daemon=True)
                    self._thread.start()
        now = time.monotonic()
        stale = [topic for topic in topics if now > self._until.get(topic, -math.inf)]
        if not stale:
            return False
        new = self._enter(stale, execute)
        changed = self.works is False and self._pulses.look(topics, self._read_pulses)
        return new or bool(changed)

    def _enter(self, topics: list[str], execute: Execute) -> bool:
        """Enter waits, or renew them. Returns whether any was not in the table, at least for a while."""
        keys = {topic_key(topic): topic for topic in topics}
        until, begun = self._until, time.monotonic()
        execute(self._sql.wait, (_KEPT, list(keys)))
        now = time.monotonic()
        new = [topic for topic in topics if now > until.get(topic, -math.inf) + _KEPT / 2]
        under_way: Sequence[str] = ()
        if new and self.works is not False:
            execute(self._sql.number, ())
            under_way = self._under_way(execute)
        with self._lock:
            self._overlooked.enter(new, under_way)
            self._topics.update(keys)
            until.update(dict.fromkeys(topics, begun + _KEPT / 2))
            self._forget(now)
        return bool(new)

    def settle(self, left: float, execute: Execute) -> float:
        """Tell those who wait of transactions that may have overlooked them, and have ended. Returns how many
        of *left* seconds to wait until the next look."""
        if topics := self._overlooked.ended(lambda: self._under_way(execute)):
            self._changes.say(topics)
        return min(left, self._overlooked.pause())

    def _under_way(self, execute: Execute) -> list[str]:
        return [row[0] for row in execute(self._sql.under_way, ())]

    def _forget(self, now: float) -> None:
        """Drop the waits that were not renewed, now and then. They are outdated in the table, too."""
        if now < self._forgot + _KEPT:
            return
        self._forgot = now
        for topic in [topic for topic, until in self._until.items() if now > until + _KEPT / 2]:
            del self._until[topic]
        gone = {key: topic for key, topic in self._topics.items() if topic not in self._until}
        for key in gone:
            del self._topics[key]
        self._overlooked.forget(gone.values())

    def lost(self) -> None:
        """A crash or a failover may have emptied the server's table of waits. So all enter theirs again."""
        with self._lock:
            self._until = {}

    def close(self) -> None:
        """End the thread soon."""
        self._closed = True

    def _run(self) -> None:
        while not self._closed:
            try:
                with self._connect() as connection:
                    connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
                    self._sweep(connection)
                    again, self.works = self.works is not None, self._arrives(connection)
                    if again:  # later than that, since waits that are entered before it are not looked after
                        self.lost()
                    self._changes.say_all()  # something may have been missed before
                    while not self._closed:
                        self._sweep(connection)
                        if self.works:
                            self._listen(connection)
                        else:
                            self._poll()
            except psycopg.Error:
                self._pause()

    def _arrives(self, connection: "psycopg.Connection[Any]") -> bool:
        connection.execute("SELECT pg_notify(%s, %s)", (self._channel, "test"))
        return any(True for _ in connection.notifies(timeout=_TEST, stop_after=1))

    def _sweep(self, connection: "psycopg.Connection[Any]") -> None:
        if time.monotonic() > self._swept + _SWEEP:
            self._swept = time.monotonic()
            connection.execute(self._sql.forget_waits)

    def _listen(self, connection: "psycopg.Connection[Any]") -> None:
        heard = {note.payload for note in connection.notifies(timeout=0.5, stop_after=1)}
        topics = [topic for key in heard if (topic := self._topics.get(key)) is not None]
        if topics:
            self._changes.say(topics)
        self._renew(connection)

    def _renew(self, connection: "psycopg.Connection[Any]") -> None:
        """Keep the waits of those who wait for a long time in the table."""
        now = time.monotonic()
        due = [topic for topic in self._changes.waited_for() if now > self._until.get(topic, -math.inf)]
        if due and self._enter(due, connection.execute):
            self._changes.say(due)

    def _poll(self) -> None:
        self._pulses.outdate()
        if changed := self._pulses.look(self._changes.waited_for(), self._read_pulses):
            self._changes.say(changed)
        time.sleep(_POLL)

    def _pause(self) -> None:
        if not self._closed:
            time.sleep(0.2)
