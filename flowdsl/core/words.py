"""The words that all faces share: signs and colours of statuses, and how times, durations and sizes read.

Terminal, web page and notebook use one table of words: sign, word, then colour. So a list can be read without
colours. Everything here is pure. Text from a storage passes :func:`clean` before a terminal shows it. A run's
id or an error's message may hold anything, terminal escapes included.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import floor, log10

from attrs import frozen

from flowdsl.core.by_fields import ByFields

__all__ = [
    "ASCII",
    "STATES",
    "State",
    "age",
    "clean",
    "clean_lines",
    "instant",
    "iso",
    "mark",
    "moment",
    "nearest",
    "owner_text",
    "round_length",
    "short_path",
    "size",
    "span",
    "state_of",
    "status_text",
]


@frozen(slots=True, eq=False, repr=False)
class State(ByFields):
    """How one status is shown.

    * ``sign``: one character of one terminal column; ``word``: the status itself.
    * ``colour``: the name of a colour that every terminal has.
    * ``light`` and ``dark``: the same as hexadecimal, for text on a white and on a nearly black ground.
    """

    word: str
    sign: str = " "
    colour: str = ""
    light: str = "#57606a"
    dark: str = "#9aa4af"


STATES = {
    state.word: state
    for state in (
        State("completed", "✓", "green", "#1a7f37", "#4ac26b"),
        State("failed", "✗", "red", "#cf222e", "#ff7b72"),
        State("running", "●", "cyan", "#0969da", "#58a6ff"),
        State("interrupted", "!", "yellow", "#8a5a00", "#e3b341"),
        State("pending", "○", "blue", "#57606a", "#9aa4af"),
        State("waiting", "○", "blue", "#57606a", "#9aa4af"),
        State("cancelled", "⊘", "magenta", "#8250df", "#bc8cff"),
        State("undone", "↶", "magenta", "#8250df", "#bc8cff"),
    )
}
"""How each status is shown. ``interrupted`` and ``waiting`` are never stored: a reader finds them out."""

ASCII = str.maketrans("…✓✗●○⊘↶→·–─━│├└┄┊┿", "~+x*ooo>----|||.:+")
"""For terminals that only know ASCII: one character for one, so columns stay aligned."""

_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_FIRST = datetime(1, 1, 1, tzinfo=UTC)


def state_of(status: str) -> State:
    """How *status* is shown. A word that is not in the table has no sign and no colour.

    >>> state_of("completed").sign, state_of("strange").word
    ('✓', 'strange')
    """
    return STATES.get(status) or State(status)


def status_text(status: str) -> str:
    """A status with its sign.

    >>> status_text("failed")
    '✗ failed'
    """
    return f"{state_of(status).sign} {status}"


def clean(text: str) -> str:
    """*text* on one line, without anything that a terminal would obey.

    >>> clean("two\\nlines \\x1b[31m")
    'two lines \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text)


def clean_lines(text: str) -> str:
    r"""*text* of several lines, each one :func:`clean`. Lines behind the first are indented, so that none of
    them can pass for one of the program's own.

    >>> clean_lines("no run \x1b[2J\nerror: forged")
    'no run \\x1b[2J\n  error: forged'
    """
    first, *more = text.split("\n")
    return "\n".join([clean(first), *(line if line[:1] == " " else f"  {line}" for line in map(clean, more))])


def owner_text(owner: str) -> str:
    """Who executes a run.

    >>> owner_text("vm|boot|namespace|4711|started|token")
    'process 4711 on vm'
    """
    host, *parts = owner.split("|")
    return f"process {parts[2]} on {host}" if len(parts) == 5 else owner


def nearest(text: str, names: Iterable[str]) -> str:
    """A hint at what was probably meant, to put behind an error. ``""`` if nothing is near.

    The end of a dotted name counts as the name. Names with unprintable characters are never offered.

    >>> nearest("chekout", ["shop.checkout", "shop.pay"]), nearest("x", ["shop.pay"])
    (" (did you mean 'shop.checkout'?)", '')
    """
    by_name: dict[str, str] = {}
    for name in names:
        if name.isprintable():
            by_name.setdefault(name.rpartition(".")[2].lower(), name)
            by_name[name.lower()] = name
    from difflib import get_close_matches  # only for this message

    found = get_close_matches(text.lower(), by_name, n=1)
    return f" (did you mean {by_name[found[0]]!r}?)" if found else ""


# -------------------------------------------------------------------------------------------- times and sizes


def instant(seconds: float) -> datetime:
    """A time in seconds since the epoch as an aware datetime in UTC.

    A time outside the calendar becomes the last or first one. ``sleep_until(datetime.max)``, stored as a
    float, is rounded into the year 10000.

    >>> instant(0.0).isoformat(), instant(1e300).year
    ('1970-01-01T00:00:00+00:00', 9999)
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return _LAST if seconds > 0 else _FIRST


def iso(seconds: float | None) -> str | None:
    """A time as ISO 8601 in UTC, for programs."""
    return None if seconds is None else instant(seconds).isoformat()


def moment(seconds: float | None, zone: bool = False) -> str:
    """A time on the reader's clock, to the second. With *zone*, it says which clock."""
    if seconds is None:
        return ""
    found = instant(seconds)
    try:
        found = found.astimezone()
    except (ValueError, OverflowError, OSError):  # the last and first day, in other zones
        pass
    return f"{found:%Y-%m-%d %H:%M:%S %Z}" if zone else f"{found:%Y-%m-%d %H:%M:%S}"


def span(seconds: float | None) -> str:
    """A length of time, in about seven characters at most.

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
    """Roughly how long ago something was.

    >>> age(3 * 3600 + 5), age(0.2), age(200_000)
    ('3h', '0s', '2d')
    """
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return "0s"


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


_ROUND = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200)
"""Round lengths of time, in seconds."""

_DAY = 86_400.0


def round_length(seconds: float) -> float:
    """The next round length of time.

    >>> [round_length(s) for s in (0.0031, 0.7, 13, 400)]
    [0.005, 1, 15, 600]
    """
    if seconds > _ROUND[-1]:
        return _DAY * -(-seconds // _DAY)
    if seconds > 0.5:
        return next(base for base in _ROUND if seconds <= base)
    power = 1.0
    while power > seconds and power > 1e-6:
        power /= 10
    return next((power * n for n in (1, 2, 5) if power * n >= seconds), power * 10)


def mark(seconds: float, step: float) -> str:
    """A length on an axis, as fine as the distance *step* of its marks.

    >>> mark(0.0, 1.0), mark(2.0, 0.5), mark(2.75, 0.05), mark(0.0015, 0.0005), mark(0.02, 0.005)
    ('0', '2.0s', '2.75s', '1.5ms', '20ms')
    """
    if seconds <= 0:
        return "0"
    if 1 <= seconds < 60 and step < 0.1:
        return f"{seconds:.{min(-floor(log10(step)), 4)}f}s"
    if seconds < 1 and step < 0.001:
        return f"{seconds * 1000:.{-floor(log10(step * 1000))}f}ms"
    return span(seconds)


def short_path(path: str, home: str) -> str:
    """The name of a step beside others of its run. *home* is the name of the run's module with a dot.

    >>> [short_path(path, "shop.") for path in ("shop.pay", "bank.pay", "flowdsl.schedule.shop.pay")]
    ['pay', 'bank.pay', 'schedule.pay']
    """
    verb = path.removeprefix(_VERBS)
    return verb.replace("schedule." + home, "schedule.") if verb != path else path.removeprefix(home)


_VERBS = "flowdsl."  # paths of calls without a user's body
