"""The values and calls of ``golden_keys.json``. Changing an entry of that file is a breaking change.

Also a script, which needs nothing but the standard library and this repository:

* ``python golden_cases.py`` prints the encodings and keys of this interpreter as JSON;
* ``python golden_cases.py --add`` adds entries for new cases to the file, and changes no old one.
"""

import ipaddress
import json
import re
import sys
import types
import typing
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

GOLDEN = Path(__file__).with_name("golden_keys.json")

if __name__ == "__main__":  # an interpreter without our dependencies: take the package without its __init__
    package = types.ModuleType("flowdsl")
    package.__path__ = [str(Path(__file__).parents[2] / "flowdsl")]
    sys.modules["flowdsl"] = package

from flowdsl.core.binding import Binder  # noqa: E402
from flowdsl.core.encoding import encode  # noqa: E402
from flowdsl.core.keys import branch_scope, content_digest, run_key, step_key  # noqa: E402


def at_home(cls: Any) -> Any:
    """Give *cls* a fixed module, whatever this file is imported as."""
    cls.__module__ = "shop.models"
    return cls


@at_home
@dataclass
class Order:
    id: int
    items: list[str]
    note: str = field(default="", compare=False)


@at_home
class Point(NamedTuple):
    x: int
    y: int


@at_home
class Colour(Enum):
    RED = "red"


@at_home
class Level(IntEnum):
    LOW = 1


@at_home
class Access(Flag):
    READ = 1
    WRITE = 2


@at_home
class Id(str):
    pass


@at_home
class Prompt(str):
    model: str


@at_home
class Declined(Exception):
    pass


@at_home
class Account:
    def __init__(self, number: int) -> None:
        self.number = number

    def __flow_key__(self) -> object:
        return self.number


@at_home
class Money:
    def __init__(self, amount: int) -> None:
        self.amount = amount


encode.register(Money)(lambda money: money.amount)


def charge(amount: Any, currency: str = "EUR", *more: Any, client: Any = None, **facts: Any) -> None:
    """A function to bind."""


def nested(levels: int) -> list[Any]:
    found: list[Any] = ["core"]
    for _ in range(levels):
        found = [found, 1]
    return found


def prompt(text: str, model: str) -> Prompt:
    found = Prompt(text)
    found.model = model
    return found


def declined(*args: Any, **attributes: Any) -> Declined:
    found = Declined(*args)
    found.__dict__.update(attributes)
    return found


