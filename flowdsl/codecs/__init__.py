"""Codecs turn values into bytes and back; the envelope around them is checked before anything is loaded."""

from flowdsl.codecs.base import Codec
from flowdsl.codecs.encrypted import Encrypted
from flowdsl.codecs.json import JsonCodec
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.codecs.signed import Signed

__all__ = ["Codec", "Encrypted", "JsonCodec", "PickleCodec", "Signed"]
