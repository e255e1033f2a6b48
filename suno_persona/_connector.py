"""A pool of connections on which a response belongs to its request.

HTTP/1.1 numbers neither requests nor responses: what arrives first on a connection counts as the response to the oldest
request (RFC 9112, section 9.3.1). So bytes that arrive on an idle connection would become the response to the next
request, though they are none (section 9.2). `Connector` closes such a connection when it is about to be used again, and
takes another. It cannot distinguish a stray response that arrives while a request is in flight from the request's own.

A session of the caller's has a connector of its own. There the same is asked just before the request is written: the
attempt fails before anything is sent, and is retried. That leaves what only `Connector` notices: the first half of a
response that the event loop read while the connection was idle, and, with TLS, what it has not read yet. A session with
middlewares may return any response and send any body: there the outcome is unknown, and on Python 3.11 such a response
goes unnoticed.
"""

import asyncio
import errno
import select
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import DEBUG

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class Connector(aiohttp.TCPConnector):
    """A `TCPConnector` that returns no connection on which anything arrived since its last response."""

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._has_arrived: weakref.WeakKeyDictionary[ResponseHandler, Callable[[], bool]] = weakref.WeakKeyDictionary()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        """Return a connection from the pool or a new one.

        Raises `aiohttp.ClientConnectorError` where the service sends before there is a request.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # there is one until it is released
            if (has_arrived := self._has_arrived.get(protocol)) is None:
                if is_disturbed(protocol):
                    connection.close()
                    reason = OSError(errno.EPROTO, "the service sent data or closed before the request")
                    raise aiohttp.ClientConnectorError(req.connection_key, reason)
                self._has_arrived[protocol] = _arrival(cast("asyncio.Transport", protocol.transport))
                return connection
            # A trace may have suspended since aiohttp looked at the connection: its socket may be closed by now.
            if protocol.is_connected() and not has_arrived() and _is_between_responses(protocol):
                return connection
            connection.close()


def is_disturbed(protocol: ResponseHandler) -> bool:
    """Whether anything has arrived before a request, or the end of the stream.

    With TLS, what the event loop has not read is left out: session tickets follow the handshake.
    """
    transport = protocol.transport
    if protocol.should_close or transport is None or transport.is_closing():
        return True
    return not transport.get_extra_info("ssl_object") and _arrival(transport)()


def _arrival(transport: asyncio.BaseTransport) -> Callable[[], bool]:
    """Return a function that says whether something has arrived that the event loop has not read."""
    socket = transport.get_extra_info("socket")
    if not socket:
        return lambda: False
    number = socket.fileno()
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select((number,), (), (), 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: bool(poll.poll(0))


# In its debug mode, aiohttp's parsers are strict; otherwise the one in Python divides lines at line feeds alone.
_EMPTY_LINES = b"\r\n\r\n" if DEBUG else b"\n\n"


def _is_between_responses(protocol: ResponseHandler) -> bool:
    """Whether the parser waits for a status line: there it ignores empty lines.

    Anywhere else they end a header section, or are an error. aiohttp replaces the parser before each request, and would
    forget the half of a response that this one holds.
    """
    protocol.read_timeout = None  # aiohttp sets it before each request; here, data would start it
    protocol.data_received(_EMPTY_LINES)
    return protocol.exception() is None and len(protocol) == 0 and not protocol.should_close
