"""Seals over rows: with a secret, nobody else can change what a record says.

A payload has its own checksum (:mod:`flowdsl.codecs.envelope`). The *seal* of a row covers everything else
that decides what is executed or trusted: names of workflows and steps, status, undo, sender and name of a
message, ids of children. It is a keyed BLAKE2b over the fields that do not have their default value, each
with its name. So a later release can add fields.

A seal has two parts. The first covers the row. The second covers the first part, and the head of each payload
with its checksum. So an older payload is refused in a newer row. Lists that are read without payloads check
only the first part, and whether there are payloads.

These fields are not covered, because the storage itself or many processes change them:

* who executes and when: ``owner``, ``epoch``, ``lease_until``, ``recoveries``, ``claimed_at``,
  ``not_before``; whether a run is ``pending`` or ``running``;
* the order of rows (``seq``), the ``number`` of a run (its id contains it too), which wait took a message
  (``taken_by``), tags.

None of these names code or a value. ``docs/guarantees.md`` says what somebody can do by changing them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from hmac import compare_digest
from itertools import product
from typing import Any

from attrs import NOTHING

from flowdsl.codecs.envelope import head_of
from flowdsl.core.records import Item, Memo, QueueRow, Run, ScheduleRow, Signal, Step, changed, fields_of
from flowdsl.core.status import RunStatus

__all__ = ["Seals", "sealed_part"]

_SIZE = 20  # bytes of the part that covers the row
_REST = 12  # and of the part that covers its payloads
_PAYLOADS = frozenset({"args", "result", "error", "payload", "reply"})
_SEALS = frozenset({"seal", "cancel_seal", "reply_seal"})
_SEALED_PAYLOADS: dict[type, tuple[str, ...]] = {
    Run: ("args", "result", "error"),
    Step: ("payload",),
    Signal: ("payload",),
    Item: ("payload",),
    Memo: ("payload",),
    ScheduleRow: ("args",),
}
_THERE_OR_NOT: dict[type, tuple[str, ...]] = {Run: ("args", "result", "error"), Step: ("payload",)}
_MOVING: dict[type, frozenset[str]] = {
    Run: frozenset(
        {"id", "number", "owner", "epoch", "lease_until", "tags", "recoveries", "cancel_requested"}
        | {"claimed_at", "not_before"}
    ),
    Step: frozenset({"seq"}),
    Signal: frozenset({"seq", "taken_by", "reply_preview", "reply_failed"}),
}
_known_fields: dict[type, tuple[tuple[str, Any], ...]] = {}
_LIVE = (RunStatus.PENDING, RunStatus.RUNNING)


def _sealed_fields(row: type) -> tuple[tuple[str, Any], ...]:
    """The names of the fields that the seal of a row covers, with their defaults."""
    if row in _known_fields:
        return _known_fields[row]
    payloads = _PAYLOADS if row is not Step else _PAYLOADS - {"args"}  # a step's are a preview
    left_out = payloads | _SEALS | _MOVING.get(row, frozenset())
    found = tuple((name, default) for name, default in fields_of(row).items() if name not in left_out)
    _known_fields[row] = found
    return found


def sealed_part(row: Any) -> dict[str, Any]:
    """The fields of *row* that its seal covers, without those that have their default value.

    >>> sealed_part(Memo("k", "shop.price", b"payload"))
    {'key': 'k', 'path': 'shop.price'}
    """
    found = {}
    for name, default in _sealed_fields(type(row)):
        value = getattr(row, name)
        if default is NOTHING or value != default:
            # 1 and 1.0 are the same, because a storage may return either.
            found[name] = (
                str(value) if isinstance(value, str) else value if _is_plain(value) else float(value)
            )
    for name in _THERE_OR_NOT.get(type(row), ()):
        if getattr(row, name):
            found[name] = True
    if isinstance(row, Run) and row.status in _LIVE:
        found["status"] = "live"  # a worker that claims a run makes it running
    return found


def _is_plain(value: Any) -> bool:
    return not isinstance(value, int | float)


def _same(stored: Any, digest: bytes) -> bool:
    return isinstance(stored, bytes) and compare_digest(stored, digest)  # SQLite stores text as well


def _as_stored(row: Any) -> Iterator[Any]:
    """*row* was read without its payloads. These are the rows that it may be."""
    names = _THERE_OR_NOT.get(type(row), ())
    for there in product((b"there", b""), repeat=len(names)):
        given: dict[str, Any] = dict(zip(names, there, strict=True))
        yield changed(row, given) if isinstance(row, Run) else row._replace(**given) if given else row


class Seals:
    """Makes and checks seals with one secret.

    >>> seals = Seals(b"only we know")
    >>> memo = Memo("k", "shop.price", b"payload")
    >>> seals.fits(seals.of(memo), memo), seals.fits(seals.of(memo), Memo("k", "shop.cost", b"payload"))
    (True, False)
    """

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret, digest_size=32, person=b"flowdsl row key").digest()

    def _digest(self, kind: str, parts: Mapping[str, Any] | Iterable[Any]) -> bytes:
        # ascii() writes text, numbers, None, booleans and tuples of them in the same way in every Python, and
        # never two values alike.
        said = ascii((kind, *sorted(parts.items()))) if isinstance(parts, Mapping) else ascii((kind, *parts))
        return blake2b(said.encode(), digest_size=_SIZE, key=self._key).digest()

    def _seal(self, kind: str, parts: Mapping[str, Any] | Iterable[Any], payloads: Iterable[Any]) -> bytes:
        row = self._digest(kind, parts)
        heads = b"".join(b"%d:%b" % (len(head), head) for head in map(head_of, payloads))
        return row + blake2b(row + heads, digest_size=_REST, key=self._key).digest()

    def _fits(self, seal: Any, row: Any, of: Callable[[Any], bytes], bare: bool) -> bool:
        if not bare:
            return _same(seal, of(row))
        if not isinstance(seal, bytes) or len(seal) != _SIZE + _REST:
            return False
        return any(_same(seal[:_SIZE], of(one)[:_SIZE]) for one in _as_stored(row))

    def of(self, row: Step | Signal | Item | Memo | QueueRow | ScheduleRow) -> bytes:
        """Return the seal of *row*."""
        return self._seal(type(row).__name__, sealed_part(row), _payloads(row))

    def fits(
        self, seal: bytes, row: Step | Signal | Item | Memo | QueueRow | ScheduleRow, *, bare: bool = False
    ) -> bool:
        """Say whether *seal* is the seal of *row*. *bare*: the row was read without its payloads."""
        return self._fits(seal, row, self.of, bare)

    # Runs -----------------------------------------------------------------------------------------------

    def of_run(self, run: Run) -> bytes:
        """Return the seal of a run."""
        return self._seal("run", {**sealed_part(run), "": run.id}, _payloads(run))

    def fits_run(self, run: Run, *, bare: bool = False) -> bool:
        """Say whether a stored run has its right seal. *bare*: it was read without its payloads."""
        return self._fits(run.seal, run, self.of_run, bare)

    def of_cancel(self, run_id: str, moment: float | None) -> bytes:
        """Return the seal of a request to cancel, or nothing if there is no request."""
        return b"" if moment is None else self._digest("cancel", (run_id, moment))

    def fits_cancel(self, run: Run) -> bool:
        """Say whether the request to cancel, if there is one, has its right seal."""
        return _same(run.cancel_seal, self.of_cancel(run.id, run.cancel_requested))

    # Replies --------------------------------------------------------------------------------------------

    def of_reply(self, run_id: str, signal_id: str, preview: str, failed: bool, payload: bytes) -> bytes:
        """Return the seal of the reply to a message."""
        return self._seal("reply", (run_id, signal_id, preview, failed), (payload,))

    def fits_reply(self, signal: Signal, *, bare: bool = False) -> bool:
        """Say whether the reply to a message, if there is one, has its right seal. *bare*: the message was
        read without its payloads."""
        if not signal.reply_seal:
            return signal.reply is None and not signal.reply_failed and not signal.reply_preview

        def of(one: Signal) -> bytes:
            return self.of_reply(
                one.run_id,
                one.id,
                one.reply_preview,
                one.reply_failed,
                b"" if one.reply is None else one.reply,
            )

        return self._fits(signal.reply_seal, signal, of, bare)


def _payloads(row: Any) -> list[Any]:
    return [getattr(row, name) for name in _SEALED_PAYLOADS.get(type(row), ())]
