"""One HTTP exchange on aiohttp: the only module that knows aiohttp's exceptions.

It separates "never sent" from "may have been received", and does not know what a response means.
"""

import asyncio
import sys

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import ContentEncodingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from suno_persona._connector import Connector, is_disturbed
from suno_persona._error_body import one_line
from suno_persona._response import Response
from suno_persona._secret import Secret
from suno_persona.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    NotCreatedError,
    OutcomeUnknownError,
    ResponseTimeoutError,
    UnreadableResponseError,
    UsageError,
)

# What an exception of aiohttp means for the request: the first class in its MRO with an entry here decides.
# Only errors of connecting mean "never sent"; after any other, the service may have received the request.
FAILURES: dict[type[BaseException], type[ConnectionFailedError | OutcomeUnknownError]] = {
    aiohttp.InvalidUrlRedirectClientError: ConnectionLostError,  # the request reached the address that redirects
    aiohttp.NonHttpUrlRedirectClientError: ConnectionLostError,
    aiohttp.InvalidURL: ConnectionFailedError,
    aiohttp.NonHttpUrlClientError: ConnectionFailedError,
    aiohttp.ClientConnectorError: ConnectionFailedError,  # DNS, no listener, TLS, proxy
    aiohttp.ClientHttpProxyError: ConnectionFailedError,  # the proxy did not connect
    aiohttp.ServerFingerprintMismatch: ConnectionFailedError,
    aiohttp.ConnectionTimeoutError: ConnectionFailedError,
    aiohttp.ServerTimeoutError: ResponseTimeoutError,
    TimeoutError: ResponseTimeoutError,
    aiohttp.ClientResponseError: UnreadableResponseError,  # the response is not HTTP
    aiohttp.ClientError: ConnectionLostError,
    OSError: ConnectionLostError,
}


class _Body(aiohttp.BytesPayload):
    """A request body that records whether aiohttp may have begun to write the request; `False` is certain."""

    def __init__(self, value: bytes, handled: BaseException | None, *, is_checked: bool) -> None:
        super().__init__(value, content_type="application/json")
        self.sent = False
        self.is_written = False
        self.transport: asyncio.WriteTransport | None = None
        """That of the connection on which it was last about to be written."""
        self.is_withheld = False
        """Whether it was not written, because something had arrived on the connection before it."""
        self._handled = handled
        self._is_checked = is_checked

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.transport = writer.transport
        if self._is_too_late():
            self.is_withheld = True
            raise ConnectionError("a response arrived before the request")
        # aiohttp buffers the headers and writes them together with the first byte of the body.
        self.is_written = self.sent = True
        await super().write_with_length(writer, content_length)

    def _is_too_late(self) -> bool:
        protocol = self.transport and self.transport.get_protocol()
        if not isinstance(protocol, ResponseHandler):
            return False
        return len(protocol) > 0 if self._is_checked else is_disturbed(protocol)

    async def close(self) -> None:
        # aiohttp closes the body after a failed request, but also where a middleware of the caller's session replaces
        # it. Nothing here observes the writing of the replacement.
        if sys.exception() is self._handled:
            self.sent = True
        await super().close()


async def post(
    session: aiohttp.ClientSession,
    url: URL,
    *,
    headers: CIMultiDict[str],
    body: bytes,
    timeout: aiohttp.ClientTimeout,
    max_response_size: int,
    secret: Secret,
) -> Response:
    """Send one POST with the key `secret` and return its response; one whose body is incomplete has a `flaw`.

    `timeout` bounds the exchange. Redirects are not followed. No error shows the key.

    Raises `ConnectionFailedError` if nothing was sent, and an `OutcomeUnknownError` if something was sent and no status
    came back.
    """
    handled = sys.exception()
    payload = _Body(body, handled, is_checked=isinstance(session.connector, Connector))
    response: aiohttp.ClientResponse | None = None
    received: list[bytes] = []
    size = 0
    failure: NotCreatedError | OutcomeUnknownError | None = None
    flaw: OutcomeUnknownError | None = None
    try:
        response = await session.post(
            url,
            data=payload,
            headers=_signed(headers, secret),
            timeout=timeout,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
        )
        if not payload.is_written and (payload.is_withheld or _is_stray(session, response)):
            payload.is_withheld = True
            payload.sent = payload.sent and not _is_plain(session)  # aiohttp has closed the body by now
            raise ConnectionError("a response arrived before the request")  # noqa: TRY301  # as if aiohttp noticed it
        if response.status == 101 and payload.transport is not None:
            payload.transport.close()  # it is HTTP no more (RFC 9110, section 15.2.2); aiohttp may keep it in its pool
        while chunk := await response.content.readany():
            received.append(chunk)
            size += len(chunk)
            if size > max_response_size:
                flaw = UnreadableResponseError(
                    message=f"the response is larger than max_response_size, {max_response_size} bytes"
                )
                break
        if response.connection is not None:  # one that was read to its end has released it, unless it is a 101
            response.close()
    except BaseException as error:
        if response is not None:
            response.close()
        cause = _without_secret(error, handled, secret)
        if not isinstance(error, Exception) and not _is_closed_session(error):
            response, received = None, []  # no frame of this traceback shows what they hold
            if cause is None:
                error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904  # it is the exception that is handled
        failure = _failure(error, payload, total=timeout.total, secret=secret)
        failure.__cause__ = cause
        flaw = failure if response is not None and isinstance(failure, OutcomeUnknownError) else None
    # Raised out here, so that `error`, which may show the key, does not become its context.
    if response is None or (failure is not None and flaw is None):
        response, received = None, []
        raise failure  # type: ignore[misc]  # without a response there is one
    body = b"".join(received)[:max_response_size]
    return Response(status=response.status, headers=response.headers, body=body, flaw=flaw)