def values() -> dict[str, Any]:
    """Name → value, of the types that need nothing installed."""
    berlin = ZoneInfo("Europe/Berlin")
    return {
        "None": None,
        "True": True,
        "False": False,
        "Ellipsis": ...,
        "int 0": 0,
        "int -17": -17,
        "int 10**40": 10**40,
        "float 0.0": 0.0,
        "float -0.0": -0.0,
        "float 0.1": 0.1,
        "float inf": float("inf"),
        "float nan": float("nan"),
        "complex": complex(1.5, -0.0),
        "str empty": "",
        "str": "Grüße, 世界",
        "str surrogate": "\udc80",
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "list": [1, "a", None],
        "tuple": (1, "a", None),
        "dict": {"b": 1, "a": [2], 3: None},
        "set": {"x", "y", "z", 1},
        "frozenset": frozenset({1, 2}),
        "list 3 deep": nested(3),
        "list 9 deep": nested(9),
        "OrderedDict": OrderedDict(b=1, a=2),
        "defaultdict": defaultdict(list, {"a": [1]}),
        "Counter": Counter("abca"),
        "date": date(2024, 2, 29),
        "datetime naive": datetime(2024, 2, 29, 12, 30, 15, 250),
        "datetime aware": datetime(2024, 2, 29, 12, 30, tzinfo=berlin),
        "time naive": time(12, 30),
        "time aware": time(12, 30, tzinfo=timezone(timedelta(hours=-3))),
        "timedelta": timedelta(days=-1, seconds=3, microseconds=7),
        "timezone": timezone(timedelta(hours=5, minutes=30)),
        "ZoneInfo": berlin,
        "Decimal": Decimal("12.50"),
        "Decimal -0": Decimal("-0.00"),
        "Decimal nan": Decimal("NaN"),
        "Decimal inf": Decimal("-Infinity"),
        "Fraction": Fraction(-6, 4),
        "UUID": UUID(int=2**100 + 7),
        "PurePosixPath": PurePosixPath("/a/./b"),
        "PureWindowsPath": PureWindowsPath("C:/Data/X"),
        "range": range(0, 10, 3),
        "slice": slice(1, None, 2),
        "class": Order,
        "builtin class": int,
        "builtin function": len,
        "method descriptor": str.upper,
        "dataclass": Order(7, ["pen"], note="does not count"),
        "named tuple": Point(1, 2),
        "Enum": Colour.RED,
        "IntEnum": Level.LOW,
        "Flag": Access.READ | Access.WRITE,
        "str subclass": Id("x"),
        "flow key": Account(12),
        "registered": Money(3),
        "str subclass with an attribute": prompt("hi", "small"),
        "exception": declined("no", code=7),
        "built-in exception": KeyError("k"),
        "OSError": FileNotFoundError(2, "gone", "a.txt"),
        "deque": deque([1, "a"]),
        "mappingproxy": types.MappingProxyType({"a": 1}),
        "ChainMap": ChainMap({"a": 1}, {"a": 2, "b": 3}),
        "SimpleNamespace": types.SimpleNamespace(a=1),
        "pattern": re.compile("a+", re.IGNORECASE),
        "bytes pattern": re.compile(b"a+"),
        "IPv4Address": ipaddress.ip_address("10.0.0.1"),
        "IPv6Address": ipaddress.ip_address("fe80::1%eth0"),
        "IPv4Interface": ipaddress.ip_interface("10.0.0.1/8"),
        "IPv4Network": ipaddress.ip_network("10.0.0.0/8"),
        "IPv6Network": ipaddress.ip_network("::ffff:0:0/96"),
        "generic alias": dict[str, list[int]],
        "union": int | None,
        "typing alias": typing.List[int],  # noqa: UP006
        "Literal": typing.Literal["a", 1],
        "Callable": typing.Callable[[int], str],
        "uniform ints": list(range(-5, 20)),
        "uniform texts": [f"x{i}é" for i in range(9)],
        "uniform floats": [i / 4 for i in range(9)],
        "rows": [
            {"id": i, "city": f"c{i}", "open": i > 3, "at": i / 2, "n": None, "t": (i,)} for i in range(20)
        ],
    }


def calls() -> dict[str, str]:
    """Name → key, of calls and scopes."""
    binder = Binder(charge, path="shop.charge", ignore=("client",))
    by_key = Binder(charge, path="shop.charge", key=lambda amount, *_: amount)
    method = Binder(Account.__flow_key__, path="shop.Account.show", receiver=True)
    plain = binder.bind((10,), {})
    content = content_digest("", "shop.charge", "", plain.canonical)
    return {
        "plain": plain.key(),
        "all": binder.bind((10, "USD", 1, 2), {"client": 1, "ref": "x"}).key(),
        "in a scope": plain.key(scope=branch_scope("", "gather", 0, 1)),
        "of a version": plain.key(version="2"),
        "again": step_key(content, 1),
        "once more": step_key(content, 2),
        "with key=": by_key.bind((10,), {}).key(),
        "on an instance": method.bind((), {}, Account(12)).key(),
        "on a class": method.bind((), {}, Account).key(),
        "run": run_key("shop.checkout", "", plain.canonical),
        "run of a version": run_key("shop.checkout", "2", plain.canonical),
        "branch": branch_scope("", "gather", 0, 1),
        "inner branch": branch_scope(plain.key(), "submit", 3, 0),
        "defaults": binder.bind((10,), {}).defaults,
    }


def current() -> dict[str, dict[str, str]]:
    """What this interpreter makes of all cases."""
    return {"encodings": {name: encode(value).hex() for name, value in values().items()}, "keys": calls()}


def golden() -> dict[str, dict[str, str]]:
    """What the file holds."""
    loaded: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text())
    return loaded


if __name__ == "__main__":
    if "--add" in sys.argv:
        kept = golden() if GOLDEN.exists() else {}
        merged = {part: made | kept.get(part, {}) for part, made in current().items()}
        GOLDEN.write_text(json.dumps(merged, indent=1) + "\n")
    else:
        json.dump(current(), sys.stdout)
