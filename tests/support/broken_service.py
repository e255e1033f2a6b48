"""A raw HTTP/1.1 service on a loopback port that breaks, byte by byte, in the ways that a test names."""

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import attrs

Act = Callable[["Exchange"], Awaitable[None]]


@attrs.define
class Exchange:
    """One request, and the connection on which it arrived."""

    service: "BrokenService"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    body: bytes

    def create(self) -> bytes:
        """Create the persona that the request asks for, and return its document."""
        request = json.loads(self.body)
        self.service.personas.append(request["name"])
        document = {"id": f"persona-{len(self.service.personas)}", "name": request["name"]}
        return json.dumps(document).encode()

    def response(self, body: bytes | None = None) -> bytes:
        """Return a complete response with this body, or with a newly created persona."""
        body = self.create() if body is None else body
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def send(self, data: bytes) -> None:
        """Send these bytes, as far as the client reads them."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """Close the connection gracefully."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection, as a crash does."""
        reset(self.writer)

    async def until_the_client_leaves(self) -> None:
        """Wait until the client closes the connection."""
        await self.reader.read()


def reset(writer: asyncio.StreamWriter) -> None:
    """Send RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class BrokenService:
    """Handle the first requests with these acts, one each, in order, and all others with `then`."""

    def __init__(
        self,
        *acts: Act,
        then: Act | None = None,
        on_connect: Act | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        """The head of every request that was received whole."""
        self.personas: list[str] = []
        """The name of every persona that was created."""
        self.connections = 0
        """How many connections were opened."""
        self.acts = deque(acts)
        """The acts for the next requests."""
        self._then = then or _serve_properly
        self._on_connect = on_connect
        self._tls = tls

    @property
    def base_url(self) -> str:
        """The address of the service."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # even if it was cancelled before it started

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._on_connect is not None:
                act, self._on_connect = self._on_connect, None
                await act(Exchange(self, reader, writer, b"", b""))
            while not writer.is_closing():
                exchange = await self._read(reader, writer)
                act = self.acts.popleft() if self.acts else self._then
                await act(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client disconnected

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        body = await reader.readexactly(length)
        self.requests.append(head)
        return Exchange(self, reader, writer, head, body)


async def _serve_properly(exchange: Exchange) -> None:
    await exchange.send(exchange.response())
