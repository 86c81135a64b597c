"""How stored data is protected, and how it is not. ``flowdsl doctor`` shows this."""

from attrs import frozen

from flowdsl.codecs.base import Codec
from flowdsl.codecs.keyed import Keyed, is_keyed
from flowdsl.codecs.payloads import Payloads

__all__ = ["Protection", "protection_of"]


@frozen
class Protection:
    """How the payloads and rows of a runtime are protected.

    * ``sealed``: nobody without ``FLOWDSL_SECRET_KEY`` can alter them unnoticed.
    * ``keyed``: nobody without a key of the codec can make a payload that loads.
    * ``hidden``: nobody without a key of the codec can read values.
    * ``previews``: readable previews of values are stored beside payloads and written to logs.
    * ``executes``: loading a payload can execute code.

    >>> from flowdsl.codecs import PickleCodec
    >>> for line in protection_of(Payloads(PickleCodec())).unprotected(): print(line)
    whoever can write to the storage can execute code in your programs: set FLOWDSL_SECRET_KEY
    whoever can read the storage can read all values: use Encrypted for what is secret
    """

    sealed: bool
    keyed: bool
    hidden: bool
    previews: bool
    executes: bool

    def unprotected(self) -> list[str]:
        """One line for each missing protection. It says what could happen, and what prevents it."""
        said = []
        if not self.sealed and self.executes and not self.keyed:
            said.append(
                "whoever can write to the storage can execute code in your programs: set FLOWDSL_SECRET_KEY"
            )
        elif not self.sealed:
            said.append(
                "whoever can write to the storage can change names, status and messages: set "
                "FLOWDSL_SECRET_KEY"
            )
        if not self.hidden:
            said.append("whoever can read the storage can read all values: use Encrypted for what is secret")
        return said


def protection_of(payloads: Payloads) -> Protection:
    """Return how the payloads that *payloads* makes are protected."""
    codec = payloads.codec
    return Protection(
        sealed=payloads.secret is not None,
        keyed=is_keyed(codec),
        hidden=codec.hides,
        previews=payloads.previews.shown,
        executes=(codec.innermost.stores_objects or codec.innermost.accepts_pickle or _accepts_plain(codec)),
    )


def _accepts_plain(codec: Codec) -> bool:
    """Whether a part of *codec* accepts payloads that were not wrapped."""
    while codec is not codec.innermost:
        if isinstance(codec, Keyed) and codec.accepts_plain:
            return True
        codec = codec.inside
    return False
