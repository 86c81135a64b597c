"""The envelope around every stored payload. It says which codec made the payload and for which place, and
shows damage.

::

    offset  bytes  field
    0       4      magic "\\xf1ow" and the format version
    4       1      flags: 1 = keyed, 2 = its row is sealed too
    5       1      length of the codec id
    6       n      codec id, UTF-8
    …       4      only if keyed: fingerprint of the key
    …       4      CRC-32 of the context
    …       4      length of the context
    …       16     BLAKE2b checksum
    …       rest   body: whatever the codec made

The **checksum** decides. It covers all fields before it, then the context, then the body. The length of each
is covered too, so no two payloads are the same bytes to it. The *context* (run, step, kind) is not stored;
the reader supplies it. So a payload that is copied to another row is refused like a damaged one. With a
secret, the checksum is keyed: somebody who can write to the storage but does not know the secret cannot make
a payload that is accepted. Nothing is unpickled before the checksum matches.

The **CRC and the fingerprint** decide nothing. They help to say why a payload was refused: they distinguish a
moved payload and a changed secret from damage.

Before you edit this: stored payloads outlive releases. A changed layout needs a new format version, and the
old one must stay readable. Each stored and each replayed step passes here, so measure the speed.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from zlib import crc32

from flowdsl.errors import CorruptPayload

__all__ = ["head_of", "opener", "seal", "sealer", "unseal"]

FORMAT = 1
CHECKSUM_SIZE = 16
FINGERPRINT_SIZE = 4
SECRET_VARIABLE = "FLOWDSL_SECRET_KEY"

_MAGIC = b"\xf1ow"
_HEAD = _MAGIC + bytes([FORMAT])
_KEYED = 1
_ROW_SEALED = 2  # set since rows have seals; a keyed payload without it is read only by rekey
_MARK = Struct(">II")
_pack_mark = _MARK.pack


def seal(codec_id: str, body: bytes, context: bytes, secret: bytes | None = None) -> bytes:
    """Put *body* into an envelope that opens only with the same *context* (and *secret*).

    * *codec_id*: which codec made the body, 1 to 255 bytes of UTF-8; stored readable.
    * *context*: where the payload belongs; not stored.
    * *secret*: the key of the checksum, of any length but 0. ``None``: a plain checksum, which finds damage
      but no forgery.

    Returns the payload. Raises ``ValueError`` for an impossible codec id or an empty secret.

    >>> unseal(seal("json", b"[1]", b"run 7, step 3"), b"run 7, step 3")
    ('json', b'[1]')
    """
    return sealer(codec_id, secret)(body, context)


def unseal(payload: bytes, context: bytes, secret: bytes | None = None) -> tuple[str, bytes]:
    """Check *payload* and return the codec id and the body.

    Parameters as in :func:`seal`. Raises ``CorruptPayload`` if the payload is damaged, belongs to another
    context, or was sealed with another key or without one. The body is not interpreted.

    >>> try: unseal(seal("json", b"[1]", b"run 7"), b"run 8")
    ... except CorruptPayload: print("refused")
    refused
    """
    try:
        codec_id = payload[6 : 6 + payload[5]].decode()
        body = opener(codec_id, secret)(payload, context) if codec_id else None
        if body is None and codec_id and secret is not None and payload[4] == _KEYED:
            body = _earlier_opener(codec_id, secret)(payload, context)
    except (AttributeError, IndexError, TypeError, UnicodeDecodeError):  # SQLite stores numbers and text too
        codec_id, body = "", None
    if body is None:
        raise _explain(payload, context, secret)
    return codec_id, body


def head_of(payload: bytes | None) -> bytes:
    """Return the first bytes of a keyed *payload*. They contain its checksum, so they identify all of it.

    >>> made = [seal("json", body, b"run 7", b"secret") for body in (b"[1]", b"[2]")]
    >>> len(head_of(made[0])) == len(made[0]) - len(b"[1]"), head_of(made[0]) == head_of(made[1])
    (True, False)
    """
    if not payload or not isinstance(payload, bytes):  # SQLite stores numbers and text too
        return b"" if payload is None else ascii(payload).encode()
    return payload[: 6 + payload[min(5, len(payload) - 1)] + FINGERPRINT_SIZE + _MARK.size + CHECKSUM_SIZE]


@lru_cache(maxsize=256)
def sealer(codec_id: str, secret: bytes | None) -> Callable[[bytes, bytes], bytes]:
    """Return :func:`seal` for one codec and secret, as a function of body and context."""
    header, key = _header(codec_id, secret)
    keyed = blake2b(digest_size=CHECKSUM_SIZE, key=key)  # to copy one costs less than to make one

    def seal_one(body: bytes, context: bytes) -> bytes:
        start = header + _pack_mark(crc32(context), len(context))
        checksum = keyed.copy()
        checksum.update(start + context + body)
        return start + checksum.digest() + body

    return seal_one


@lru_cache(maxsize=256)
def opener(codec_id: str, secret: bytes | None) -> Callable[[bytes, bytes], bytes | None]:
    """Return a function of payload and context. It returns the body if :func:`sealer` made the payload.

    Otherwise it returns ``None``. Then :func:`unseal` finds out why, or finds the other codec.
    """
    return _opener_for(*_header(codec_id, secret))


@lru_cache(maxsize=256)
def _earlier_opener(codec_id: str, secret: bytes) -> Callable[[bytes, bytes], bytes | None]:
    """The same as :func:`opener`, for keyed payloads of releases whose rows had no seal."""
    return _opener_for(*_header_with(codec_id, secret, _KEYED))


def _opener_for(header: bytes, key: bytes) -> Callable[[bytes, bytes], bytes | None]:
    size = len(header) + _MARK.size + CHECKSUM_SIZE
    keyed = blake2b(digest_size=CHECKSUM_SIZE, key=key)

    def open_one(payload: bytes, context: bytes) -> bytes | None:
        # The header is made from what is asked for. What the payload says about itself is only compared with
        # it.
        if type(payload) is not bytes:
            return None
        start = header + _pack_mark(crc32(context), len(context))
        body = payload[size:]
        checksum = keyed.copy()
        checksum.update(start + context + body)
        expected = start + checksum.digest()
        # Compare in constant time, so that nobody can learn a keyed checksum byte by byte from the time it
        # takes.
        return body if compare_digest(payload[:size], expected) else None

    return open_one


def _header(codec_id: str, secret: bytes | None) -> tuple[bytes, bytes]:
    """Return the first fields (magic to fingerprint) and the BLAKE2b key."""
    return _header_with(codec_id, secret, _KEYED | _ROW_SEALED)


def _header_with(codec_id: str, secret: bytes | None, flags: int) -> tuple[bytes, bytes]:
    name = codec_id.encode()
    if not 0 < len(name) < 256:
        raise ValueError(f"a codec id has 1 to 255 bytes, not {len(name)}: {codec_id[:40]!r}")
    if secret is None:
        return _HEAD + bytes([0, len(name)]) + name, b""
    if not secret:
        raise ValueError(f"the secret is empty; unset {SECRET_VARIABLE} to do without one")
    key = blake2b(secret, digest_size=32, person=b"flowdsl seal key").digest()
    return _HEAD + bytes([flags, len(name)]) + name + _fingerprint(key), key


def _fingerprint(key: bytes) -> bytes:
    return blake2b(key, digest_size=FINGERPRINT_SIZE, person=b"flowdsl key name").digest()


def _explain(payload: bytes, context: bytes, secret: bytes | None) -> CorruptPayload:
    """Say why a payload was refused, as far as its bytes show it."""
    if not isinstance(payload, bytes):
        return CorruptPayload(f"the payload is damaged: it is not bytes but {type(payload).__name__}")
    damaged = CorruptPayload(
        f"the payload ({len(payload)} bytes) is damaged: its checksum does not match, so it was not loaded. "
        "Restore it from a backup, or forget this step so that it executes again"
    )
    if len(payload) < 6 or payload[:3] != _MAGIC:
        return damaged
    if payload[3] != FORMAT:
        return CorruptPayload(
            f"the payload has format {payload[3]}, this flowdsl reads format {FORMAT}: a newer flowdsl wrote "
            "it, or it is damaged; it was not loaded"
        )
    flags, end = payload[4], 6 + payload[5]
    if secret is not None and flags == 0:
        return CorruptPayload(
            f"the payload was sealed without a key, but {SECRET_VARIABLE} is set, so it was not loaded: "
            "whoever can write to the storage could have made it. If you trust the storage, finish or export "
            f"its old runs with {SECRET_VARIABLE} unset"
        )
    if secret is None and flags & _KEYED:
        return CorruptPayload(
            f"the payload was sealed with a key, so it was not loaded; set {SECRET_VARIABLE} to the one "
            "it was written with"
        )
    if secret is not None:
        end += FINGERPRINT_SIZE
        if payload[end - FINGERPRINT_SIZE : end] != _fingerprint(_header("x", secret)[1]):
            return CorruptPayload(
                f"the payload was sealed with another key than {SECRET_VARIABLE} has now (or its header is "
                "damaged); it was not loaded"
            )
    mark = payload[end : end + _MARK.size]
    if len(payload) >= end + _MARK.size + CHECKSUM_SIZE and mark != _pack_mark(crc32(context), len(context)):
        return CorruptPayload(
            "the payload belongs to another run, step or kind (or its header is damaged); it was not loaded"
        )
    return damaged
