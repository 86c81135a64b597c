"""Group commit: callers that want to write at the same time share one transaction.

The rules
    A caller gets its outcomes only after its operations are durable. One caller's writes cannot fail
    another's: when a shared transaction fails, each caller's operations are tried by themselves. An
    unavailable storage is nobody's fault. The batch is then sent again as one. While the outage lasts, all
    callers have one deadline: the storage's ``patience``, counted from the first failure.

The theory
    A durable commit costs an fsync (about 150 µs on a local disk) however many rows it carries. So callers
    that come while a commit is under way form the next one together. Nobody waits for company: a lone caller
    commits at once, and batches grow by themselves exactly when the disk is the bottleneck.

The implementation
    A lone sync caller takes the turn and commits in its own thread. A caller that finds the turn taken queues
    a request, and so does every async caller. They wake one thread, which commits for everybody in
    ``_pending``. It goes on without a pause, so the disk never waits for callers to wake one another. A sync
    caller waits at the gate of its request. Futures are resolved once per loop and batch.

    Some storages commit in microseconds (``inline``). They are called where the caller stands, on the event
    loop too, because a thread hop would cost more. Where sharing pays for these too (``shares``), all that is
    written in one turn of the loop is one commit. Some storages commit on an event loop (``awaits``). Async
    callers then do so too: those of one loop form groups there, without a thread. A lone async caller whose
    loop has nothing else to do also commits there, as long as commits were quick.

    Sometimes a transaction of a body keeps all other writers waiting (``alone``). Then the body holds the
    turn, and the others queue until it has ended. So no event loop waits for a lock that a body on it holds.

If you edit this
    A ``KeyboardInterrupt`` may strike while a leader commits for others. Their requests then go back to the
    queue. Every operation may be sent twice (see :mod:`flowdsl.storage.base`). None may be dropped.
"""

import asyncio
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar

from flowdsl.blocks import block
from flowdsl.engine.batch import Request, commit_together, commit_together_async, deliver, fail, resolve
from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import Operation, Outcome, Storage
from flowdsl.storage.step_transactions import StepTransaction, in_threads

__all__ = ["Committer"]


class _Holder:
    """A body that holds the turn of its *committer* until it has ended."""

    def __init__(self, committer: "Committer | None") -> None:
        self.committer = committer


_holder: ContextVar[_Holder | None] = ContextVar("flowdsl_transaction", default=None)

_QUICK = 0.001  # seconds: a commit that takes less may block an event loop that has nothing else to do
_TRUSTED = 16  # after so many quick commits in a row, the next is expected to be quick too

_LOOK = 0.02  # seconds between two looks of an event loop that waits for its turn

_MOST = 1000  # callers that share a transaction
_GOODBYE = 2.0  # seconds that the thread has to end
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two tries while the storage is unavailable


