"""Encrypted payloads: nothing is readable without a key, nothing accepted that was not made with one."""

import sys

import forked
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl import Retry, Runtime, log, step, store, workflow
from flowdsl.codecs import Encrypted, JsonCodec, PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.errors import CorruptPayload, StorageError

fernet = pytest.importorskip("cryptography.fernet")

HERE = ("run-1", "ab" * 20, "step")
OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(min_size=32, max_size=32), st.lists(st.text(st.characters(codec="utf-8"))))
def test_comes_back_with_the_same_key(key, value):
    """What a key encrypted, the same key decrypts."""
    assert Encrypted(JsonCodec(), key).loads(Encrypted(JsonCodec(), key).dumps(value)) == value


@given(st.integers(0), st.integers(0, 100))
def test_damage_is_refused(bit, length):
    """Each flipped bit and each truncation is refused."""
    codec = Encrypted(JsonCodec(), OLD)
    data = codec.dumps({"a": [1, 2], "text": "x" * 80})
    flipped = bytearray(data)
    flipped[bit // 8 % len(data)] ^= 1 << bit % 8
    for damaged in (bytes(flipped), data[:length]):
        with pytest.raises(CorruptPayload):
            codec.loads(damaged)


def test_nothing_is_readable():
    """The encrypted bytes do not contain the text, and each encryption gives other bytes."""
    codec = Encrypted(JsonCodec(), OLD)
    one, two = codec.dumps({"iban": "DE02"}), codec.dumps({"iban": "DE02"})
    assert b"iban" not in one
    assert one != two


def test_keys_rotate():
    """The first key encrypts, all of them decrypt."""
    old, both, new = (Encrypted(JsonCodec(), key) for key in (OLD, [NEW, OLD], NEW))
    assert both.loads(old.dumps(1)) == 1
    assert new.loads(both.dumps(1)) == 1
    with pytest.raises(CorruptPayload, match="no key of Encrypted opens"):
        old.loads(both.dumps(1))


def test_keys_of_all_kinds():
    """32 bytes, the text of Fernet, and a passphrase are keys, as bytes and as text."""
    generated = fernet.Fernet.generate_key()
    for key in (generated, "correct horse battery staple", "z" * 44 + "!"):
        data = Encrypted(JsonCodec(), key).dumps([1])
        same = key.decode() if isinstance(key, bytes) else key.encode()
        assert Encrypted(JsonCodec(), same).loads(data) == [1]
        with pytest.raises(CorruptPayload):
            Encrypted(JsonCodec(), OLD).loads(data)


@pytest.mark.parametrize("key", ["", b"", [], [OLD, ""]])
def test_empty_keys_are_refused(key):
    """No key and an empty key are refused."""
    with pytest.raises(ValueError, match="key"):
        Encrypted(JsonCodec(), key)


def test_unencrypted_payloads_are_refused():
    """Unencrypted payloads are refused, unless ``accept_plain`` is set."""
    plain, _ = Payloads(PickleCodec()).pack((1, 2), *HERE)
    with pytest.raises(StorageError, match="not by Encrypted"):
        Payloads(Encrypted(PickleCodec(), OLD)).unpack(plain, *HERE)
    changing = Payloads(Encrypted(PickleCodec(), OLD, accept_plain=True))
    assert changing.unpack(plain, *HERE) == (1, 2)


def test_the_inner_codec_may_change():
    """After a change of the inner codec, old payloads load with the codec that wrote them."""
    payload, _ = Payloads(Encrypted(PickleCodec(), OLD)).pack((1, 2), *HERE)
    assert Payloads(Encrypted(JsonCodec(), [NEW, OLD])).unpack(payload, *HERE) == (1, 2)
    with pytest.raises(CorruptPayload):
        Encrypted(PickleCodec(), OLD).loads(Encrypted(JsonCodec(), OLD).dumps([1]))


def test_exceptions_are_encrypted_too():
    """Message and traceback of an encrypted exception are not readable."""
    payloads = Payloads(Encrypted(PickleCodec(), OLD))
    payload, _ = payloads.pack_error(ValueError("iban DE02"), *HERE)
    assert b"iban" not in payload
    assert str(payloads.unpack_error(payload, *HERE)) == "iban DE02"


def test_repr_shows_no_key():
    """The repr shows how many keys there are and the inner codec, and no key."""
    assert repr(Encrypted(JsonCodec(), [NEW, OLD])) == "Encrypted(JsonCodec(), <2 keys>)"


def test_says_which_extra_is_missing():
    """Without the cryptography package one line says what to install."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from flowdsl.codecs import Encrypted, JsonCodec\n"
        "try: Encrypted(JsonCodec(), 'key')\n"
        "except ImportError as error: print(error)\n"
    )
    shown = forked.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.count("\n") == 1
    assert 'pip install "flowdsl[encrypt]"' in shown


def test_a_fork_reads_what_its_run_has_kept_beside_steps():
    """A fork seals each copied record for itself: log lines, store, results and errors."""

    @step
    def last():
        return "done"

    @step(retry=Retry(attempts=1))
    def refuse():
        raise OSError("closed")

    @workflow(id="kept")
    def keep():
        log("begun", amount=3)
        store.set("stage", "paid")
        try:
            refuse()
        except OSError as error:
            return store.get("stage"), str(error), last()

    with Runtime("memory://", codec=Encrypted(PickleCodec(), b"k" * 32)) as runtime:
        found = keep()
        fork = runtime.fork("kept", before=last, id="again")
        assert fork.result() == found == ("paid", "closed", "done")
        assert [line.fields for line in fork.logs()] == [line.fields for line in runtime.run("kept").logs()]
