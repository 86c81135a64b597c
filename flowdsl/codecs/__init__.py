"""Codecs turn values into bytes and back. The envelope around the bytes is checked before anything is
loaded."""

from flowdsl.codecs.base import Codec
from flowdsl.codecs.compressed import Compressed
from flowdsl.codecs.encrypted import Encrypted
from flowdsl.codecs.json import JsonCodec
from flowdsl.codecs.limited import Limited
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.codecs.signed import Signed
from flowdsl.codecs.typed_json import TypedJsonCodec

__all__ = [
    "Codec",
    "Compressed",
    "Encrypted",
    "JsonCodec",
    "Limited",
    "PickleCodec",
    "Signed",
    "TypedJsonCodec",
]