class Committer:
    """Commits for many callers on one storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._turn = threading.Lock()
        self._pending: deque[Request] = deque()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._turns: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        self._loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}  # loops that commit at the moment
        self._serving: set[asyncio.Task[None]] = set()
        self._bodies: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._bodies = weakref.WeakKeyDictionary()
        self._needed: set[asyncio.AbstractEventLoop] = set()  # a body holds the turn, and ends on that loop
        self._writer = 0  # the thread that commits
        self._streak = 0  # quick commits in a row
        self._outage: tuple[float, float] | None = None  # when it began, and when it was last seen

    def _outage_left(self) -> float:
        """For how many seconds the storage may stay unavailable before callers get the error."""
        now, patience = time.monotonic(), self.storage.patience
        since, seen = self._outage or (now, now)
        if now - seen > max(patience, _LONGEST_PAUSE):  # nobody has tried for long: a new outage
            since = now
        self._outage = since, now
        return since + patience - now

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Commit and return one outcome for each operation. Blocks until they are durable."""
        if _holder.get() is not None:
            self._refuse_within()
        if self.storage.inline:
            return self.storage.commit(operations)
        if self._turn.acquire(False):
            try:
                if not self._pending:
                    return self._timed(operations)
            except StorageUnavailable as error:
                if error.lasting:
                    self._give_up([], error)
                if error.lasting or self._closing.is_set():
                    raise
            finally:
                self._turn.release()
        request = Request(operations)
        self._pending.append(request)
        self._refuse_beside(request)
        try:
            self._nudge()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            with self._turn:
                if not request.done:
                    self._drain()
        return request.answered()

    async def commit_async(self, operations: Sequence[Operation]) -> list[Outcome]:
        """As :meth:`commit`, without blocking the event loop for a disk or a round trip.

        A task that is cancelled meanwhile waits all the same, however often, and then raises
        :class:`Written`. What a body did is recorded then, and the journal must know it. Otherwise undo would
        pass over it.
        """
        loop = asyncio.get_running_loop()
        self._refuse_within()
        if self.storage.inline and not self._turn.locked():
            if not self.storage.shares or _is_idle(loop):
                return self.storage.commit(operations)
            request = Request(operations, loop)
            self._join_turn(loop, request)
        elif self.storage.awaits:
            request = Request(operations, loop)
            self._join_loop(loop, request)
        else:
            if self._streak >= _TRUSTED and not self.storage.inline and _is_idle(loop):
                outcomes = self._on_the_loop(operations)
                if outcomes is not None:
                    return outcomes
            request = Request(operations, loop)
            self._pending.append(request)
            self._nudge()
        return await request.answered_async()

    def writes_here(self) -> bool:
        """Whether others wait for a commit of this thread, which a signal handler has interrupted."""
        return self._writer == threading.get_ident()

    def _on_the_loop(self, operations: Sequence[Operation]) -> list[Outcome] | None:
        """Commit where the caller stands. ``None`` if somebody else commits, or the storage is away."""
        if not self._turn.acquire(False):
            return None
        try:
            return None if self._pending else self._timed(operations)
        except StorageUnavailable:
            return None  # the thread waits until it is back
        finally:
            self._turn.release()

    def _timed(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Commit, and note whether that was quick."""
        begun = time.perf_counter()
        self._writer = threading.get_ident()
        try:
            outcomes = self.storage.commit(operations)
        finally:
            self._writer = 0
        self._streak = self._streak + 1 if time.perf_counter() - begun < _QUICK else 0
        return outcomes

    def _join_turn(self, loop: asyncio.AbstractEventLoop, request: Request) -> None:
        """Commit together with whoever else writes in this turn of the loop."""
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = []
        turn.append(request)
        if len(turn) == 1:
            loop.call_soon(self._end_turn, loop)

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._turns.pop(loop)
        if self._turn.locked():  # a body's transaction has begun, and must not wait on its own loop
            self._pending.extend(batch)
            self._nudge()
            return
        outage = commit_together(batch, BaseException, self._timed)  # no error may leave a caller waiting
        if outage is not None:
            fail(batch, outage)
        resolve(batch)

    def _join_loop(self, loop: asyncio.AbstractEventLoop, request: Request) -> None:
        """Commit on the loop: at once, or with whoever else comes while a commit of it is under way."""
        waiting = self._loops.get(loop)
        if waiting is None:
            waiting = self._loops[loop] = []
            serving = loop.create_task(self._serve_loop(loop, waiting))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
        waiting.append(request)

    async def _serve_loop(self, loop: asyncio.AbstractEventLoop, waiting: list[Request]) -> None:
        while waiting:
            batch = waiting[:_MOST]
            del waiting[:_MOST]
            outage = await commit_together_async(batch, self.storage.commit_async)
            if outage is not None:  # the storage has waited for the outage to end: all have one deadline
                batch += waiting
                waiting.clear()
                fail(batch, outage)
            resolve(batch)
        del self._loops[loop]

    @block
    def transaction(self) -> Iterator[StepTransaction]:
        """A transaction of the storage for a body. Where it has to, group commit stops meanwhile."""
        if not self.storage.alone:
            with self.storage.transaction() as transaction:
                yield transaction
            return
        self._refuse_within()
        self._take_turn()
        try:
            with self.storage.transaction() as transaction:
                yield transaction
        finally:
            self._turn.release()

    def _take_turn(self) -> None:
        """Wait for the turn. Raises on an event loop that a transaction needs for its end."""
        loop = asyncio._get_running_loop()
        while not self._turn.acquire(timeout=-1 if loop is None else _LOOK):
            if loop in self._needed:
                raise _beside()

    @asynccontextmanager
    async def transaction_async(self) -> AsyncIterator[StepTransaction]:
        """The same for an async body."""
        if not self.storage.alone:
            async with self.storage.transaction_async() as transaction:
                yield transaction
            return
        self._refuse_within()
        loop = asyncio.get_running_loop()
        first = self._bodies.setdefault(loop, asyncio.Lock())
        async with first, in_threads(self._needing(loop)) as transaction:  # a thread only for the next one
            try:
                yield transaction
            finally:  # from here on its thread ends it
                self._needed.discard(loop)

    @block
    def _needing(self, loop: asyncio.AbstractEventLoop) -> Iterator[StepTransaction]:
        """A transaction in a thread of its own, whose body executes on *loop*. Who waits for the turn at its
        beginning is served first, because it may be *loop* that waits."""
        with self._turn:
            self._needed.add(loop)
            try:
                self._drain(BaseException)
                with self.storage.transaction() as transaction:
                    yield transaction
            finally:
                self._needed.discard(loop)

    @block
    def within(self) -> Iterator[None]:
        """The block is called by a body that holds the turn, if one has to be held."""
        holder = _Holder(self if self.storage.alone else None)
        token = _holder.set(holder)
        try:
            yield
        finally:
            holder.committer = None  # for tasks and threads that outlive the body
            _holder.reset(token)

    def _refuse_within(self) -> None:
        """Raise in a body that holds the turn: it would wait for itself."""
        holder = _holder.get()
        if holder is not None and holder.committer is self:
            raise TypeError(
                "the body of a transactional step keeps all other writers of its database waiting, so "
                "nothing else can be stored from it: do that before the step, or after it"
            )

    def _refuse_beside(self, request: Request) -> None:
        """Withdraw *request* and raise on an event loop that a transaction needs for its end: to block it
        would be to wait for ever. A transaction that begins now serves the request first."""
        loop = asyncio._get_running_loop()
        if loop is not None and loop in self._needed:
            try:
                self._pending.remove(request)
            except ValueError:  # it was taken up meanwhile
                return
            raise _beside()

    def _nudge(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._serve, name="flowdsl-commit", daemon=True)
                    thread.start()  # raises when Python is ending
                    self._thread = thread
        if self._wake.empty():
            self._wake.put(True)

    def _serve(self) -> None:
        while self._wake.get():
            with self._turn:
                self._drain(BaseException)  # nothing may end this thread, or its callers wait for ever

    def _drain(self, catch: type[BaseException] = Exception) -> None:
        """Commit for everybody who waits. The caller holds the turn. Errors of type *catch* become the error
        of a request; any other interrupts.

        While the storage is unavailable, all callers wait together, and new ones join them. That ends when
        the outage has lasted too long.
        """
        batch: list[Request] = []
        pause = _FIRST_PAUSE
        while batch or self._pending:
            while self._pending and len(batch) < _MOST:
                batch.append(self._pending.popleft())
            try:
                outage = commit_together(batch, catch, self._timed)
            except BaseException:  # an interrupt must not lose requests
                self._pending.extendleft(request for request in reversed(batch) if not request.done)
                self._wake.put(True)
                raise
            finally:
                deliver(batch)
            batch = [request for request in batch if not request.done]
            if outage is None:
                self._outage, pause = None, _FIRST_PAUSE
                continue
            left = self._outage_left()
            if outage.lasting or self._closing.is_set() or left <= 0:
                self._give_up(batch, outage)
                batch = []
            else:
                self._closing.wait(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _give_up(self, batch: list[Request], error: StorageUnavailable) -> None:
        """The outage has lasted too long for *batch*, and for callers who came meanwhile. All have one
        deadline. Otherwise each would wait for those before it, and then as long again. The caller holds the
        turn."""
        while self._pending:
            batch.append(self._pending.popleft())
        fail(batch, error)
        deliver(batch)

    def close(self) -> None:
        """End the thread. What is queued is committed first, but an outage is not waited out. If a storage
        holds the thread up, the thread is left behind."""
        self._closing.set()
        with self._starting:  # a thread that is just being started cannot be joined yet
            thread = self._thread
        if thread is not None:
            self._wake.put(True)
            self._wake.put(False)
            if thread is not threading.current_thread():
                thread.join(_GOODBYE)
            self._thread = None


def _beside() -> StorageUnavailable:
    return StorageUnavailable(
        "a blocking write on this event loop would wait for a transaction that ends on it: await the "
        "async form, or write from another thread"
    )


def _is_idle(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether *loop* has no other callback ready. Then blocking it for a moment delays nobody. A loop that
    does not tell counts as busy."""
    ready = getattr(loop, "_ready", True)
    return not ready
