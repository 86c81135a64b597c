"""Exceptions of every odd kind, and what two of them have in common."""

import asyncio
import json
import subprocess
import threading
from enum import IntEnum

import attrs
import pytest

from flowdsl import errors
from flowdsl.codecs import Encrypted, JsonCodec, PickleCodec, Signed
from flowdsl.codecs.payloads import Payloads
from flowdsl.errors import StepFailed, WaitTimeout

HERE = ("run-1", "ab" * 20, "step")
CODECS = [PickleCodec(), JsonCodec(), Signed(PickleCodec(), "key"), Encrypted(JsonCodec(), b"k" * 32)]
BOTH = pytest.mark.parametrize("codec", CODECS[:2], ids=lambda codec: codec.id)


class Declined(Exception):
    """Its __init__ wants other arguments than it passes on: plain pickle fails."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Grows(Exception):
    """Its __init__ takes what it passes on, and adds to it again: plain pickle changes it."""

    def __init__(self, message):
        super().__init__(f"failed: {message}")


class KeywordOnly(Exception):
    """Cannot be called with positional arguments."""

    def __init__(self, *, status, retry_after=None):
        super().__init__(status)
        self.status, self.retry_after = status, retry_after


class NoArgs(Exception):
    """Hides its arguments from args."""

    def __init__(self, code, message):
        super().__init__()
        self.code, self.message = code, message

    def __str__(self):
        return f"[{self.code}] {self.message}"


class Slotted(Exception):
    """Keeps its state in slots, one of them None, one unset."""

    __slots__ = ("code", "detail", "never")

    def __init__(self, code):
        super().__init__("slotted")
        self.code, self.detail = code, None


@attrs.define(kw_only=True)
class AttrsError(Exception):
    """An attrs class: slots and keyword arguments."""

    code: int
    reason: str = "?"


@attrs.frozen
class FrozenError(Exception):
    """Refuses assignment."""

    code: int


class OwnNew(Exception):
    """Its __new__ wants two arguments."""

    def __new__(cls, one, two):
        return super().__new__(cls, one, two)

    def __init__(self, one, two):
        super().__init__(one)


class FromClient(Exception):
    """Carries a client that cannot be stored, and shows its name."""

    def __init__(self, client, code):
        super().__init__("client failed")
        self.client, self.code = client, code

    def __str__(self):
        return f"{self.client!r} failed with {self.code}"


class Unprintable(Exception):
    """Cannot be shown."""

    def __str__(self):
        raise RuntimeError("no text")


class SetsNothing(Exception):
    """Refuses every assignment from outside its __init__."""

    def __setattr__(self, name, value):
        raise AttributeError("read-only")


class Reduced(Exception):
    """Reduces to another type."""

    def __reduce__(self):
        return ValueError, ("not me",)


class Drops(Exception):
    """Its __reduce__ forgets attributes and notes."""

    def __reduce__(self):
        return Drops, self.args


class PaymentError(ConnectionError, KeyError):
    """Two built-in bases with different C structs."""


class Group(ExceptionGroup):
    """A group with an attribute and an __init__ of its own."""

    def __new__(cls, code, members):
        self = super().__new__(cls, f"group {code}", members)
        self.code = code
        return self

    def __init__(self, code, members):
        super().__init__(f"group {code}", members)

    def derive(self, members):
        return Group(self.code, members)


class Outer:
    """Holds a nested class."""

    class Nested(Exception):
        """Found by its qualified name."""


class Status(IntEnum):
    """An int that is more."""

    GONE = 410


def noted():
    """Return an exception with notes."""
    error = Drops("x")
    error.add_note("first")
    error.add_note("second")
    return error


def os_error():
    """Return an OSError as the system raises it."""
    try:
        open("/no/such/file")
    except OSError as error:
        return error


def syntax_error():
    """Return a SyntaxError as the compiler raises it."""
    try:
        compile("a b", "file.py", "exec")
    except SyntaxError as error:
        return error


def unicode_error():
    """Return a UnicodeDecodeError as a codec raises it."""
    try:
        b"ab\xff".decode("utf-8")
    except UnicodeDecodeError as error:
        return error


def attribute_error():
    """Return an AttributeError as the interpreter raises it, with its name and obj."""
    try:
        threading.Lock().missing
    except AttributeError as error:
        return error


ZOO = [
    ValueError("x"),
    ValueError(),
    ValueError(1, (2, b"3"), {"k": [1.5]}),
    ValueError(float("nan"), 2**100, "\ud800"),
    KeyError("key"),
    KeyError(("a", 1)),
    OSError(5, "io", "file.txt"),
    OSError(18, "rename", "one", None, "two"),
    OSError("text only"),
    os_error(),
    syntax_error(),
    unicode_error(),
    attribute_error(),
    UnicodeEncodeError("ascii", "é", 0, 1, "no"),
    StopIteration(7),
    SystemExit(3),
    KeyboardInterrupt(),
    ImportError("no", name="mod", path="p"),
    asyncio.CancelledError("stop"),
    subprocess.CalledProcessError(2, ["ls"], b"out", b"err"),
    json.JSONDecodeError("bad", "doc", 1),
    Declined(402, "no money"),
    Grows("x"),
    KeywordOnly(status=429, retry_after=1.5),
    NoArgs(1, "hidden"),
    Slotted(7),
    AttrsError(code=1),
    FrozenError(2),
    OwnNew(1, 2),
    SetsNothing("x"),
    Unprintable("x"),
    Reduced("x"),
    noted(),
    PaymentError("both"),
    Outer.Nested("x"),
    errors.RunNotFound("no run", run="r-1"),
    WaitTimeout("too late"),
    StepFailed("mod.Error: text", type_name="mod.Error"),
    ExceptionGroup("several", [ValueError(1), Declined(1, "x"), ExceptionGroup("inner", [KeyError("k")])]),
    BaseExceptionGroup("base", [KeyboardInterrupt(), ValueError("x")]),
    Group(3, [Grows("a")]),
]


def there_and_back(error, codec):
    """Return what the first run and what a replay see."""
    payload, seen = Payloads(codec).pack_error(error, *HERE)
    return seen, Payloads(codec).unpack_error(payload, *HERE)


def text(error):
    """Return str(error), or the reason that there is none."""
    try:
        return str(error)
    except Exception as problem:
        return repr(problem)


def state(error):
    """Return what an exception holds besides its arguments, without what flowdsl adds."""
    return {name: value for name, value in vars(error).items() if not name.startswith("__flow")}
