"""One exchange on aiohttp: its exception says how it ended, and whether anything was sent says what that means."""

import asyncio
import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from multidict import CIMultiDict
from support.calls import BASE, KEY, ONCE, REQUEST, failure
from support.clock import Clock
from support.resolver import Resolver
from yarl import URL

from suno_persona import NotCreatedError, OutcomeUnknownError, PersonaAPI, RejectedError
from suno_persona.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    ResponseTimeoutError,
    UnreadableResponseError,
)
from suno_persona.testing import FakeSuno, Fault

HOST = ConnectionKey("gateway.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL(BASE), "POST", CIMultiDict(), URL(BASE))  # type: ignore[arg-type]  # a proxy is not needed
REFUSED = OSError(111, "Connection refused")

# Every exception of aiohttp's client, and others, by the error that each becomes once the request was sent.
EXCEPTIONS: dict[type[OutcomeUnknownError], list[Exception]] = {
    ResponseTimeoutError: [
        *(aiohttp.ConnectionTimeoutError(), aiohttp.ServerTimeoutError(), aiohttp.SocketTimeoutError(), TimeoutError()),
    ],
    UnreadableResponseError: [
        *(aiohttp.ClientResponseError(INFO, ()), aiohttp.ContentTypeError(INFO, ())),
        *(aiohttp.TooManyRedirects(INFO, ()), aiohttp.WSServerHandshakeError(INFO, ())),
    ],
    OutcomeUnknownError: [  # a hook's, or a bug's
        *(
            AssertionError(),
            RuntimeError("Session is closed"),
            ValueError("AUTHORIZATION"),
            aiohttp.WSMessageTypeError(),
        ),
    ],
    ConnectionLostError: [
        *(aiohttp.ClientConnectorError(HOST, REFUSED), aiohttp.ClientConnectorDNSError(HOST, REFUSED)),
        *(aiohttp.ClientConnectorSSLError(HOST, REFUSED), aiohttp.ClientSSLError(HOST, REFUSED)),
        *(aiohttp.ClientConnectorCertificateError(HOST, Exception("expired")), aiohttp.ClientOSError(104, "reset")),
        *(UnixClientConnectorError("/run/gateway", HOST, REFUSED), aiohttp.ClientProxyConnectionError(HOST, REFUSED)),
        *(
            aiohttp.ServerFingerprintMismatch(b"a", b"b", "gateway.example", 443),
            aiohttp.ClientHttpProxyError(INFO, ()),
        ),
        *(aiohttp.InvalidURL("x"), aiohttp.InvalidUrlClientError("x"), aiohttp.InvalidUrlRedirectClientError("x")),
        *(aiohttp.NonHttpUrlClientError("x"), aiohttp.NonHttpUrlRedirectClientError("x")),
        *(aiohttp.RedirectClientError("x"), aiohttp.ClientError(), aiohttp.ClientPayloadError()),
        *(aiohttp.ClientConnectionError(), aiohttp.ClientConnectionResetError(), aiohttp.ServerConnectionError()),
        *(aiohttp.ServerDisconnectedError(), ConnectionResetError(), OSError()),
    ],
}
if hasattr(aiohttp, "UploadAbortedError"):  # newer than the oldest aiohttp that is supported
    EXCEPTIONS[ConnectionLostError].append(aiohttp.UploadAbortedError())
CASES = [(cause, unknown) for unknown, causes in EXCEPTIONS.items() for cause in causes]


def test_every_exception_of_aiohttp_is_in_the_table() -> None:
    """A class that a new aiohttp adds must be mapped here before that aiohttp is supported."""
    modules = (aiohttp, aiohttp.client_exceptions)
    classes = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    assert {kind for kind in classes if issubclass(kind, aiohttp.ClientError)} <= {type(cause) for cause, _ in CASES}


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("cause", "unknown"), CASES, ids=lambda value: type(value).__name__)
async def test_each_exception_says_how_the_call_ended(
    cause: Exception, unknown: type[OutcomeUnknownError], sent: bool, mocked: aioresponses
) -> None:
    """If nothing was sent, nothing was created, whatever the exception; otherwise the outcome is unknown.

    Errors of aiohttp become words, since their frames hold the headers; any other exception is the cause.
    """

    def fail(_: object, data: Any, **__: object) -> None:
        data.exchange.sent = sent
        raise cause

    mocked.post(f"{BASE}/suno/persona/create/", callback=fail)
    async with PersonaAPI(KEY, retry=ONCE, base_url=BASE) as api:
        error = await failure(api)
    not_created = NotCreatedError if unknown is OutcomeUnknownError else ConnectionFailedError
    assert type(error) is (unknown if sent else not_created)
    assert error.request is REQUEST
    assert error.__cause__ is (None if isinstance(cause, aiohttp.ClientError) else cause)


async def test_a_timeout_says_which_it_was(fake_suno: FakeSuno, once: PersonaAPI, advance: Clock) -> None:
    """`timeout.total` is named, with its seconds: the client's, or that of the call."""
    fake_suno.script(Fault.hang(), Fault.hang())
    for count, (seconds, timeout) in enumerate([(60, None), (5, 5)], start=1):
        call = asyncio.create_task(once.outcome(REQUEST, timeout=timeout))
        while len(fake_suno.requests) < count:
            await asyncio.sleep(0)
        advance(seconds + 1)
        error = (await call).error
        assert type(error) is ResponseTimeoutError
        assert f"no complete response within {seconds} s (timeout.total)" in error.message


async def test_at_most_max_response_size_bytes_of_a_response_are_read(fake_suno: FakeSuno) -> None:
    """The status decides what a longer response means; one of exactly that many is read."""
    whole = b'{"id": "fd213afd", "name": "Neon"}'
    size = len(whole)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_response_size=size) as api:
        large = whole.replace(b"Neon", b"Neon" * 1_000_000)
        fake_suno.script(*map(Fault.response, (200, 200, 400), (whole, large, large)))
        assert (await api.create(REQUEST)).name == "Neon"
        error = await failure(api)
        assert (type(error), len(error.body), error.persona_id) == (UnreadableResponseError, size, "fd213afd")
        assert f"max_response_size, {size} bytes" in error.message
        error = await failure(api)
        assert (type(error), len(error.body)) == (RejectedError, size)


async def test_a_body_that_a_middleware_replaces_may_have_been_sent(fake_suno: FakeSuno, advance: Clock) -> None:
    """The client cannot see when it is written, so a later timeout leaves the outcome unknown."""

    async def sign(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        body = request.body
        assert isinstance(body, aiohttp.Payload)
        await request.update_body(await body.as_bytes())
        return await handler(request)

    fake_suno.script(Fault.hang(creates=True))
    async with aiohttp.ClientSession(middlewares=[sign]) as session:
        api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session)
        call = asyncio.create_task(failure(api))
        await fake_suno.wait_for_requests(1)
        advance(61)
        assert type(await call) is ResponseTimeoutError
    assert len(fake_suno.personas) == 1


async def test_a_session_closed_while_it_connects_sent_nothing() -> None:
    """Aiohttp cancels the look-up of the address; the caller was not cancelled, and gets an error."""
    resolver = Resolver()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver))
    call = asyncio.create_task(failure(PersonaAPI(KEY, base_url=BASE, session=session)))
    await resolver.asked.wait()
    await session.close()
    assert not (await call).may_have_created
