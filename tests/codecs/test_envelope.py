"""The envelope: it opens for what was sealed, and for nothing else."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowdsl.codecs.envelope import seal, unseal
from flowdsl.errors import CorruptPayload

codec_ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
bodies = st.binary(max_size=400)
contexts = st.binary(max_size=80)
secrets = st.none() | st.binary(min_size=1, max_size=100)
sealings = st.tuples(codec_ids, bodies, contexts, secrets)


@given(sealings)
@example(("pickle", b"x" * 100_000, b"run", b"k" * 64))
def test_opens_for_what_was_sealed(sealing):
    """An envelope opens with the same context and secret, and gives codec id and body."""
    codec_id, body, context, secret = sealing
    assert unseal(seal(codec_id, body, context, secret), context, secret) == (codec_id, body)


@given(sealings, st.data())
def test_one_flipped_bit_is_refused(sealing, data):
    """Whichever bit is flipped, the payload is refused as corrupt."""
    codec_id, body, context, secret = sealing
    payload = bytearray(seal(codec_id, body, context, secret))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptPayload):
        unseal(bytes(payload), context, secret)


@pytest.mark.parametrize("secret", [None, b"secret"])
def test_every_single_flip_and_truncation_is_refused(secret):
    """Each flipped bit and each truncation of one payload is refused."""
    payload = seal("json", b'{"a": 1}', b"here", secret)
    damaged = [payload[:length] for length in range(len(payload))]
    damaged += [payload + b"\0", b"\0" + payload]
    for bit in range(len(payload) * 8):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for one in damaged:
        with pytest.raises(CorruptPayload):
            unseal(one, b"here", secret)


@given(sealings, contexts)
def test_another_context_is_refused(sealing, elsewhere):
    """A payload opens only with its own context."""
    codec_id, body, context, secret = sealing
    payload = seal(codec_id, body, context, secret)
    if elsewhere != context:
        with pytest.raises(CorruptPayload):
            unseal(payload, elsewhere, secret)


@given(sealings, secrets)
def test_another_secret_is_refused(sealing, other):
    """A payload opens only with its own secret, or without one if it had none."""
    codec_id, body, context, secret = sealing
    payload = seal(codec_id, body, context, secret)
    if other != secret:
        with pytest.raises(CorruptPayload):
            unseal(payload, context, other)


@given(st.binary(max_size=200) | st.binary(max_size=90).map(b"\xf1ow\x01".__add__), contexts, secrets)
def test_arbitrary_bytes_are_refused(payload, context, secret):
    """Arbitrary bytes are refused with CorruptPayload, and nothing else is raised."""
    with pytest.raises(CorruptPayload):
        unseal(payload, context, secret)


@given(sealings, st.integers(1, 20))
def test_no_byte_moves_between_context_and_body(sealing, count):
    """Bytes cannot be moved between context and body."""
    codec_id, body, context, secret = sealing
    payload = seal(codec_id, body, context, secret)
    head = payload[: len(payload) - len(body)]
    if body:
        with pytest.raises(CorruptPayload):
            unseal(head + body[count:], context + body[:count], secret)
    if context:
        with pytest.raises(CorruptPayload):
            unseal(head + context[-count:] + body, context[:-count], secret)


def refusal(payload, context=b"here", secret=None):
    """Return the message with which a payload is refused."""
    with pytest.raises(CorruptPayload) as caught:
        unseal(payload, context, secret)
    return str(caught.value)


def test_says_damaged():
    """A changed body is reported as damaged."""
    payload = bytearray(seal("json", b"[1, 2]", b"here"))
    payload[-1] ^= 1
    assert "is damaged" in refusal(bytes(payload))
    assert "is damaged" in refusal(b"")
    assert "is damaged" in refusal(bytes(payload[:-20]))


def test_says_that_it_belongs_elsewhere():
    """A payload copied to another place is reported as misplaced, not as damaged."""
    assert "belongs to another run, step or kind" in refusal(seal("json", b"[1]", b"there"))
    assert "belongs to another" in refusal(seal("json", b"[1]", b"there", b"s"), secret=b"s")


def test_says_that_the_format_is_newer():
    """A payload of a newer format is reported as such."""
    payload = bytearray(seal("json", b"[1]", b"here"))
    payload[3] = 2
    assert "has format 2" in refusal(bytes(payload))


def test_an_unsealed_payload_is_refused_where_a_secret_is_set():
    """With a secret, a payload without a key is refused, and the message says what to do."""
    text = refusal(seal("pickle", b"evil", b"here"), secret=b"secret")
    assert "without a key" in text
    assert "FLOWDSL_SECRET_KEY unset" in text


def test_says_which_variable_is_missing():
    """A keyed payload that is read without a secret names the environment variable."""
    assert "set FLOWDSL_SECRET_KEY" in refusal(seal("json", b"[1]", b"here", b"secret"))


def test_says_that_the_key_is_another_one():
    """A payload with another key is reported as such, and the message contains no key."""
    text = refusal(seal("json", b"[1]", b"here", b"old secret"), secret=b"new secret")
    assert "another key" in text
    assert "secret" not in text.replace("FLOWDSL_SECRET_KEY", "")


def test_a_forged_fingerprint_helps_nobody():
    """A payload with another key is refused even with the fingerprint of the right key."""
    ours, theirs = (seal("json", b"[1]", b"here", key) for key in (b"ours", b"theirs"))
    forged = theirs[:10] + ours[10:14] + theirs[14:]
    assert "is damaged" in refusal(forged, secret=b"ours")


@pytest.mark.parametrize("codec_id", ["", "x" * 256, "é" * 128])
def test_impossible_codec_ids_are_refused(codec_id):
    """A codec id has 1 to 255 bytes."""
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        seal(codec_id, b"", b"")


def test_an_empty_secret_is_refused():
    """An empty secret is refused."""
    with pytest.raises(ValueError, match="empty"):
        seal("json", b"", b"", b"")
    with pytest.raises(ValueError, match="empty"):
        unseal(seal("json", b"", b"", b"x"), b"", b"")


GOLDEN_PLAIN = bytes.fromhex("f16f770100046a736f6eb11b8798000000042c8241fe4686f091f4efaec321769a355b315d")
GOLDEN_KEYED = bytes.fromhex(
    "f16f770101046a736f6e74a0369eb11b879800000004ac667b5819dd495979f40a5bc5d89da85b315d"
)


def test_the_format_stays_readable():
    """Payloads of the first release still open; their bytes here never change."""
    assert unseal(GOLDEN_PLAIN, b"here") == ("json", b"[1]")
    assert unseal(GOLDEN_KEYED, b"here", b"secret") == ("json", b"[1]")
