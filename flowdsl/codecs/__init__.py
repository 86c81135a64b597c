"""Codecs turn values into bytes and back. The envelope around the bytes is checked before anything is
loaded.

Names are imported at their first use: most programs use one codec.
"""

from typing import TYPE_CHECKING

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

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
