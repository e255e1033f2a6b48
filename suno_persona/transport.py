"""One HTTP exchange on aiohttp: the only module that knows aiohttp's exceptions.

It draws the line between "never sent" and "may have been received", and knows nothing of what an answer means.
"""

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from suno_persona.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    OutcomeUnknownError,
    ResponseTimeoutError,
    UnreadableResponseError,
    UsageError,
)
from suno_persona.response import Response

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
    Exception: ConnectionLostError,
}


class _Body(aiohttp.BytesPayload):
    """A request body that remembers whether aiohttp began to write the request."""

    sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        # Headers wait in the writer's buffer and leave together with the body's first byte.
        self.sent = True
        await super().write_with_length(writer, content_length)


async def post(
    session: aiohttp.ClientSession,
    url: URL,
    *,
    headers: Mapping[str, str],
    body: bytes,
    total: float | None,
    timeout: aiohttp.ClientTimeout,
    max_response_size: int,
) -> Response:
    """Send one POST and give its answer, also one whose body broke off (then with a `flaw`).

    `total` bounds the exchange in seconds. `timeout` holds aiohttp's other bounds and no total of its own, so
    that a total which strikes before the first byte is written is known to have sent nothing.

    Raises `ConnectionFailedError` where nothing was sent, and an `OutcomeUnknownError` where something
    was and no status came back. Redirects are not followed.
    """
    payload = _Body(body, content_type="application/json")
    response: aiohttp.ClientResponse | None = None
    received = bytearray()
    flaw: OutcomeUnknownError | None = None
    deadline = asyncio.timeout(total)
    try:
        async with (
            deadline,
            session.post(
                url,
                data=payload,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
            ) as response,
        ):
            while chunk := await response.content.readany():
                received += chunk
                if len(received) > max_response_size:
                    response.close()
                    del received[max_response_size:]
                    flaw = UnreadableResponseError(
                        message=f"the answer is larger than max_response_size, {max_response_size} bytes"
                    )
                    break
    except Exception as error:
        failure = _failure(error, expired=deadline.expired(), sent=payload.sent, total=total)
        _forget_frames(error)
        if response is None or not isinstance(failure, OutcomeUnknownError):
            raise failure from error
        failure.__cause__ = error
        flaw = failure
    return Response(status=response.status, headers=response.headers, body=bytes(received), flaw=flaw)


def _failure(
    error: Exception, *, expired: bool, sent: bool, total: float | None
) -> ConnectionFailedError | OutcomeUnknownError | UsageError:
    if expired and isinstance(error, TimeoutError):
        if not sent:
            return ConnectionFailedError(message=f"no connection within {total:g} seconds (timeout.total)")
        return ResponseTimeoutError(message=f"no whole answer within {total:g} seconds (timeout.total)")
    if isinstance(error, RuntimeError) and not sent:
        return UsageError(message=f"aiohttp cannot use its session here: {error}")
    kind = next(FAILURES[c] for c in type(error).__mro__ if c in FAILURES)
    return kind(message=str(error) or type(error).__name__)


def _forget_frames(error: BaseException | None) -> None:
    """Take the frames out of an exception and its causes: aiohttp's hold the request's headers as bytes,
    the key among them, and crash reporters print the variables of every frame.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
