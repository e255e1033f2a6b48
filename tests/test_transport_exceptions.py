"""Each exception of aiohttp becomes the error that says whether the request was sent."""

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
    PersonaAPI,
    PersonaError,
    ResponseTimeoutError,
    UnreadableResponseError,
    UsageError,
)
from suno_persona.testing import FakeSuno

KEY = ConnectionKey("gateway.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL("https://gateway.example"), "POST", CIMultiDict(), URL("https://gateway.example"))  # type: ignore[arg-type]  # a proxy is not needed
REFUSED = OSError(111, "Connection refused")

# Every exception class of aiohttp's client, its arguments, and the error that it becomes.
EXCEPTIONS: dict[type[Exception], tuple[tuple[Any, ...], type[PersonaError]]] = {
    aiohttp.ClientConnectorError: ((KEY, REFUSED), ConnectionFailedError),
    aiohttp.ClientConnectorDNSError: ((KEY, REFUSED), ConnectionFailedError),
    aiohttp.ClientConnectorSSLError: ((KEY, REFUSED), ConnectionFailedError),
    aiohttp.ClientConnectorCertificateError: ((KEY, Exception("expired")), ConnectionFailedError),
    aiohttp.ClientProxyConnectionError: ((KEY, REFUSED), ConnectionFailedError),
    UnixClientConnectorError: (("/run/gateway", KEY, REFUSED), ConnectionFailedError),
    aiohttp.ClientSSLError: ((KEY, REFUSED), ConnectionFailedError),
    aiohttp.ClientHttpProxyError: ((INFO, ()), ConnectionFailedError),
    aiohttp.ServerFingerprintMismatch: ((b"a", b"b", "gateway.example", 443), ConnectionFailedError),
    aiohttp.ConnectionTimeoutError: ((), ConnectionFailedError),
    aiohttp.InvalidURL: (("x",), ConnectionFailedError),
    aiohttp.InvalidUrlClientError: (("x",), ConnectionFailedError),
    aiohttp.InvalidUrlRedirectClientError: (("x",), ConnectionLostError),
    aiohttp.NonHttpUrlClientError: (("x",), ConnectionFailedError),
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
    aiohttp.WSMessageTypeError: ((), UsageError),
    TimeoutError: ((), ConnectionFailedError),  # `timeout.total`, which here strikes before a byte is written
    ConnectionResetError: ((), ConnectionLostError),
    OSError: ((), ConnectionLostError),
    # Any other exception before the first byte is written sent nothing.
    AssertionError: ((), ConnectionFailedError),
    RuntimeError: (("Session is closed",), UsageError),
    ValueError: (("Cannot combine AUTHORIZATION header with AUTH argument",), UsageError),
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


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
async def test_each_exception_of_aiohttp_says_whether_the_request_was_sent(
    kind: type[Exception], mocked: aioresponses, request_: CreatePersonaRequest
) -> None:
    """An exception while connecting sent nothing; after any other the request may have been received."""
    arguments, expected = EXCEPTIONS[kind]
    cause = kind(*arguments)
    mocked.post("https://gateway.example/suno/persona/create/", exception=cause)
    async with PersonaAPI("sk-0123456789", retry=ONCE, base_url="https://gateway.example") as api:
        with pytest.raises(PersonaError) as caught:
            await api.create(request_)
    assert type(caught.value) is expected
    assert caught.value.request is request_
    assert caught.value.__cause__ is cause


async def test_a_connection_that_fails_after_sending_leaves_the_outcome_unknown(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """Here a trace cannot connect to its own backend after the response: the request must not be sent again."""

    async def report(*_: object) -> None:
        raise aiohttp.ClientConnectorError(KEY, REFUSED)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(report)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session)
        with pytest.raises(ConnectionLostError):
            await api.create(request_)
    assert len(fake_suno.requests) == len(fake_suno.personas) == 1
