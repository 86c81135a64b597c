"""New keys for what is stored: each record is rewritten as today's codec and secret would write it.

It can be killed at any moment and started again. A record is rewritten as a whole and in its place, and only
if nobody has changed it since it was read. Records that are rewritten already are recognised and passed over.
Nothing is loaded, so nothing that is stored can be executed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen

from flowdsl.codecs.base import Codec
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.codecs.seals import Seals
from flowdsl.core.records import Item, Memo, Run, RunFilter, ScheduleRow, Signal, Step, changed
from flowdsl.core.status import StepStatus
from flowdsl.errors import CorruptPayload, StorageError
from flowdsl.storage.base import Storage
from flowdsl.storage.left_out import left_out
from flowdsl.storage.operations import Rewrite
from flowdsl.storage.outcomes import Missing, raise_unstorable

__all__ = ["Rekeyed", "rekey"]

_PAGE = 200
"""Records that are read at once, and rewritten in one commit."""

_TRIES = 20
"""How often a run whose records change meanwhile is looked through again."""

_STEP_KINDS = ("result", "error", "store", "log", "details")

Fields = dict[str, bytes | None]
Found = tuple[str, tuple[str | int, ...], Callable[[], tuple[Fields, Fields]]]
"""Kind and key of a record, and a function that gives its bytes as they are and as they should be."""


@frozen
class Rekeyed:
    """What :func:`rekey` did.

    * ``rewritten``: records that have the new keys since; ``current``: records that had them before.
    * ``refused``: of each record that was left as it is, which one, and why.
    """

    rewritten: int
    current: int
    refused: tuple[str, ...]


def rekey(
    storage: Storage,
    codec: Codec | None = None,
    *,
    secret: str | bytes | None = None,
    old_secret: str | bytes | None = None,
    old_codec: Codec | None = None,
    unsealed: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Rekeyed:
    """Rewrite all records of *storage* as *codec* and *secret* write them today.

    * *codec*: the codec that programs have now, its newest key first; ``PickleCodec()`` by default.
    * *secret*: what ``FLOWDSL_SECRET_KEY`` is now; ``None``: none.
    * *old_secret*: what it was, if it changes. Stop all programs that use the storage first: they do not know
      the new one. To change only the keys of a codec, programs that have both may go on.
    * *old_codec*: what wrote the records, where *codec* cannot read them.
    * *unsealed*: there are records without a seal, because there was no secret, or an earlier release wrote
      them, which sealed none. Whatever they say is believed and sealed.
    * *dry_run*: change nothing, only count.
    * *progress*: called now and then with the number of records seen so far.

    Records that neither the new nor the old keys fit are left as they are, and are named in the answer. So
    are sealed ones if there is no secret: nobody takes off a seal that he cannot check. Raises ``ValueError``
    where both *old_secret* and *unsealed* are given, and ``StorageError`` where the storage fails.

    >>> from flowdsl.codecs import JsonCodec, Signed
    >>> from flowdsl.storage import MemoryStorage
    >>> rekey(MemoryStorage(), Signed(JsonCodec(), ["new key", "old key"]))
    Rekeyed(rewritten=0, current=0, refused=())
    """
    if unsealed and old_secret is not None:
        raise ValueError("give old_secret, or say that the records are unsealed; not both")
    codec = codec or PickleCodec()
    new = Payloads(codec, _bytes(secret))
    before = None if unsealed else _bytes(secret if old_secret is None else old_secret)
    work = _Rekeying(storage, new, Payloads(old_codec or codec, before), dry_run, progress or _say_nothing)
    with left_out() as damaged:
        work.everything()
    return Rekeyed(work.rewritten, work.current, (*work.refused, *damaged))


def _bytes(secret: str | bytes | None) -> bytes | None:
    return secret.encode() if isinstance(secret, str) else secret


def _say_nothing(_: int) -> None:
    pass


class _Rekeying:
    """One pass over a storage."""

    def __init__(
        self, storage: Storage, new: Payloads, old: Payloads, dry_run: bool, progress: Callable[[int], None]
    ) -> None:
        self._storage = storage
        self._new, self._old = new, old
        self._seals = None if new.secret is None else Seals(new.secret)
        self._old_seals = None if old.secret is None else Seals(old.secret)
        self._dry_run = dry_run
        self._progress = progress
        self.rewritten = 0
        self.current = 0
        self.refused: list[str] = []

    # Which records there are --------------------------------------------------------------------------------

    def everything(self) -> None:
        """Rewrite all records."""
        for run_id in self._run_ids():
            self._until_still(partial(self._of_run, run_id), f"run {run_id}")
        self._until_still(self._beside_runs, "a memo, queue or schedule")

    def _run_ids(self) -> list[str]:
        found: list[str] = []
        while True:
            last = found[-1] if found else None
            page = self._storage.list_runs(RunFilter(limit=_PAGE, after=last, newest_first=False))
            found += [run.id for run in page]
            if len(page) < _PAGE:
                if not page and last is not None and self._storage.get_run(last) is None:
                    found = []  # somebody deleted the run after which the list would go on
                    continue
                return found

    def _until_still(self, find: Callable[[], Iterator[Found]], what: str) -> None:
        """Rewrite what *find* finds. Do it again while others change it at the same time."""
        refused = list(self.refused)
        for again in range(_TRIES):
            self.refused = list(refused)
            if self._rewrite_all(find(), count=not again):
                return
        self.refused.append(f"{what}: it changes all the time; try again later")

    def _of_run(self, run_id: str) -> Iterator[Found]:
        run = self._storage.get_run(run_id)
        if run is None:
            return
        yield from self._steps(run_id)
        yield from self._signals(run_id)
        for channel in self._storage.list_channels(run_id):
            yield from self._items(run_id, channel)
        yield "run", (run_id,), partial(self._run, run)

    def _steps(self, run_id: str) -> Iterator[Found]:
        after = 0
        while page := self._storage.list_steps(run_id, after=after, limit=_PAGE):
            after = page[-1].seq
            for step in page:
                yield "step", (run_id, step.seq), partial(self._step, step)

    def _signals(self, run_id: str) -> Iterator[Found]:
        after = 0
        while page := self._storage.list_signals(run_id, after=after, limit=_PAGE):
            after = page[-1].seq
            for signal in page:
                yield "signal", (run_id, signal.id), partial(self._signal, signal)

    def _items(self, run_id: str, channel: str) -> Iterator[Found]:
        after = 0
        while page := self._storage.list_items(run_id, channel, after=after, limit=_PAGE):
            after = page[-1].n
            for item in page:
                yield "item", (run_id, channel, item.n), partial(self._item, item)

    def _beside_runs(self) -> Iterator[Found]:
        for run in self._storage.list_runs(RunFilter(pruned=True)):  # each is small, with nothing but its row
            yield "run", (run.id,), partial(self._run, run)
        after = ""
        while page := self._storage.list_memos(after=after, limit=_PAGE):
            after = page[-1].key
            for memo in page:
                yield "memo", (memo.key,), partial(self._memo, memo)
        for queue in self._storage.list_queues():
            yield "queue", (queue.name,), partial(self._sealed, queue, {})
        for row in self._storage.list_schedules():
            yield "schedule", (row.name,), partial(self._schedule, row)

    # Rewriting ----------------------------------------------------------------------------------------------

    def _rewrite_all(self, found: Iterator[Found], *, count: bool) -> bool:
        """Rewrite what *found* names. Returns whether nobody changed any of it meanwhile. With *count*, count
        the records that are up to date already."""
        still = True
        waiting: list[Rewrite] = []
        for kind, key, bytes_of in found:
            try:
                was, now = bytes_of()
            except StorageError as error:
                self.refused.append(str(error))
                continue
            if was == now:
                self.current += count
                continue
            names = [name for name in was if was[name] != now[name]]
            before, after = ({name: fields[name] for name in names} for fields in (was, now))
            waiting.append(Rewrite(kind, key, before, after))
            if len(waiting) == _PAGE:
                still &= self._commit(waiting)
                waiting = []
        return self._commit(waiting) and still

    def _commit(self, rewrites: Sequence[Rewrite]) -> bool:
        outcomes = self._storage.commit(rewrites) if rewrites and not self._dry_run else []
        raise_unstorable(*outcomes)
        missed = sum(isinstance(one, Missing) for one in outcomes)
        self.rewritten += len(rewrites) - missed
        self._progress(self.rewritten + self.current + len(self.refused))
        return missed == 0

    def _payload(self, payload: bytes | None, run_id: str, key: str, kind: str) -> bytes | None:
        if not payload:
            return payload
        return self._new.rekey(payload, run_id, key, kind, self._old) or payload

    # What each kind of record should be ---------------------------------------------------------------------

    def _run(self, run: Run) -> tuple[Fields, Fields]:
        was: Fields = {"args": run.args, "result": run.result, "error": run.error}
        now: Fields = {
            "args": self._payload(run.args, run.key, "", "args"),
            "result": self._payload(run.result, run.id, "", "run"),
            "error": self._payload(run.error, run.id, "", "run"),
        }
        self._check(run, run.seal, lambda seals: seals.fits_run(run) and seals.fits_cancel(run))
        was.update(seal=run.seal, cancel_seal=run.cancel_seal)
        now.update(seal=b"", cancel_seal=b"")
        if self._seals is not None:
            now["seal"] = self._seals.of_run(changed(run, now))
            now["cancel_seal"] = self._seals.of_cancel(run.id, run.cancel_requested)
        return was, now

    def _step(self, step: Step) -> tuple[Fields, Fields]:
        return self._sealed(step, {"payload": self._step_payload(step)})

    def _step_payload(self, step: Step) -> bytes | None:
        """The payload of a step, which is sealed for one of several kinds: most often the first one tried."""
        first = "error" if step.status is StepStatus.FAILED else "result"
        problem: StorageError | None = None
        for kind in sorted(_STEP_KINDS, key=lambda one: (one != step.kind, one != first)):
            try:
                return self._payload(step.payload, step.run_id, step.key, kind)
            except StorageError as error:
                problem = problem or error
        raise problem or AssertionError("there are kinds")

    def _signal(self, signal: Signal) -> tuple[Fields, Fields]:
        kind = "refusal" if signal.reply_failed else "reply"
        was, now = self._sealed(
            signal,
            {
                "payload": self._payload(signal.payload, signal.run_id, signal.id, "signal"),
                "reply": self._payload(signal.reply, signal.run_id, signal.id, kind),
            },
        )
        was["reply_seal"], now["reply_seal"] = signal.reply_seal, b""
        if signal.reply is not None:
            self._check(signal, signal.reply_seal, lambda seals: seals.fits_reply(signal))
            if self._seals is not None:
                reply = signal.run_id, signal.id, signal.reply_preview, signal.reply_failed
                now["reply_seal"] = self._seals.of_reply(*reply, now["reply"] or b"")
        return was, now

    def _item(self, item: Item) -> tuple[Fields, Fields]:
        payload = self._payload(item.payload, item.run_id, f"{item.n}@{item.channel}", "item")
        return self._sealed(item, {"payload": payload})

    def _memo(self, memo: Memo) -> tuple[Fields, Fields]:
        return self._sealed(memo, {"payload": self._payload(memo.payload, "", memo.key, "memo")})

    def _schedule(self, row: ScheduleRow) -> tuple[Fields, Fields]:
        return self._sealed(row, {"args": self._payload(row.args, row.name, "", "schedule")})

    def _sealed(self, row: Any, payloads: Fields) -> tuple[Fields, Fields]:
        """The bytes of *row* as they are, and as they should be with these *payloads*."""
        self._check(row, row.seal, lambda seals: seals.fits(row.seal, row))
        was: Fields = {name: getattr(row, name) for name in payloads}
        given: Any = payloads
        after = row._replace(**given) if isinstance(row, Step) else evolve(row, **given)
        seal = b"" if self._seals is None else self._seals.of(after)
        return {**was, "seal": row.seal}, {**payloads, "seal": seal}

    def _check(self, row: Any, seal: bytes, fits: Callable[[Seals], bool]) -> None:
        """Raise ``CorruptPayload`` where *row* has no right to a new seal, or none to lose its own."""
        known = [seals for seals in (self._seals, self._old_seals) if seals is not None]
        if any(map(fits, known)) or (not seal and self._old_seals is None):
            return
        raise CorruptPayload(
            f"{_named(row)}: its seal fits neither the new secret nor the old one; it was left as it is"
            if known
            else f"{_named(row)}: it has a seal, but there is no secret; it was left as it is. Set "
            "FLOWDSL_SECRET_KEY. To do without a secret from now on, set FLOWDSL_OLD_SECRET_KEY instead"
        )


def _named(row: Any) -> str:
    match row:
        case Run():
            return f"run {row.id}"
        case Step():
            return f"run {row.run_id}, step {row.path} ({row.key[:12]})"
        case Signal():
            return f"run {row.run_id}, message {row.name!r}"
        case Item():
            return f"run {row.run_id}, channel {row.channel!r}, item {row.n}"
        case Memo():
            return f"the memo of {row.path}"
    return f"{type(row).__name__.removesuffix('Row').lower()} {row.name!r}"
