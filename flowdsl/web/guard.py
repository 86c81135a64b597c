"""Decides who may see the page. These are checked in this order, before anything else of a request is read:

1. *Host* is one of ours. (Otherwise another web site could let its own host name point to this address.)
2. *Origin*, if it is sent, is that of the Host.
3. *Sec-Fetch-Site* does not name another site, unless a link was clicked.
4. The *token*: in a cookie, as ``Authorization: Bearer``, or as ``?token=``.

If one fails, the response is 403, the same for every address. A form must also send a CSRF token, which no
other site can read. With ``Authorization: Bearer`` it need not, because no browser sends that by itself.
"""

import hmac
import re
import secrets
from collections.abc import Iterable
from hashlib import blake2b
from urllib.parse import parse_qsl

from attrs import field, frozen
from starlette.requests import HTTPConnection

__all__ = ["Admission", "Guard", "checked_hosts", "checked_token"]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+)(?::(\d{1,5}))?", re.ASCII)
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_FOREIGN_SITES = ("cross-site", "same-site")
_BITS = 24  # bytes of a token of our own


def checked_token(token: str | bool | None) -> str | None:
    """The token that readers must show; ``None``: they need none. If no token is given, one is made."""
    if token is None:
        return secrets.token_urlsafe(_BITS)
    if token is False:
        return None
    if not isinstance(token, str):
        raise TypeError(f"token= is a string, None to make one, or False to ask for none; got {token!r}")
    if not token:
        raise ValueError('token="" would let everybody in; token=False says so, None makes a token')
    return token


def checked_hosts(hosts: Iterable[str]) -> frozenset[str]:
    """The host names under which the page may be reached, in lower case, without ports."""
    if isinstance(hosts, str):
        raise TypeError(f"allowed_hosts= is a list of names; got the text {hosts!r}")
    found = {*_LOCAL}
    for host in hosts:
        name = host.lower() if isinstance(host, str) else ""
        if ":" in name and not name.startswith("[") and name.count(":") > 1:
            name = f"[{name}]"  # an address of IPv6
        match = _HOST.fullmatch(name)
        if match is None:
            raise ValueError(f"allowed_hosts= holds names such as 'flow.example.org'; got {host!r}")
        found.add(match[1])
    return frozenset(found)


@frozen
class Admission:
    """How a request was admitted: by ``Authorization`` (*bearer*), or only by ``?token=`` (*by_query*)."""

    bearer: bool = False
    by_query: bool = False


@frozen
class Guard:
    """Admits requests. *token*: ``None`` means that none is needed. *hosts*: see :func:`checked_hosts`."""

    token: str | None
    hosts: frozenset[str]
    _secret: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False)

    def admit(self, request: HTTPConnection) -> Admission | None:
        """How the request is admitted; ``None`` if it is not."""
        sent = request.headers.getlist("host")
        host = _HOST.fullmatch(sent[0].lower()) if len(sent) == 1 else None
        if host is None or host[1] not in self.hosts:
            return None
        origins = request.headers.getlist("origin")
        if any(origin.lower() not in (f"http://{host[0]}", f"https://{host[0]}") for origin in origins):
            return None
        if not all(self._same_site(request, site) for site in request.headers.getlist("sec-fetch-site")):
            return None
        return self._with_token(request)

    def _same_site(self, request: HTTPConnection, site: str) -> bool:
        if site.strip().lower() not in _FOREIGN_SITES:
            return True
        return (
            request.scope.get("method") == "GET"
            and request.headers.get("sec-fetch-mode") == "navigate"
            and request.headers.get("sec-fetch-dest", "document") == "document"
        )

    def _with_token(self, request: HTTPConnection) -> Admission | None:
        if self.token is None:
            return Admission()
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self.token):
            return Admission(bearer=True)
        cookie = request.cookies.get(self.cookie_name(request))
        if cookie is not None and _same(cookie, self.derived("cookie")):
            return Admission()
        query = request.scope.get("query_string", b"").decode("latin-1")
        tokens = [value for name, value in parse_qsl(query, max_num_fields=None) if name == "token"]
        return Admission(by_query=True) if any(_same(one, self.token) for one in tokens) else None

    def cookie_name(self, request: HTTPConnection) -> str:
        """The name of the cookie. It differs for each port, because browsers send a cookie to all ports of a
        host."""
        port = request.headers.get("host", "").rpartition("]")[2].rpartition(":")[2]
        return f"flowdsl-{port}" if port.isdigit() else "flowdsl"

    def cookie(self, request: HTTPConnection, path: str) -> str:
        """The header that sets the cookie. The token itself is not in it."""
        value = self.derived("cookie")
        return f"{self.cookie_name(request)}={value}; Path={path}; HttpOnly; SameSite=Lax"

    def derived(self, purpose: str) -> str:
        """A secret that is made from the token and does not reveal it."""
        key = self._secret if self.token is None else blake2b(self.token.encode("utf-8", "replace")).digest()
        return blake2b(purpose.encode(), key=key[:64], digest_size=24, person=b"flowdsl.web").hexdigest()

    def knows_form(self, sent: str | None) -> bool:
        """Whether *sent* is the CSRF token of our pages."""
        return sent is not None and _same(sent, self.derived("csrf"))


def _same(one: str, other: str) -> bool:
    """Compare in constant time, so that the time does not show where the texts differ."""
    encoded = (one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
    return hmac.compare_digest(*encoded)
