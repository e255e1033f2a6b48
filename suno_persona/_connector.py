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

import errno
import select
import weakref
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class Connector(aiohttp.TCPConnector):
    """A `TCPConnector` that returns no connection on which anything arrived since its last response."""

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        """Return a connection from the pool or a new one.

        Raises `aiohttp.ClientConnectorError` where the service sends before there is a request.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # there is one until it is released
            if protocol in self._used:
                if not is_disturbed(protocol) and not is_readable(protocol) and await _is_between_responses(protocol):
                    return connection
                connection.close()
            elif is_disturbed(protocol) or is_readable(protocol, may_be_new=True):
                connection.close()
                raise aiohttp.ClientConnectorError(
                    req.connection_key, OSError(errno.EPROTO, "the service sent data or closed before the request")
                )
            else:
                self._used.add(protocol)
                return connection


def is_disturbed(protocol: ResponseHandler) -> bool:
    """Whether the event loop has read what belongs to no request, or the end of the stream."""
    return protocol.should_close or protocol.transport is None or protocol.transport.is_closing()


def is_readable(protocol: ResponseHandler, *, may_be_new: bool = False) -> bool:
    """Whether something has arrived that the event loop has not read.

    Nothing is known of a connection with TLS that may be new: session tickets follow the handshake.
    """
    transport = protocol.transport
    socket = transport and transport.get_extra_info("socket")
    if not transport or not socket or (may_be_new and transport.get_extra_info("ssl_object")):
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select((socket.fileno(),), (), (), 0)[0])
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_PROBE = b"HTTP/1.1 204 Probe\r\n\r\n"


async def _is_between_responses(protocol: ResponseHandler) -> bool:
    """Whether the parser waits for a status line: a whole response that it is fed must come out as it is.

    aiohttp replaces the parser before each request, and would forget the half of a response that this one holds.
    """
    protocol.data_received(_PROBE)
    if protocol.exception() is not None or len(protocol) != 1:
        return False
    message, _ = await protocol.read()  # which is there
    return message.reason == "Probe" and not message.raw_headers and not protocol.should_close
