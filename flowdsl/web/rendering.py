"""Templates and static files. The names of the two static files change with their content."""

from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined

from flowdsl.core.words import age, clean, short_path, span, state_of
from flowdsl.web.address import href
from flowdsl.web.answers import refused_text
from flowdsl.web.tables import KINDS

__all__ = ["FIRST", "Renderer", "Static", "step_name"]

FIRST = "<!-- the first screenful -->"
"""A template puts this where a browser has enough to show a first screen."""

_TYPES = {"css": "text/css", "js": "text/javascript"}


@frozen
class Static:
    """A file whose content never changes under this name."""

    body: bytes
    media_type: str


class Renderer:
    """Renders pages. *static*: the static files, by the last segment of their address."""

    def __init__(self) -> None:
        self.static: dict[str, Static] = {}
        self._names: dict[str, str] = {}
        folder = files("flowdsl.web") / "static"
        for name in ("page.css", "page.js"):
            body = (folder / name).read_bytes()
            stem, _, kind = name.rpartition(".")
            hashed = f"{stem}.{blake2b(body, digest_size=8).hexdigest()}.{kind}"
            self.static[hashed] = Static(body, _TYPES[kind])
            self._names[name] = hashed
        self._templates = Environment(
            loader=PackageLoader("flowdsl.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            clean=clean, refused=refused_text, span=span, state=state_of, short=short, tail=tail, q=quoted
        )
        self._templates.globals.update(
            href=href, file=self._names.__getitem__, ago=ago, stamp=stamp, name=step_name
        )

    def page(self, template: str, **context: Any) -> str:
        """Fill in a template."""
        return self._templates.get_template(template).render(context)

    def pieces(self, template: str, **context: Any) -> Iterator[str]:
        """Fill in a template, in two pieces. The template marks the end of the first with :data:`FIRST`. The
        rest is made when it is needed."""
        made = self._templates.get_template(template).generate(context)
        first, rest = [], ""
        for piece in made:
            before, mark, rest = piece.partition(FIRST)
            first.append(before)
            if mark:
                break
        yield "".join(first)
        yield rest + "".join(made)

    def refused(self) -> str:
        """The page for somebody who may not see anything. It is the same for every address."""
        return self.page("refused.html")

    def error(self, status: int, said: str, base: str) -> str:
        """A page that says what is wrong."""
        context = {"base": base, "csrf": "", "kinds": KINDS, "allow_actions": False}
        return self.page("error.html", status=status, said=said, **context)


def short(value: str, most: int = 160) -> str:
    """A text on one line, shortened to *length* characters."""
    shown = clean(value)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def quoted(value: str) -> str:
    """A text as part of a query."""
    return quote(value, safe="", errors="replace")


def step_name(path: str, home: str) -> str:
    """The short name of a step. *home* is the name of the run's module with a dot.

    >>> step_name("shop.charge", "shop."), step_name("flowdsl.sleep", "shop."), step_name("bank.pay", "shop.")
    ('charge', 'sleep', 'pay')
    """
    own = short_path(path, home)
    return own if own != path else tail(path)


def tail(path: str) -> str:
    """The last part of a dotted name.

    >>> tail("shop.orders.checkout")
    'checkout'
    """
    return path.rpartition(".")[2] or path


def ago(seconds: float) -> str:
    """How long ago something was."""
    return f"{age(seconds)} ago" if seconds >= 1 else "now"


def stamp(at: datetime | None) -> str:
    """A time, in UTC, to the second."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
