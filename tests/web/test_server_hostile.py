"""What no browser sends: raw bytes over a socket. The server answers each, shows nothing, and lives on."""

from pathlib import Path

import flowdsl
from web.conftest import TOKEN

HEAD = "Host: localhost\nConnection: close\n\n"

REQUESTS = {
    "no host": ("GET / HTTP/1.0\n\n", 403),
    "no host, 1.1": ("GET / HTTP/1.1\nConnection: close\n\n", 403),
    "two hosts": ("GET / HTTP/1.1\nHost: localhost\nHost: evil.example\nConnection: close\n\n", 403),
    "a foreign host": ("GET / HTTP/1.1\nHost: evil.example\nConnection: close\n\n", 403),
    "a foreign target": (f"GET http://evil.example/ HTTP/1.1\n{HEAD}", 404),
    "a proxy's method": (f"CONNECT evil.example:443 HTTP/1.1\n{HEAD}", 404),
    "a star": (f"OPTIONS * HTTP/1.1\n{HEAD}", 404),
    "a folder above": (f"GET /static/../../pyproject.toml HTTP/1.1\n{HEAD}", 404),
    "a folder above, encoded": (f"GET /static/..%2f..%2fpage.py HTTP/1.1\n{HEAD}", 404),
    "two slashes": (f"GET //evil.example/ HTTP/1.1\n{HEAD}", 404),
    "a NUL": (f"GET /runs/%00 HTTP/1.1\n{HEAD}", 404),
    "a surrogate": (f"GET /runs/%ED%B2%80 HTTP/1.1\n{HEAD}", 404),
    "no UTF-8": (f"GET /runs/%ff%fe HTTP/1.1\n{HEAD}", 404),
    "half an escape": (f"GET /runs/%e HTTP/1.1\n{HEAD}", 404),
    "an overlong id": (f"GET /runs/{'x' * 40_000} HTTP/1.1\n{HEAD}", 404),
    "an overlong id of the API": (f"GET /api/runs/{'x' * 40_000}/events HTTP/1.1\n{HEAD}", 404),
    "an unknown method": (f"BREW /runs/x HTTP/1.1\n{HEAD}", 405),
    "no HTTP": ("hello\n\n", 400),
    "half a line": ("GET /\n\n", 400),
    "a header without a name": (f"GET / HTTP/1.1\n: x\n{HEAD}", 400),
    "a wrong length": (f"POST /runs/x/cancel HTTP/1.1\nContent-Length: x\n{HEAD}", 400),
    "two lengths": (f"POST /runs/x/cancel HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n{HEAD}", 400),
    "an unknown run": (f"POST /runs/x/cancel HTTP/1.1\nContent-Length: 0\n{HEAD}", 404),
    "a cross-site form": (
        f"POST /runs/x/cancel HTTP/1.1\nSec-Fetch-Site: cross-site\nContent-Length: 0\n{HEAD}",
        403,
    ),
    "an origin without a host": (
        f"POST /runs/x/cancel HTTP/1.1\nOrigin: null\nContent-Length: 0\n{HEAD}",
        403,
    ),
    "odd bytes in a header": (f"GET / HTTP/1.1\nCookie: \xff\xfe=\xfd\n{HEAD}", 200),
    "a cookie of nothing": (f"GET / HTTP/1.1\nCookie: ;;=;=;\n{HEAD}", 200),
}


def test_every_request_is_answered_with_our_headers(serve):
    """Each raw request gets the right status and our headers, and the server lives on."""
    served = serve(allow_actions=True)
    wrong = {}
    for what, (request, status) in REQUESTS.items():
        answer = served.raw(request)
        head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
        if not answer.startswith(f"HTTP/1.1 {status} ".encode()):
            wrong[what] = answer[:40]
        for name in (
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ):
            assert name in head, what
        assert TOKEN.encode() not in answer
        assert str(Path(flowdsl.__file__).parent).encode() not in answer  # no traceback
    assert not wrong
    assert served.raw(f"GET / HTTP/1.1\n{HEAD}").startswith(b"HTTP/1.1 200 ")


def test_without_the_token_all_looks_the_same(serve):
    """Without the token an address that exists looks like one that does not."""
    served = serve()
    answers = [served.raw(f"GET {path} HTTP/1.1\n{HEAD}", token=None) for path in ("/", "/static/x")]
    assert answers[0].startswith(b"HTTP/1.1 403 ")
    one, other = ([line for line in answer.split(b"\r\n") if line[:4] != b"date"] for answer in answers)
    assert one == other


def test_the_server_does_not_say_what_it_is(serve):
    """No response names the server program or its version."""
    answer = serve().raw(f"GET / HTTP/1.1\n{HEAD}").partition(b"\r\n\r\n")[0].lower()
    assert b"uvicorn" not in answer
    assert b"\r\nserver:" not in answer


def test_a_body_without_an_end_is_cut_off(serve):
    """A body without an end is 413 as soon as it is too large."""
    served = serve(allow_actions=True)
    chunk = f"{1 << 16:x}\r\n".encode() + b"x" * (1 << 16) + b"\r\n"
    head = (
        b"POST /runs/x/signal HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert served.raw(head + chunk * 18 + b"0\r\n\r\n").startswith(b"HTTP/1.1 413 ")
