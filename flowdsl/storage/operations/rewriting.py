"""The operation that replaces bytes of a record in its place."""

from collections.abc import Mapping

from attrs import frozen

from flowdsl.core.by_fields import ByFields

__all__ = ["REWRITABLE", "Rewrite"]

REWRITABLE: Mapping[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "run": (("run_id",), frozenset({"args", "result", "error", "seal", "cancel_seal"})),
    "step": (("run_id", "seq"), frozenset({"payload", "seal"})),
    "signal": (("run_id", "id"), frozenset({"payload", "reply", "seal", "reply_seal"})),
    "item": (("run_id", "channel", "n"), frozenset({"payload", "seal"})),
    "memo": (("key",), frozenset({"payload", "seal"})),
    "queue": (("name",), frozenset({"seal"})),
    "schedule": (("name",), frozenset({"args", "seal"})),
}
"""What ``Rewrite`` may replace. For each kind of record: what addresses one, and its fields of bytes."""


@frozen(slots=True, eq=False, repr=False)
class Rewrite(ByFields):
    """Replace bytes of one record in its place, because the secret has changed. Nothing else changes: no
    ``seq``, no epoch. Nobody is woken. A run may execute meanwhile.

    *kind* and *key* say which record, see ``REWRITABLE``. *was* and *now* hold the same fields. *was* holds
    them as they were read.

    Outcome: ``Done()``, or ``Missing()`` if the record is gone or its bytes are no longer those of *was*.
    """

    kind: str
    key: tuple[str | int, ...]
    was: Mapping[str, bytes | None]
    now: Mapping[str, bytes | None]

    def __attrs_post_init__(self) -> None:
        address, fields = REWRITABLE.get(self.kind, ((), frozenset()))
        if not address or len(self.key) != len(address):
            raise ValueError(f"{self.kind!r} {self.key!r} addresses no record; there are {dict(REWRITABLE)}")
        if not self.was or self.was.keys() != self.now.keys() or not fields.issuperset(self.was):
            raise ValueError(
                f"of a {self.kind} these can be rewritten: {sorted(fields)}; got {sorted(self.now)}"
            )
