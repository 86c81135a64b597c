"""``postgresql://`` URLs, read and written."""

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import frozen

__all__ = ["Address", "postgres_address"]

_OURS = ("schema", "patience", "prepare")


@frozen(slots=True)
class Address:
    """Where a storage is, and how it is used. *dsn* is for the driver. *schema* holds the tables.

    *patience*: seconds to wait for a server that does not answer. *prepare*: whether statements are prepared
    on the server. A pooler may not support that.
    """

    dsn: str
    schema: str = "flowdsl"
    patience: float = 30.0
    prepare: bool = True

    @property
    def url(self) -> str:
        """The URL that :func:`postgres_address` reads as this."""
        options: dict[str, Any] = {"schema": self.schema}
        if self.patience != 30.0:
            options["patience"] = self.patience
        if not self.prepare:
            options["prepare"] = "no"
        return f"{self.dsn}{'&' if '?' in self.dsn else '?'}{urlencode(options, quote_via=quote)}"


def postgres_address(url: str) -> Address:
    """What a ``postgresql://`` URL means. Our own options are taken out. All others are the driver's.

    >>> address = postgres_address("postgresql://ann@db/shop?schema=flow&patience=5&sslmode=require")
    >>> address.dsn, address.schema, address.patience
    ('postgresql://ann@db/shop?sslmode=require', 'flow', 5.0)
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"write 'postgresql://user@host/database', not {url!r}")
    given = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in given if name in _OURS}
    theirs = urlencode([(name, value) for name, value in given if name not in _OURS], quote_via=quote)
    schema = ours.get("schema", "flowdsl")
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise ValueError(f"schema= is the name of a schema, 63 bytes at most; got {schema!r}")
    try:
        patience = float(ours.get("patience", 30.0))
    except ValueError:
        raise ValueError(f"patience is a number of seconds, not {ours['patience']!r}") from None
    if not 0 <= patience < float("inf"):
        raise ValueError(f"patience is a number of seconds, not {patience!r}")
    prepare = ours.get("prepare", "yes")
    if prepare not in ("yes", "no"):
        raise ValueError(f"prepare is yes or no, not {prepare!r}")
    dsn = f"postgresql://{parts.netloc}{parts.path}{'?' + theirs if theirs else ''}"
    return Address(dsn, schema, patience, prepare == "yes")
