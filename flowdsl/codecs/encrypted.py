"""Encrypted payloads: nobody who reads the storage or a backup can see your values."""

import os
from base64 import urlsafe_b64decode
from hashlib import blake2b, scrypt
from typing import Any, ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.codecs.keyed import Keyed, Keys, key_list
from flowdsl.errors import CorruptPayload

__all__ = ["Encrypted"]

_NAME_SIZE = 4
_NONCE_SIZE = 12


class Encrypted(Keyed):
    """Encrypts another codec's bytes with AES-256-GCM. Needs ``pip install "flowdsl[encrypt]"``.

    * *codec*: makes the bytes.
    * *key*: 32 random bytes (``os.urandom(32)``), or the same as base64 text (``Fernet.generate_key()``). Any
      other text is a passphrase, from which scrypt makes a key, once. Or a sequence of keys: the first
      encrypts, all decrypt. To change a key, put the new one in front, and remove the old one when nothing is
      encrypted with it any more. One key is enough for 2**32 payloads.
    * *accept_plain*: also load what *codec* wrote unencrypted. Use it only while you change a storage: as
      long as it is set, somebody who can write to the storage can store payloads without encryption.

    No previews of values are stored, and no value is written to the log. Raises ``ImportError`` if the extra
    is not installed, and ``ValueError`` for no key or an empty one.

    >>> from flowdsl.codecs import JsonCodec
    >>> codec = Encrypted(JsonCodec(), b"32 bytes, better random than so!")
    >>> codec.loads(codec.dumps({"iban": "DE02"}))
    {'iban': 'DE02'}
    """

    prefix: ClassVar[str] = "encrypted"
    hides = True

    def __init__(self, codec: Codec, key: Keys, *, accept_plain: bool = False) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ImportError(
                'Encrypted needs the cryptography package: pip install "flowdsl[encrypt]"'
            ) from error
        keys = [_aes_key(k) for k in key_list(key)]
        super().__init__(codec, keys, accept_plain=accept_plain)
        self._invalid: type[Exception] = InvalidTag
        self._ciphers: list[tuple[bytes, Any]] = [(_name(k), AESGCM(k)) for k in keys]

    def wrap(self, body: bytes) -> bytes:
        """Return the name of the first key, the nonce, and *body* encrypted."""
        name, cipher = self._ciphers[0]
        nonce = os.urandom(_NONCE_SIZE)
        encrypted: bytes = cipher.encrypt(nonce, body, self._associated(name))
        return name + nonce + encrypted

    def unwrap(self, data: bytes) -> bytes:
        """Decrypt. Raises ``CorruptPayload`` if no key fits."""
        name, nonce = data[:_NAME_SIZE], data[_NAME_SIZE : _NAME_SIZE + _NONCE_SIZE]
        for known, cipher in self._ciphers:
            if known == name and len(nonce) == _NONCE_SIZE:
                try:
                    body: bytes = cipher.decrypt(
                        nonce, data[_NAME_SIZE + _NONCE_SIZE :], self._associated(name)
                    )
                    return body
                except self._invalid:
                    continue
        raise CorruptPayload("no key of Encrypted opens the payload; it was not loaded")

    def is_newest(self, data: bytes) -> bool:
        """Say whether *data* names the first key."""
        return data[:_NAME_SIZE] == self._ciphers[0][0]

    def _associated(self, name: bytes) -> bytes:
        # The codec's id is covered too. Otherwise a body that was encrypted as JSON could be loaded as a
        # pickle.
        return b"flowdsl 1 " + name + self._codec.id.encode()


def _aes_key(key: bytes) -> bytes:
    if len(key) == 32:
        return key
    if len(key) == 44:
        try:
            return urlsafe_b64decode(key)
        except ValueError:
            pass
    return scrypt(key, salt=b"flowdsl encrypted codec", n=2**14, r=8, p=1, dklen=32)


def _name(key: bytes) -> bytes:
    """Return a name for *key*, which is stored with each payload and reveals nothing about the key."""
    return blake2b(key, digest_size=_NAME_SIZE, person=b"flowdsl aes name").digest()
