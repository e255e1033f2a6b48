"""One HTTP exchange on aiohttp, and its pool of connections: the only module that knows aiohttp's exceptions.

It fills an `Exchange`; `_response.py` decides what that means.
"""

import asyncio
import functools
import math
import re
import select
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import aiohttp
import attrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler

from suno_persona._error_body import one_line
from suno_persona._response import Ending, Exchange
from suno_persona._secret import Secret
from suno_persona._shield import finish
from suno_persona.errors import UsageError

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# Seconds. Shorter than the shortest time for which servers commonly keep an idle connection (5), so that a request
# rarely meets one that is being closed: whether it was received would be unknown.
_KEEP_ALIVE = 4.0

CLOSED = "the client is closed: make a new PersonaAPI"


class Transport:
    """The connections of one client to its service. The session is opened at first use, in the running event loop."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        secret: Secret,
        max_connections: int,
        max_response_size: int,
        session: aiohttp.ClientSession | None,
        proxy: Secret | None,
    ) -> None:
        self._headers = {**headers, "Authorization": secret.authorization()}
        self._secret = secret
        self._max_connections = max_connections
        self._max_response_size = max_response_size
        self._session = session
        self._pool: _Pool | None = None
        """The connections of a session of our own."""
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempts: set[_Attempt] = set()
        """Those in flight. One timer serves them all: each of its own is dear."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # by the loop's clock, which the deadlines are by, too
        self.is_closed: bool = False

    def open(self) -> None:
        """Open the session. Raises `UsageError` if it is closed, or if it belongs to another event loop."""
        if asyncio.get_running_loop() is not self._loop:
            self.join_loop()
        if self.is_closed:
            raise UsageError(message=CLOSED)
        if self._session is None:
            self._pool = _Pool(self._max_connections)
            self._session = aiohttp.ClientSession(connector=self._pool, cookie_jar=aiohttp.DummyCookieJar())
        elif self._pool is None and self._session.closed:
            raise UsageError(message="the session that was passed as session= is closed: pass an open one")

    def join_loop(self) -> None:
        """Bind the client to the running event loop, at its first use. Raises `UsageError` in another one."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise UsageError(message="the client belongs to another event loop: make one PersonaAPI per loop")

    async def close(self) -> None:
        """End the exchanges in flight, and close the connections, unless the session is the caller's."""
        self.is_closed = True
        for attempt in self._attempts:
            attempt.interrupt("closed")
        if self._timer is not None:
            self._timer.cancel()
        if self._pool is not None and self._session is not None:
            await finish(self._session.close())

    async def post(self, exchange: Exchange, body: bytes, timeout: aiohttp.ClientTimeout) -> None:
        """Send a request over the open session, and fill its exchange until it ends. Redirects are not followed.

        Raises only exceptions that end a program.
        """
        session: Any = self._session
        attempt = _Attempt(body, exchange, timeout.total)
        self._attempts.add(attempt)
        if attempt.deadline < self._due:
            self._set_timer(attempt.deadline)
        try:
            # No variable here may show the key or an echo of it: printers of tracebacks show variables.
            await session.post(
                exchange.url,
                data=attempt,
                headers=self._headers,
                timeout=_without_total(timeout),
                allow_redirects=False,
                raise_for_status=attempt.on_response,
                auto_decompress=False,
                proxy=None if self._proxy is None else self._proxy.reveal(),
            )
            content = attempt.content
            while not content.at_eof():
                attempt.received.append(await content.readany())
                if content.total_bytes > self._max_response_size:
                    exchange.ending = "too large"
                    exchange.reason = f"the response is larger than max_response_size, {self._max_response_size} bytes"
                    break
        except BaseException as error:
            attempt.read_the_rest()
            clean(error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
            self._note_failure(attempt, error, timeout.total)
        finally:
            self._attempts.discard(attempt)
            attempt.finish()

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._time_out) if due < math.inf else None

    def _time_out(self) -> None:
        for attempt in self._attempts:
            if attempt.deadline <= self._due:
                attempt.deadline = math.inf
                attempt.look()
        self._set_timer(min((attempt.deadline for attempt in self._attempts), default=math.inf))

    def _note_failure(self, attempt: "_Attempt", error: BaseException, total: float | None) -> None:
        """Note how this exception ended an attempt, in words without the key."""
        exchange = attempt.exchange
        match attempt.interruption_by(error):
            case "timeout":
                missing = "complete response" if exchange.sent else "connection"
                exchange.ending, exchange.reason = "timeout", f"no {missing} within {total:g} s (timeout.total)"
            case "closed":
                exchange.ending = "closed"
                exchange.reason = "the client was closed during the call" if exchange.sent else CLOSED
            case "cancelled":
                exchange.ending, exchange.cancellation = "cancelled", error
                exchange.reason = "cancelled while in flight" if exchange.sent else "cancelled before it was sent"
            case _:
                exchange.ending, words = _ending(error)
                words = re.sub(r"//[^/@\s]*@", "//***@", self._secret.mask(words))  # a proxy's password, too
                exchange.reason = one_line(words)
                if not isinstance(error, aiohttp.ClientError) and self._secret.mask(repr(error)) == repr(error):
                    exchange.cause = error
                if self._pool and attempt.is_reused and exchange.ending == "lost" and exchange.status is None:
                    self._pool.stop_reuse()  # the server closes connections under us


