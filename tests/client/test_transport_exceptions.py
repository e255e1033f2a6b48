"""Each exception of aiohttp says how an exchange ended, and what was sent decides what that means."""

import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from multidict import CIMultiDict
from support.calls import ONCE
from yarl import URL

from suno_persona import (
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    NotCreatedError,
    OutcomeUnknownError,
    PersonaAPI,
    PersonaError,
    ResponseTimeoutError,
    UnreadableResponseError,
)

KEY = ConnectionKey("gateway.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL("https://gateway.example"), "POST", CIMultiDict(), URL("https://gateway.example"))  # type: ignore[arg-type]  # a proxy is not needed
REFUSED = OSError(111, "Connection refused")

# Every exception class of aiohttp's client, its arguments, and the error that it becomes once the request was sent.
EXCEPTIONS: dict[type[Exception], tuple[tuple[Any, ...], type[OutcomeUnknownError]]] = {
    aiohttp.ClientConnectorError: ((KEY, REFUSED), ConnectionLostError),  # of a hook's own connection
    aiohttp.ClientConnectorDNSError: ((KEY, REFUSED), ConnectionLostError),
    aiohttp.ClientConnectorSSLError: ((KEY, REFUSED), ConnectionLostError),
    aiohttp.ClientConnectorCertificateError: ((KEY, Exception("expired")), ConnectionLostError),
    aiohttp.ClientProxyConnectionError: ((KEY, REFUSED), ConnectionLostError),
    UnixClientConnectorError: (("/run/gateway", KEY, REFUSED), ConnectionLostError),
    aiohttp.ClientSSLError: ((KEY, REFUSED), ConnectionLostError),
    aiohttp.ClientHttpProxyError: ((INFO, ()), ConnectionLostError),
    aiohttp.ServerFingerprintMismatch: ((b"a", b"b", "gateway.example", 443), ConnectionLostError),
    aiohttp.ConnectionTimeoutError: ((), ResponseTimeoutError),
    aiohttp.InvalidURL: (("x",), ConnectionLostError),
    aiohttp.InvalidUrlClientError: (("x",), ConnectionLostError),
    aiohttp.InvalidUrlRedirectClientError: (("x",), ConnectionLostError),
    aiohttp.NonHttpUrlClientError: (("x",), ConnectionLostError),
    aiohttp.NonHttpUrlRedirectClientError: (("x",), ConnectionLostError),
    aiohttp.ServerTimeoutError: ((), ResponseTimeoutError),
    aiohttp.SocketTimeoutError: ((), ResponseTimeoutError),
    aiohttp.ClientResponseError: ((INFO, ()), UnreadableResponseError),
    aiohttp.ContentTypeError: ((INFO, ()), UnreadableResponseError),
    aiohttp.TooManyRedirects: ((INFO, ()), UnreadableResponseError),
    aiohttp.WSServerHandshakeError: ((INFO, ()), UnreadableResponseError),
    aiohttp.ClientError: ((), ConnectionLostError),
    aiohttp.ClientConnectionError: ((), ConnectionLostError),
    aiohttp.ClientConnectionResetError: ((), ConnectionLostError),
    aiohttp.ClientOSError: ((104, "reset"), ConnectionLostError),
    aiohttp.ClientPayloadError: ((), ConnectionLostError),
    aiohttp.RedirectClientError: (("x",), ConnectionLostError),
    aiohttp.ServerConnectionError: ((), ConnectionLostError),
    aiohttp.ServerDisconnectedError: ((), ConnectionLostError),
    aiohttp.WSMessageTypeError: ((), OutcomeUnknownError),
    TimeoutError: ((), ResponseTimeoutError),
    ConnectionResetError: ((), ConnectionLostError),
    OSError: ((), ConnectionLostError),
    # Any other exception is that of a hook, or a bug.
    AssertionError: ((), OutcomeUnknownError),
    RuntimeError: (("Session is closed",), OutcomeUnknownError),
    ValueError: (("Cannot combine AUTHORIZATION header with AUTH argument",), OutcomeUnknownError),
}
# Newer than the oldest aiohttp that is supported.
for name in ("UploadAbortedError",):
    if hasattr(aiohttp, name):
        EXCEPTIONS[getattr(aiohttp, name)] = ((), ConnectionLostError)


def test_every_exception_of_aiohttp_is_in_the_table() -> None:
    """A class that a new aiohttp adds must be mapped here before that aiohttp is supported."""
    modules = (aiohttp, aiohttp.client_exceptions)
    classes = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    assert {kind for kind in classes if issubclass(kind, aiohttp.ClientError)} <= EXCEPTIONS.keys()


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
async def test_each_exception_says_how_the_call_ended(
    kind: type[Exception], sent: bool, mocked: aioresponses, request_: CreatePersonaRequest
) -> None:
    """If nothing was sent, nothing was created, whatever the exception; otherwise the outcome is unknown.

    Errors of aiohttp become words, since their frames hold the headers; any other exception is the cause.
    """
    arguments, unknown = EXCEPTIONS[kind]
    cause = kind(*arguments)

    def fail(_: object, data: Any, **__: object) -> None:
        data.exchange.sent = sent
        raise cause

    mocked.post("https://gateway.example/suno/persona/create/", callback=fail)
    async with PersonaAPI("sk-0123456789", retry=ONCE, base_url="https://gateway.example") as api:
        with pytest.raises(PersonaError) as caught:
            await api.create(request_)
    not_created = NotCreatedError if unknown is OutcomeUnknownError else ConnectionFailedError
    assert type(caught.value) is (unknown if sent else not_created)
    assert caught.value.request is request_
    assert caught.value.__cause__ is (None if isinstance(cause, aiohttp.ClientError) else cause)
