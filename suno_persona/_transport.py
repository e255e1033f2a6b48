"""One HTTP exchange on aiohttp, and its pool of connections: the only module that knows aiohttp's exceptions.

It fills an `Exchange`, and does not know what that means.
"""

import asyncio
import math
import re
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

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

# How an exchange ended, by the first class in the MRO of the exception. Whether anything was sent is another question.
FAILURES: Mapping[type[BaseException], Ending] = {
    aiohttp.ClientHttpProxyError: "lost",
    aiohttp.ClientResponseError: "unreadable",  # the response is not HTTP
    aiohttp.ServerTimeoutError: "timeout",
    aiohttp.ClientError: "lost",
    TimeoutError: "timeout",
    OSError: "lost",
}

# Seconds. Shorter than the shortest time for which servers commonly keep an idle connection (5), so that a request
# rarely meets one that is being closed: whether it was received would be unknown.
_KEEP_ALIVE = 4.0

CLOSED = "the client is closed: make a new PersonaAPI"


@attrs.frozen
class Bounds:
    """The timeouts of one attempt: its total, which `Transport` watches, and the others, which aiohttp does."""

    total: float | None
    others: aiohttp.ClientTimeout

    @classmethod
    def of(cls, timeout: aiohttp.ClientTimeout) -> Self:
        """Divide a timeout."""
        return cls(timeout.total, attrs.evolve(timeout, total=None))


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
        self._watches = _Watches()
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
        self._watches.close()
        if self._pool is not None and self._session is not None:
            await finish(self._session.close())

    async def post(self, exchange: Exchange, body: bytes, bounds: Bounds) -> None:
        """Send a request over the open session, and fill its exchange until it ends. Redirects are not followed.

        Raises nothing but what ends a program.
        """
        session: Any = self._session
        sending = _Sending(body, exchange)
        watch = self._watches.begin(sending, bounds.total)
        try:
            # No variable here holds what shows the key, or an echo of it: printers of tracebacks show variables.
            await session.post(
                exchange.url,
                data=sending,
                headers=self._headers,
                timeout=bounds.others,
                allow_redirects=False,
                raise_for_status=sending.on_response,
                auto_decompress=False,
                proxy=None if self._proxy is None else self._proxy.reveal(),
            )
            content = sending.content
            while not content.at_eof():
                sending.received.append(await content.readany())
                if content.total_bytes > self._max_response_size:
                    exchange.ending = "too large"
                    exchange.reason = f"the response is larger than max_response_size, {self._max_response_size} bytes"
                    break
        except BaseException as error:
            sending.read_the_rest()
            clean(error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
            exchange.ending = watch.ending_of(error)
            exchange.reason = self._reason(exchange, error, bounds.total)
            if exchange.ending == "cancelled":
                exchange.cancellation = error
            elif not isinstance(error, aiohttp.ClientError | asyncio.CancelledError):
                exchange.cause = error if self._secret.mask(repr(error)) == repr(error) else None
            if self._pool is not None and exchange.ending == "lost" and exchange.status is None and sending.is_reused:
                self._pool.stop_reuse()  # the server closes connections under us
        finally:
            self._watches.end(watch)
            sending.finish()

    def _reason(self, exchange: Exchange, error: BaseException, total: float | None) -> str:
        match exchange.ending:
            case "timeout" if total and not isinstance(error, TimeoutError):
                missing = "complete response" if exchange.sent else "connection"
                return f"no {missing} within {total:g} s (timeout.total)"
            case "closed":
                return "the client was closed during the call" if exchange.sent else CLOSED
            case "cancelled":
                return "cancelled while in flight" if exchange.sent else "cancelled before it was sent"
        words = self._secret.mask(_words(error))
        return one_line(re.sub(r"//[^/@\s]*@", "//***@", words))  # a proxy's password, too


def _words(error: BaseException) -> str:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy responded with {error.status}: {error.message}"
        case aiohttp.ClientResponseError():
            return f"the response is not HTTP: {error.message}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection before its response was complete"
        case asyncio.CancelledError():
            return "the session was closed during the call"
        case aiohttp.ClientError():
            return str(error) or type(error).__name__
        case _:
            return f"{type(error).__name__}: {error}"


class _Sending(aiohttp.BytesPayload):
    """The body of a request, which notes what aiohttp does with it, and the response as far as it was received."""

    protocol: object = None
    response: aiohttp.ClientResponse | None = None
    content: aiohttp.StreamReader
    is_reused = False
    """Whether the connection had a request before."""

    def __init__(self, value: bytes, exchange: Exchange) -> None:
        super().__init__(value, content_type="application/json")
        self.exchange = exchange
        self.received: list[bytes] = []
        self._handled = sys.exception()

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body. aiohttp buffers the headers, and writes them together with its first byte."""
        self.exchange.sent = True
        self.protocol = getattr(writer, "protocol", None)
        await writer.write(self._value)

    async def close(self) -> None:
        """Note that aiohttp is done with the body: unless the request failed, it may have sent another one instead."""
        if sys.exception() is self._handled:
            self.exchange.sent = True

    async def on_response(self, response: aiohttp.ClientResponse) -> None:
        """Note a response as soon as its headers are there, before any hook of the caller's session."""
        self.response, self.content = response, response.content
        self.exchange.status, self.exchange.headers = response.status, response.headers

    def read_the_rest(self) -> None:
        """Read what aiohttp has received and was not read yet, although the request failed."""
        if self.response is None and isinstance(self.protocol, ResponseHandler):
            while len(self.protocol):
                try:
                    self.protocol.read().send(None)  # does not suspend: there is a response
                except StopIteration as returned:
                    message, content = returned.value
                    if message.code >= 200:
                        self.exchange.status, self.exchange.headers = message.code, message.headers
                        self.content = content
                        break
        if self.exchange.status is not None:
            self.content.set_exception(None)  # type: ignore[arg-type]  # it would be raised instead of what is there
            self.received.append(self.content.read_nowait())

    def progress(self) -> tuple[int, int]:
        """Return two numbers that change when anything arrives."""
        messages = len(self.protocol) if isinstance(self.protocol, ResponseHandler) else 0
        return messages, -1 if self.response is None else self.content.total_bytes

    def finish(self) -> None:
        """Complete the exchange, and close the connection unless it can be used again."""
        if self.exchange.status is not None:
            self.exchange.is_whole = self.content.at_eof()
            self.exchange.received = self.received[0] if len(self.received) == 1 else b"".join(self.received)
        if self.response is not None and self.response.connection is not None:
            self.response.close()  # one that was read to its end has released it, unless it is a 101
        if self.exchange.status == 101 and isinstance(self.protocol, ResponseHandler):
            self.protocol.close()  # it is HTTP no more (RFC 9110, section 15.2.2); aiohttp may keep it in its pool


class _Watches:
    """The exchanges in flight, of which some are to end early. One timer serves them all: each of its own is dear."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when the timer fires

    def begin(self, sending: _Sending, total: float | None) -> "_Watch":
        """Watch an exchange until `end`."""
        loop = asyncio.get_running_loop()
        watch = _Watch(asyncio.current_task(), sending, loop.time() + total if total else math.inf)
        self._watches.add(watch)
        if watch.deadline < self._due:
            self._set_timer(watch.deadline)
        return watch

    def end(self, watch: "_Watch") -> None:
        """Watch an exchange no more."""
        watch.is_over = True
        self._watches.discard(watch)

    def close(self) -> None:
        """End all of them."""
        for watch in self._watches:
            watch.interrupt("closed")
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._fire) if due < math.inf else None

    def _fire(self) -> None:
        now = max(asyncio.get_running_loop().time(), self._due)
        for watch in self._watches:
            if watch.deadline <= now:
                watch.deadline = math.inf
                watch.look()
        self._set_timer(min((watch.deadline for watch in self._watches), default=math.inf))


class _Watch:
    """Ends an exchange early: at its timeout, or when the client is closed."""

    __slots__ = ("_cancelling", "_ending", "_sending", "_task", "deadline", "is_over")

    def __init__(self, task: Any, sending: _Sending, deadline: float) -> None:
        self.deadline = deadline  # by the loop's clock
        self.is_over = False
        self._task = task
        self._cancelling: int = task.cancelling()
        self._sending = sending
        self._ending: Ending | None = None

    def interrupt(self, ending: Ending) -> None:
        """End the exchange, by cancelling its task."""
        if self._ending is None:
            self._ending = ending
            self._task.cancel()

    def ending_of(self, error: BaseException) -> Ending:
        """Return how an exchange ended that ended with this exception."""
        if self._ending is not None:
            self._task.uncancel()
        if not isinstance(error, asyncio.CancelledError):
            for kind in type(error).__mro__:
                if kind in FAILURES:
                    return FAILURES[kind]
            return "raised"
        if self._task.cancelling() > self._cancelling:
            return "cancelled"
        return self._ending or "lost"  # aiohttp raises it too, when its session is closed

    def look(self, seen: tuple[int, int] | None = None, quiet: int = 0, looks: int = 0) -> None:
        """End the exchange as timed out, as soon as the loop has read everything that had arrived.

        A process that was suspended, or a blocked loop, is late for its timers, and for what has arrived meanwhile.
        """
        if self.is_over:
            return
        progress = self._sending.progress()
        quiet = quiet + 1 if progress == seen else 0
        if quiet == _QUIET_LOOKS or looks == _MOST_LOOKS:
            self.interrupt("timeout")
        else:
            asyncio.get_running_loop().call_later(0, self.look, progress, quiet, looks + 1)


_QUIET_LOOKS = 3  # passes of the loop: some loops read sockets after timers, and tasks run one pass later
_MOST_LOOKS = 1000


class _Pool(aiohttp.TCPConnector):
    """A `TCPConnector` that reuses a connection only if nothing has arrived on it since its last response.

    HTTP/1.1 numbers neither requests nor responses: what arrives on an idle connection, such as the 408 that proxies
    send before they close it, would become the response to the next request (RFC 9112, section 9.3.1).
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=_KEEP_ALIVE)
        self._polls: WeakKeyDictionary[ResponseHandler, Callable[[int], Sequence[object]]] = WeakKeyDictionary()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        """Return a quiet connection from the pool, or a new one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol: Any = connection.protocol  # there is one until it is released
            poll = self._polls.get(protocol)
            if poll is None:
                self._polls[protocol] = _poll(protocol)
                return connection
            if not (self._force_close or protocol.should_close or not protocol.is_connected() or poll(0)):
                if isinstance(req.body, _Sending):
                    req.body.is_reused = True
                return connection
            connection.close()

    def stop_reuse(self) -> None:
        """Open a new connection for each request from now on."""
        self._force_close = True


def _poll(protocol: ResponseHandler) -> Callable[[int], Sequence[object]]:
    """Return a function that says whether something has arrived that the event loop has not read."""
    socket = protocol.transport and protocol.transport.get_extra_info("socket")
    if not socket:
        return lambda _: []
    number = socket.fileno()
    if not hasattr(select, "poll"):  # Windows
        return lambda _: select.select((number,), (), (), 0)[0]
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return poll.poll


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