def _signed(headers: CIMultiDict[str], secret: Secret) -> CIMultiDict[str]:
    signed = headers.copy()
    signed["Authorization"] = secret.authorization()
    return signed


def _is_stray(session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> bool:
    """Whether a response was received before its request was written: on Python 3.11, aiohttp returns it."""
    return response.version is not None and _is_plain(session)  # a response of a test's making has no version


def _is_plain(session: aiohttp.ClientSession) -> bool:
    """Whether all that a session returns comes from its connections, and all that it sends is what it was passed."""
    return type(session) is aiohttp.ClientSession and not getattr(session, "_middlewares", ())


def _is_closed_session(error: BaseException) -> bool:
    """Whether nobody cancelled the task: aiohttp raises `CancelledError` also when its session is closed."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()


def _failure(
    error: BaseException, payload: _Body, *, total: float | None, secret: Secret
) -> NotCreatedError | OutcomeUnknownError:
    sent = payload.sent
    if payload.is_withheld and not sent:
        return ConnectionFailedError(message="the connection was not used: something arrived on it before the request")
    if type(error) is TimeoutError and total:  # aiohttp raises subclasses for its other bounds
        if not sent:
            return ConnectionFailedError(message=f"no connection within {total:g} s (timeout.total)")
        return ResponseTimeoutError(message=f"no complete response within {total:g} s (timeout.total)")
    message = one_line(secret.mask(_reason(error)))
    known = next((FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES), None)
    if known is ConnectionFailedError and sent:
        # Not the request's own connection: a hook's, or that of a middleware that sent the request again.
        return ConnectionLostError(message=message)
    if known is None and not sent:
        # Not an error of aiohttp's: its session rejected the request, or a hook of the caller's failed.
        if isinstance(error, RuntimeError | ValueError | TypeError):
            return UsageError(message=f"aiohttp could not send the request: {message}")
        return ConnectionFailedError(message=message)
    if isinstance(error.__cause__, ContentEncodingError):
        return UnreadableResponseError(message=message)
    return (known or ConnectionLostError)(message=message)


def _reason(error: BaseException) -> str:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy responded with {error.status}: {error.message}"
        case aiohttp.ClientResponseError():
            return f"the response is not HTTP: {error.message}"
        case aiohttp.ClientPayloadError(__cause__=ContentEncodingError() as cause):
            return f"the response cannot be decompressed: {cause.message}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection before its response was complete"
        case asyncio.CancelledError():
            return "the session was closed during the request"
        case _:
            return str(error) or type(error).__name__


def _without_secret(error: BaseException, handled: BaseException | None, secret: Secret) -> BaseException | None:
    """Take what shows the key out of an exception and its causes; `None` if something is left.

    aiohttp's frames and its description of the request hold the headers, and with them the key; crash reporters print
    the variables of every frame. `handled`, the exception that the caller was already handling, is left alone.
    """
    links, seen, shown = [error], {id(handled)}, False
    while links:
        link = links.pop()
        if id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            if isinstance(link, aiohttp.ClientResponseError) and isinstance(link.request_info, aiohttp.RequestInfo):
                link.request_info = link.request_info._replace(headers=CIMultiDictProxy(CIMultiDict()))
                link.history = ()
                link.args = (link.request_info, link.history)
            text = f"{link} {link!r}"
            held = (*link.args, *vars(link).values())
            shown |= secret.mask(text) != text
            shown |= any(isinstance(value, aiohttp.ClientRequest | aiohttp.ClientResponse) for value in held)
            links += filter(None, (link.__cause__, link.__context__))
            links += getattr(link, "exceptions", ())  # of a group
    return None if shown else error