@functools.lru_cache
def _without_total(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """Return a timeout for aiohttp, without the total, which is watched here."""
    return attrs.evolve(timeout, total=None)


def _ending(error: BaseException) -> tuple[Ending, str]:
    """Return the ending that an exception means, whether or not anything was sent, and the reason in words."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return "lost", f"the proxy responded with {error.status}: {error.message}"
        case aiohttp.ClientResponseError():
            return "unreadable", f"the response is not HTTP: {error.message}"
        case aiohttp.ServerDisconnectedError():
            return "lost", "the server closed the connection before its response was complete"
        case asyncio.CancelledError():
            return "lost", "the session was closed during the call"
        case aiohttp.ServerTimeoutError():
            return "timeout", str(error) or type(error).__name__
        case aiohttp.ClientError():
            return "lost", str(error) or type(error).__name__
        case TimeoutError():
            return "timeout", f"{type(error).__name__}: {error}"
        case OSError():
            return "lost", f"{type(error).__name__}: {error}"
        case _:
            return "raised", f"{type(error).__name__}: {error}"


class _Attempt(aiohttp.BytesPayload):
    """The body of a request, which notes how far aiohttp has sent it, and how much of the response has arrived.

    The attempt can be ended early, at its deadline or when the client is closed, by cancelling its task.
    """

    protocol: ResponseHandler | None = None
    """The connection; `None` before the body is written, and in a test that mocks aiohttp."""

    is_reused = False
    """Whether the connection had a request before."""

    response: aiohttp.ClientResponse | None = None
    content: aiohttp.StreamReader
    _interruption: Ending | None = None
    _look: asyncio.Handle | None = None

    def __init__(self, value: bytes, exchange: Exchange, total: float | None) -> None:
        super().__init__(value, content_type="application/json")
        self.exchange = exchange
        self.received: list[bytes] = []
        self._handled = sys.exception()
        self.deadline = asyncio.get_running_loop().time() + total if total else math.inf
        task: Any = asyncio.current_task()
        self._task, self._cancelling = task, task.cancelling()

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: aioresponses copies its arguments, and a task cannot be copied."""
        return self

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body. aiohttp buffers the headers, and writes them together with its first byte."""
        self.exchange.sent = True
        self.protocol = getattr(writer, "protocol", None)
        await writer.write(self._value)

    async def close(self) -> None:
        """Note that aiohttp is done with the body; a middleware may have sent another one instead."""
        if sys.exception() is self._handled:
            self.exchange.sent = True

    async def on_response(self, response: aiohttp.ClientResponse) -> None:
        """Note a response as soon as its headers are there, before any hook of the caller's session."""
        self.response, self.content = response, response.content
        self.exchange.status, self.exchange.headers = response.status, response.headers

    def read_the_rest(self) -> None:
        """Read the bytes that aiohttp has received and buffered, although the request failed."""
        while self.response is None and self.exchange.status is None and self.protocol:
            try:
                self.protocol.read().send(None)  # does not suspend: there is a response
            except StopIteration as returned:
                message, content = returned.value
                if message.code >= 200:
                    self.content = content
                    self.exchange.status, self.exchange.headers = message.code, message.headers
        if self.exchange.status is not None:
            self.content.set_exception(None)  # type: ignore[arg-type]  # or it is raised
            self.received.append(self.content.read_nowait())

    def interrupt(self, ending: Ending) -> None:
        """End the exchange, by cancelling its task."""
        if self._interruption is None:
            self._interruption = ending
            self._task.cancel()

    def interruption_by(self, error: BaseException) -> Ending | None:
        """Return whether this exception is that of `interrupt`, or of a cancellation by somebody else."""
        if self._interruption is not None:
            self._task.uncancel()
        if not isinstance(error, asyncio.CancelledError):
            return None
        return "cancelled" if self._task.cancelling() > self._cancelling else self._interruption

    def look(self, seen: tuple[int, int] | None = None, quiet: int = 0, looks: int = 0) -> None:
        """Time out, as soon as the loop has read everything that had arrived.

        After a suspended process or a blocked loop, timers are due before the bytes that arrived meanwhile are read.
        """
        arrived = len(self.protocol or ()), -1 if self.response is None else self.content.total_bytes
        quiet = quiet + 1 if arrived == seen else 0
        if quiet == _QUIET_LOOKS or looks == _MOST_LOOKS:
            self.interrupt("timeout")
        else:
            self._look = asyncio.get_running_loop().call_soon(self.look, arrived, quiet, looks + 1)

    def finish(self) -> None:
        """Complete the exchange, and close the connection unless it can be used again."""
        if self._look is not None:
            self._look.cancel()
        if self.exchange.status is not None:
            self.exchange.is_whole = self.content.at_eof()
            self.exchange.received = self.received[0] if len(self.received) == 1 else b"".join(self.received)
        if self.response is not None and self.response.connection is not None:
            self.response.close()  # one that was read to its end has released it


_QUIET_LOOKS = 3  # passes of the loop: some loops read sockets after timers, and tasks run one pass later
_MOST_LOOKS = 1000


class _Pool(aiohttp.TCPConnector):
    """A `TCPConnector` that reuses a connection only if nothing has arrived on it since its last response.

    HTTP/1.1 numbers neither requests nor responses: data that arrives on an idle connection, such as the 408 that
    proxies send before they close it, would become the response to the next request (RFC 9112, section 9.3.1).
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=_KEEP_ALIVE)
        self._used = WeakSet[ResponseHandler]()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        """Return a quiet connection from the pool, or a new one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol: Any = connection.protocol  # there is one until it is released
            if protocol not in self._used:
                self._used.add(protocol)
                return connection
            if not (self._force_close or protocol.should_close or not protocol.is_connected() or _has_data(protocol)):
                if isinstance(req.body, _Attempt):
                    req.body.is_reused = True
                return connection
            connection.close()

    def stop_reuse(self) -> None:
        """Open a new connection for each request from now on."""
        self._force_close = True


def _has_data(protocol: ResponseHandler) -> bool:
    """Return whether something has arrived that the event loop has not read."""
    socket = protocol.transport and protocol.transport.get_extra_info("socket")
    if not socket:
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select((socket.fileno(),), (), (), 0)[0])
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def clean(error: BaseException) -> None:
    """Take aiohttp's frames and errors out of an exception and its causes: they hold the headers, and so the key."""
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        if (link := links.pop()) is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = _without_aiohttp(link.__traceback__)
        for name in ("__cause__", "__context__"):
            if isinstance(getattr(link, name), aiohttp.ClientError):
                setattr(link, name, None)
        links += (link.__cause__, link.__context__)


def _without_aiohttp(traceback: TracebackType | None) -> TracebackType | None:
    if traceback is None:
        return None
    rest = _without_aiohttp(traceback.tb_next)
    if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "aiohttp":
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
