"""A proxy between PostgreSQL and its clients, on a port of this host. It behaves like bad networks and
poolers.

It reads only the necessary part of the protocol: the statement of each message, whether it commits something,
and when its answer is complete.
"""

import asyncio
import re
import struct
from collections.abc import Callable

__all__ = ["Proxy"]

_WRITES = re.compile(rb"\b(INSERT|UPDATE|DELETE)\b")
_ENDS = b"SQXpcdf"  # messages after which the server has something to do
_REFUSED = {80877103, 80877104}  # requests to encrypt


class Proxy:
    """Listens while it is entered (``async with``); *path* is the server's socket in the file system.

    *fate* is asked at each commit: ``"before"`` cuts the connection before the server gets it, ``"after"`` when
    the server has made it and its answer is lost, ``""`` lets it pass. With *mute*, no notification arrives.
    """

    def __init__(self, path: str, *, fate: Callable[[], str] = lambda: "", mute: bool = False) -> None:
        self._path = path
        self._fate = fate
        self._mute = mute
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = None
        try:
            server = await asyncio.open_unix_connection(self._path)
            await _Conversation(reader, writer, *server, self._fate, self._mute).hold()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two has gone
        finally:
            writer.close()
            if server is not None:
                server[1].close()


class _Conversation:
    """What one client and the server say to each other."""

    def __init__(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        fate: Callable[[], str],
        mute: bool,
    ) -> None:
        self._client, self._to_client = client, to_client
        self._server, self._to_server = server, to_server
        self._fate = fate
        self._mute = mute
        self._prepared: dict[bytes, bytes] = {}  # statements by name
        self._in_transaction = False
        self._silent = False  # the server's answers are lost from now on

    async def hold(self) -> None:
        """Until one of the two ends it."""
        await self._begin()
        ways = [asyncio.create_task(self._ask()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _begin(self) -> None:
        while True:
            size, code = struct.unpack("!ii", await self._client.readexactly(8))
            rest = await self._client.readexactly(size - 8)
            if code not in _REFUSED:
                break
            self._to_client.write(b"N")
        self._to_server.write(struct.pack("!ii", size, code) + rest)

    async def _ask(self) -> None:
        batch, commits = b"", False
        while True:
            kind, message, content = await _message(self._client)
            batch += message
            commits |= self._commits(kind, content)
            if kind not in _ENDS:
                continue
            fate = self._fate() if commits else ""
            if fate == "before":
                return
            self._silent = fate == "after"
            self._to_server.write(batch)
            await self._to_server.drain()
            batch, commits = b"", False

    def _commits(self, kind: bytes, content: bytes) -> bool:
        """Whether a message makes something durable."""
        if kind == b"P":
            name, text, _ = content.split(b"\0", 2)
            self._prepared[name] = text
            return False
        if kind == b"B":
            _, name, _ = content.split(b"\0", 2)
            text = self._prepared.get(name, b"")
        elif kind == b"Q":
            text = content
        else:
            return False
        if self._in_transaction:
            return b"COMMIT" in text.upper()
        return _WRITES.search(text) is not None

    async def _answer(self) -> None:
        while True:
            kind, message, content = await _message(self._server)
            if kind == b"Z":
                self._in_transaction = content != b"I"
                if self._silent:
                    return
            if not self._silent and not (self._mute and kind == b"A"):
                self._to_client.write(message)
                await self._to_client.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes, bytes]:
    """The next message: its kind, the whole, and what it says."""
    head = await reader.readexactly(5)
    content = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
    return head[:1], head + content, content
