"""Words of the command line: how times, durations, sizes and statuses read, and how text is shortened.

Everything here is pure, and everything that came from a storage passes :func:`clean` before it is shown: a
run's id or an error's message may hold whatever somebody put there, terminal escapes included.
"""

from collections.abc import Callable
from datetime import datetime

from rich.cells import cell_len

__all__ = [
    "ASCII",
    "STYLES",
    "SYMBOLS",
    "Shorten",
    "age",
    "clean",
    "cut_end",
    "cut_middle",
    "cut_start",
    "head",
    "moment",
    "owner_text",
    "size",
    "span",
    "status_text",
]

Shorten = Callable[[str, int], str]
"""Gives a text at most so many terminal columns wide."""

STYLES = {
    "completed": "green",
    "failed": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "pending": "blue",
    "waiting": "blue",
    "cancelled": "magenta",
    "undone": "magenta",
}
"""Status → its colour."""

SYMBOLS = {
    "completed": "✓",
    "failed": "✗",
    "running": "●",
    "interrupted": "!",
    "pending": "○",
    "waiting": "○",
    "cancelled": "⊘",
    "undone": "↶",
}
"""Status → a sign of one column, so that a list reads without colours."""

ASCII = str.maketrans("…✓✗●○⊘↶→·–─", "~+x*ooo>---")
"""For terminals that know ASCII only: one character for one, so that columns stay."""


def clean(text: str) -> str:
    """*text* on one line and without anything that a terminal would obey.

    >>> clean("two\\nlines \\x1b[31m")
    'two lines \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text)


def owner_text(owner: str) -> str:
    """Who executes a run.

    >>> owner_text("vm|boot|namespace|4711|started|token")
    'process 4711 on vm'
    """
    host, *parts = owner.split("|")
    return f"process {parts[2]} on {host}" if len(parts) == 5 else owner


def status_text(status: str) -> str:
    """A status with its sign."""
    return f"{SYMBOLS.get(status, ' ')} {status}"


# ---------------------------------------------------------------------------------------------------- numbers


def span(seconds: float | None) -> str:
    """A length of time in at most seven characters or so.

    >>> [span(s) for s in (0.0004, 0.25, 8.24, 75, 8000, 200_000)]
    ['<1ms', '250ms', '8.2s', '1m15s', '2h13m', '2d7h']
    """
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.0005 else "<1ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, name, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // below}{small}"
    return f"{whole}s"


def age(seconds: float) -> str:
    """How long ago something was, roughly.

    >>> age(3 * 3600 + 5), age(0.2), age(200_000)
    ('3h', '0s', '2d')
    """
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return "0s"


def moment(seconds: float | None, zone: bool = False) -> str:
    """A time, given in seconds since the epoch, on the clock of the reader; with *zone*, saying which one."""
    if seconds is None:
        return ""
    local = datetime.fromtimestamp(seconds).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %Z}" if zone else f"{local:%Y-%m-%d %H:%M:%S}"


def size(count: int) -> str:
    """A number of bytes.

    >>> size(512), size(98304), size(5 * 1024**3)
    ('512 B', '96.0 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


# ------------------------------------------------------------------------------------------------- shortening


def head(text: str, width: int) -> str:
    """As much of the beginning as fits."""
    used = 0
    for place, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return text[:place]
    return text


def tail(text: str, width: int) -> str:
    """As much of the end as fits."""
    return head(text[::-1], width)[::-1]


def cut_end(text: str, width: int) -> str:
    """The beginning: for previews.

    >>> cut_end("order=Order(id=17)", 10)
    'order=Ord…'
    """
    return text if cell_len(text) <= width else head(text, width - 1) + "…" if width > 0 else ""


def cut_start(text: str, width: int) -> str:
    """The end, from a dot on if there is one: for dotted paths.

    >>> cut_start("shop.orders.checkout", 14), cut_start("checkout", 6)
    ('….checkout', '…ckout')
    """
    if cell_len(text) <= width:
        return text
    kept = tail(text, width - 1)
    return "…" + kept[max(kept.find("."), 0) :] if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """Beginning and end: for ids, whose end is what tells neighbours apart. Commands accept an id so
    shortened.

    >>> cut_middle("checkout-53b95caf51b24ebf-12", 18)
    'checkout-53b95…-12'
    """
    if cell_len(text) <= width:
        return text
    number = text.rpartition("-")[2]
    last = len(number) + 1 if len(number) < min(5, width - 4) else min(6, width // 3)
    first = width - 1 - last
    return head(text, first) + "…" + tail(text, last) if first > 0 else cut_end(text, width)
