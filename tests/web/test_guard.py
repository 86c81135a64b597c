"""Who may look: Host, Origin, Sec-Fetch-Site and token, the same for every address; and the headers."""

import re

import pytest

from flowdsl.storage import MemoryStorage
from flowdsl.web import app

from .conftest import TOKEN, URL

ADDRESSES = [
    "/",
    "/runs/x",
    "/api/runs",
    "/api/runs/x/events",
    "/nowhere",
    "/static/page.css",
    "/runs/x/cancel",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_the_token_every_address_is_forbidden_alike(client, address):
    """Without the token each address gives the same 403, whether or not something is there."""
    answer = client(show_token=False).get(address)
    assert answer.status_code == 403
    assert answer.text == client(show_token=False).get("/").text


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost@evil",
        "",
        "localhost:x",
        "[::2]",
    ],
)
def test_a_foreign_host_is_refused_even_with_the_token(client, host):
    """A foreign host name is refused, even with the token."""
    assert client(headers={"Host": host}).get("/").status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]:80", "flow.example.org:1"]
)
def test_our_own_names_are_let_in_at_any_port(client, host):
    """Local names are always accepted, and others if they are allowed, at any port."""
    page = client(allowed_hosts=["flow.example.org"], headers={"Host": host})
    assert page.get("/").status_code == 200


def test_a_doubled_host_is_foreign(client):
    """Two Host headers are refused."""
    answer = client().get("/", headers=[("Host", "localhost"), ("Host", "localhost")])
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "localhost:8000", ""]
)
def test_a_foreign_origin_is_refused(client, origin):
    """A foreign Origin is refused, the port included."""
    assert client(headers={"Origin": origin}).get("/").status_code == 403


def test_our_own_origin_is_let_in(client):
    """Our own Origin is accepted, over TLS as well."""
    for origin in (URL, URL.replace("http:", "https:")):
        assert client(headers={"Origin": origin}).get("/").status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "dest", "method", "status"),
    [
        ("cross-site", "navigate", "document", "GET", 200),
        ("cross-site", "no-cors", "image", "GET", 403),
        ("cross-site", "navigate", "iframe", "GET", 403),
        ("same-site", "cors", "empty", "GET", 403),
        ("same-site", "navigate", "document", "POST", 403),
        ("same-origin", "cors", "empty", "GET", 200),
        ("none", "navigate", "document", "GET", 200),
    ],
)
def test_other_sites_may_only_link_here(client, site, mode, dest, method, status):
    """A link from another site opens, and a load or post from it is refused."""
    sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert client(headers=sent).request(method, "/").status_code == status


def test_the_token_in_the_query_becomes_a_cookie(client):
    """The printed link sets a cookie, and the address bar does not keep the token."""
    page = client(show_token=False)
    answer = page.get("/", params={"token": TOKEN, "q": "a b", "status": "failed"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?q=a+b&status=failed"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("flowdsl-8000=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in str(answer.headers) + answer.text
    assert page.get("/").status_code == 200  # by the cookie


def test_the_token_in_the_query_counts_for_one_request_of_the_api(client):
    """On ``/api/`` the token in the query counts once, and sets no cookie."""
    page = client(show_token=False)
    answer = page.get("/api/runs", params={"token": TOKEN})
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert page.get("/api/runs").status_code == 403


def test_the_redirect_never_leaves_this_host(client):
    """The redirect stays on this host, although the path begins with two slashes."""
    answer = client(show_token=False).get(f"{URL}//evil.example/?token={TOKEN}")
    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "shown", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é", "\udcff".encode("utf-8", "replace").decode()]
)
def test_another_token_is_refused(client, shown):
    """A wrong token is refused in the query, as a bearer and as a cookie."""
    page = client(show_token=False)
    assert page.get("/", params={"token": shown}).status_code == 403
    assert page.get("/", headers={"Authorization": f"Bearer {shown}".encode()}).status_code == 403
    assert page.get("/", headers={"Cookie": f"flowdsl-8000={shown}".encode()}).status_code == 403
    assert page.get("/", headers={"Cookie": f"flowdsl-8000={TOKEN}"}).status_code == 403  # it is no token


def test_no_token_is_asked_where_a_login_stands_in_front(client):
    """With ``token=False`` no token is needed, and host and origin are still checked."""
    page = client(token=False, show_token=False)
    assert page.get("/").status_code == 200
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_tokens_that_are_made_are_long_and_different():
    """A made token has at least 128 random bits, and an empty one is refused."""
    one, other = app(MemoryStorage()).token, app(MemoryStorage()).token
    assert one != other
    assert re.fullmatch(r"[\w-]{22,}", one)
    assert app(MemoryStorage(), token=False).token is None
    with pytest.raises(ValueError, match="token=False"):
        app(MemoryStorage(), token="")
    with pytest.raises(TypeError, match="a list of names"):
        app(MemoryStorage(), allowed_hosts="flow.example.org")
    with pytest.raises(ValueError, match="names such as"):
        app(MemoryStorage(), allowed_hosts=["http://flow.example.org/"])


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("shown", [True, False])
def test_every_response_has_the_headers(client, address, shown):
    """Each response, errors too, has the headers against keeping, framing, sniffing and sharing."""
    headers = client(show_token=shown).get(address).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]


def test_static_files_are_kept_under_their_hash(client):
    """A static file has its hash in its name, and may be kept."""
    page = client()
    names = re.findall(r'"(/static/[^"]+)"', page.get("/").text)
    assert len(names) == 2
    for name in names:
        answer = page.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "private" in answer.headers["cache-control"]
