"""Serving the page with uvicorn, for ``flowdsl ui``."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flowdsl.web.answers import HEADERS
from flowdsl.web.page import Page

__all__ = ["serve", "server_of"]

_PATIENCE = 3  # seconds that open requests have to end when the server is told to end


class _Protocol(H11Protocol):
    """The HTTP protocol. It sends our headers also in response to invalid HTTP."""

    def send_400_response(self, msg: str) -> None:
        """Respond and close the connection: 403 if the Host is missing or doubled, else 400."""
        error = sys.exc_info()[1]
        foreign = isinstance(error, h11.RemoteProtocolError) and "Host:" in str(error)
        status, text = (403, b"Forbidden\n") if foreign else (400, b"this is no request of HTTP\n")
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        headers += [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        reason = b"Forbidden" if foreign else b"Bad Request"
        answer = h11.Response(status_code=status, headers=headers, reason=reason)
        parts = [self.conn.send(event) for event in (answer, h11.Data(data=text), h11.EndOfMessage())]
        self.transport.write(b"".join(part for part in parts if part))
        self.transport.close()


class _Server(uvicorn.Server):
    """A server that says when it accepts connections, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals: :func:`serve` handles them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``ready``."""
        await super().startup(sockets)
        self._ready()


def server_of(page: Page, ready: Callable[[], Any]) -> uvicorn.Server:
    """A server of *page*. *ready* is called when it accepts connections. The caller handles signals."""
    config = uvicorn.Config(
        page,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_PATIENCE,
    )
    return _Server(config, ready)


def serve(page: Page, host: str, port: int, ready: Callable[[str], Any]) -> int:
    """Serve *page* until SIGTERM or Ctrl-C, and return the exit code: 0 or 130.

    *ready* is called with the URL, token included, when connections are accepted. Raises ``OSError`` if it
    cannot listen at the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host.strip("[]"), port), family=family)
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    query = f"/?token={page.token}" if page.token is not None else "/"
    url = f"http://{name}:{listening.getsockname()[1]}{query}"
    return asyncio.run(_until_told(server_of(page, lambda: ready(url)), page, listening))


async def _until_told(server: uvicorn.Server, page: Page, listening: socket.socket) -> int:
    told: list[int] = []

    def end(number: int) -> None:
        server.force_exit = bool(told)  # a second signal ends at once
        told.append(number)
        server.should_exit = True
        page.pulse.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    await server.serve(sockets=[listening])
    return 130 if told[:1] == [signal.SIGINT] else 0
