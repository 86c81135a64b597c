"""Codecs turn values into bytes and back. The envelope around the bytes is checked before anything is
loaded.

Names are imported at their first use: most programs use one codec.
"""

from typing import TYPE_CHECKING

from flowdsl.first_use import from_homes

if TYPE_CHECKING:
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

_HOMES = {
    "Codec": "base",
    "Compressed": "compressed",
    "Encrypted": "encrypted",
    "JsonCodec": "json",
    "Limited": "limited",
    "PickleCodec": "pickle",
    "Signed": "signed",
    "TypedJsonCodec": "typed_json",
}

if not TYPE_CHECKING:  # where it would hide that a name is not there
    __getattr__ = from_homes(__name__, _HOMES)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
