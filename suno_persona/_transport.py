"""One HTTP exchange on aiohttp: the only module that knows aiohttp's exceptions.

It draws the line between "never sent" and "may have been received", and knows nothing of what an answer means.
"""

import asyncio
import sys
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from suno_persona._error_body import one_line
from suno_persona._response import Response
from suno_persona._secret import Secret
from suno_persona.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    OutcomeUnknownError,
    ResponseTimeoutError,
    UnreadableResponseError,
    UsageError,
)

# What an exception of aiohttp says about the request; the first class in its MRO that stands here decides.
# Only what is raised while the connection is made says "never sent". All else may have been received.
FAILURES: dict[type[BaseException], type[ConnectionFailedError | OutcomeUnknownError]] = {
    aiohttp.InvalidUrlRedirectClientError: ConnectionLostError,  # the request did reach the address that redirects
    aiohttp.NonHttpUrlRedirectClientError: ConnectionLostError,
    aiohttp.InvalidURL: ConnectionFailedError,
    aiohttp.NonHttpUrlClientError: ConnectionFailedError,
    aiohttp.ClientConnectorError: ConnectionFailedError,  # DNS, refused, TLS, proxy
    aiohttp.ClientHttpProxyError: ConnectionFailedError,  # the proxy refused to connect
    aiohttp.ServerFingerprintMismatch: ConnectionFailedError,
    aiohttp.ConnectionTimeoutError: ConnectionFailedError,
    aiohttp.ServerTimeoutError: ResponseTimeoutError,
    TimeoutError: ResponseTimeoutError,
    aiohttp.ClientResponseError: UnreadableResponseError,  # the answer is not HTTP
    aiohttp.ClientError: ConnectionLostError,
    OSError: ConnectionLostError,
}


class _Body(aiohttp.BytesPayload):
    """A request body that remembers whether aiohttp may have begun to write the request: `False` is certain."""

    def __init__(self, value: bytes, handled: BaseException | None) -> None:
        super().__init__(value, content_type="application/json")
        self.sent = False
        self._handled = handled

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        # Headers wait in the writer's buffer and leave together with the body's first byte.
        self.sent = True
        await super().write_with_length(writer, content_length)

    async def close(self) -> None:
        # aiohttp closes the body when a request failed, and also when a middleware of the caller's session puts
        # another one in its place. What becomes of that one is not known here.
        if sys.exception() is self._handled:
            self.sent = True
        await super().close()


async def post(
    session: aiohttp.ClientSession,
    url: URL,
    *,
    headers: Mapping[str, str],
    body: bytes,
    timeout: aiohttp.ClientTimeout,
    max_response_size: int,
    secret: Secret,
) -> Response:
    """Send one POST and give its answer, also one whose body broke off (then with a `flaw`).

    `timeout` bounds it; what strikes before the first byte is written is known to have sent nothing. No error shows
    `secret`.

    Raises `ConnectionFailedError` where nothing was sent, and an `OutcomeUnknownError` where something
    was and no status came back. Redirects are not followed.
    """
    handled = sys.exception()
    payload = _Body(body, handled)
    response: aiohttp.ClientResponse | None = None
    received: list[bytes] = []
    size = 0
    flaw: OutcomeUnknownError | None = None
    try:
        response = await session.post(
            url,
            data=payload,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
        )
        while chunk := await response.content.readany():
            received.append(chunk)
            size += len(chunk)
            if size > max_response_size:
                flaw = UnreadableResponseError(
                    message=f"the answer is larger than max_response_size, {max_response_size} bytes"
                )
                break
        response.close()  # one that was read to its end has given its connection back already
    except (Exception, asyncio.CancelledError) as error:
        if response is not None:
            response.close()
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        failure = _failure(error, sent=payload.sent, total=timeout.total, secret=secret)
        _forget_frames(error, handled)
        # The cause goes along, unless it is what the secret must be kept out of.
        cause = error if secret.mask(str(error)) == str(error) else None
        if response is None or not isinstance(failure, OutcomeUnknownError):
            raise failure from cause
        failure.__cause__ = cause
        flaw = failure
    body = b"".join(received)[:max_response_size]
    return Response(status=response.status, headers=response.headers, body=body, flaw=flaw)


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task. aiohttp raises `CancelledError` also where its session was closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(
    error: BaseException, *, sent: bool, total: float | None, secret: Secret
) -> ConfigurationError | ConnectionFailedError | OutcomeUnknownError | UsageError:
    if type(error) is TimeoutError and total:  # aiohttp has kinds of its own for its other bounds
        if not sent:
            return ConnectionFailedError(message=f"no connection within {total:g} s (timeout.total)")
        return ResponseTimeoutError(message=f"no whole answer within {total:g} s (timeout.total)")
    message = one_line(secret.mask(_reason(error)))
    known = next((FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES), None)
    if known is ConnectionFailedError and sent:
        # Another connection than that of the request: of a hook, or of a middleware that tried again.
        return ConnectionLostError(message=message)
    if known is None and not sent:
        # Not of aiohttp's own: its session refused the request, or a hook of the caller's failed.
        if isinstance(error, RuntimeError):
            return UsageError(message=f"aiohttp could not send the request: {message}")
        if isinstance(error, ValueError | TypeError):
            return ConfigurationError(message=f"aiohttp could not send the request: {message}")
        return ConnectionFailedError(message=message)
    if isinstance(error.__cause__, ContentEncodingError):
        return UnreadableResponseError(message=message)
    return (known or ConnectionLostError)(message=message)


def _reason(error: BaseException) -> str:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}: {error.message}"
        case aiohttp.ClientResponseError():
            return f"the answer is not HTTP: {error.message}"
        case aiohttp.ClientPayloadError(__cause__=ContentEncodingError() as cause):
            return f"the answer cannot be decompressed: {cause.message}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection before its answer was complete"
        case asyncio.CancelledError():
            return "the session was closed meanwhile"
        case _:
            return str(error) or type(error).__name__


def _forget_frames(error: BaseException, handled: BaseException | None) -> None:
    """Take the frames out of an exception and its causes: aiohttp's hold the request's headers as bytes,
    the key among them, and crash reporters print the variables of every frame. What the caller was handling
    already is the caller's, and stays as it is."""
    chain, seen = [error], {id(handled)}
    while chain:
        link = chain.pop()
        if id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += filter(None, (link.__cause__, link.__context__))
